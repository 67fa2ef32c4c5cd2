"""From token ids back to text: what a gap says, how it joins its neighbours, and the sections of a free draft. Pure.

Locked text never passes through here: answers are spliced from the caller's strings.
"""

import re
from collections.abc import Sequence

from inlay_model.canvas import encode_fragment, sentences
from inlay_model.prompt import title
from inlay_model.request import Gap
from inlay_model.tokens import Control, Tokenizer

_ENDS_SENTENCE = re.compile(r"[.!?][\"')\]»”’]*\s*$")


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text of these ids without control tokens.

    Bytes that make no character and control characters (a byte token may be any of them) are dropped: the text is to
    be stored and shown.
    """
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return "".join(letter for letter in text if letter == "\n" or (letter.isprintable() and letter != "\ufffd"))


def fill_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """What a gap says: stripped, runs of blanks and line breaks made one blank."""
    return " ".join(decode(tokenizer, ids).split())


def is_short(tokenizer: Tokenizer, text: str, gap: Gap) -> bool:
    """Whether a text has fewer tokens than its gap asks for."""
    return len(encode_fragment(tokenizer, text)) < gap.min_tokens


def ends_sentence(text: str) -> bool:
    """Whether the text stops at the end of a sentence (or is blank)."""
    return not text.strip() or _ENDS_SENTENCE.search(text) is not None


def continues_sentence(text: str) -> bool:
    """Whether this locked text goes on with a sentence begun before it, so that the gap need not close one."""
    stripped = text.lstrip()
    return bool(stripped) and (stripped[0].islower() or stripped[0] in ",;:.)]%")


def whole_sentences(text: str) -> str:
    """The text up to its last finished sentence, points that end nothing left out; empty where none is finished."""
    kept = [sentence for sentence in sentences(text) if any(map(str.isalnum, sentence))]
    while kept and not ends_sentence(kept[-1]):
        kept.pop()
    return " ".join(kept)


def joined(left: str, fill: str, right: str) -> str:
    """The fill with the blanks it needs between its neighbours: none where a neighbour brings its own.

    A section is the exact concatenation of its pieces, and the blank after a sentence belongs to that sentence. So a
    fill in front of something ends with a blank, and begins with one only after text that has none.
    """
    if not fill:
        return ""
    before = " " if left and not left[-1].isspace() else ""
    after = " " if right and not right[0].isspace() and right[0] not in ",;:.)]%" else ""
    return f"{before}{fill}{after}"


def within_section(text: str, name: str, section_names: Sequence[str]) -> str:
    """What the section of this name says of a gap's text into which the model wrote headers.

    That is what stands behind the last header of its own and before the first of another section: before its own the
    model went on with the section before, behind another's it began the next.
    """
    _, *own = _header_anywhere(name).split(text)
    said = own[-1] if own else text
    for other in section_names:
        if title(other) != title(name):
            said = _header_anywhere(other).split(said, maxsplit=1)[0]
    return said.strip()


def until_end_of_turn(ids: Sequence[int], control: Control) -> list[int]:
    """The ids before the first end of turn, EOS or padding."""
    ends = {control.end_of_turn, control.eos, control.pad}
    return list(ids[: next((at for at, token in enumerate(ids) if token in ends), len(ids))])


def parse_draft(text: str, section_names: Sequence[str]) -> tuple[list[str], bool]:
    """Texts of the named sections of a draft, and whether every header was found.

    Headers are looked for in order, at the beginning of a line. One that stands elsewhere cuts the text too, but was
    not written as a header is. A section whose header the model did not write is empty, and its text stays with the
    section before it; text before the first header belongs to the first section.
    """
    texts = [""] * len(section_names)
    begin, into, complete = 0, 0, True
    for index, name in enumerate(section_names):
        found = re.compile(rf"^[ ]*{re.escape(title(name))}:", re.MULTILINE).search(text, begin)
        complete = complete and found is not None
        found = found or _header_anywhere(name).search(text, begin)
        if found is None:
            continue
        texts[into] += text[begin : found.start()]
        begin, into = found.end(), index
    texts[into] += text[begin:]
    return [" ".join(found.split()) for found in texts], complete


def _header_anywhere(name: str) -> re.Pattern[str]:
    """A section's header wherever it stands.

    A model that has lost its place writes the name twice, or at the end of another word and without its colon.
    """
    titles = rf"(?:{re.escape(title(name))})+"
    return re.compile(rf"{titles}:|(?<=[\w.!?]){titles}\b:?")


def spans_of(tokenizer: Tokenizer, ids: Sequence[int], marked: Sequence[bool]) -> tuple[str, list[tuple[int, int]]]:
    """Text of the ids, and the character spans of it that come from marked tokens."""
    text = ""
    spans: list[tuple[int, int]] = []
    start = 0
    for at in range(1, len(ids) + 1):
        if at < len(ids) and marked[at] == marked[start]:
            continue
        piece = decode(tokenizer, ids[start:at])
        if marked[start] and piece:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
        start = at
    return text, spans
