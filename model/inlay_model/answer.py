"""A request and the texts of its gaps as the answer that the caller gets. Pure.

Locked text is spliced from the caller's strings; only fills come from the model.
"""

from collections.abc import Mapping, Sequence

from inlay_model.request import FilledSection, Gap, Lock, Piece, Section
from inlay_model.transcript import continues_sentence, ends_sentence, joined


def draft_request(names: Sequence[str], begin: str) -> tuple[Section, ...]:
    """A draft as a request: one gap per section, after the text that the first one begins with."""
    first = (Lock(begin), Gap()) if begin else (Gap(),)
    return tuple(Section(name, first if at == 0 else (Gap(),)) for at, name in enumerate(names))


def spliced(sections: Sequence[Section], texts: Sequence[str]) -> tuple[FilledSection, ...]:
    """The answer: locks from the caller's strings, fills joined to their neighbours."""
    left = iter(texts)
    answer = []
    for section in sections:
        found = [item.text if isinstance(item, Lock) else next(left) for item in section.items]
        pieces: list[Piece] = []
        before = ""
        for at, item in enumerate(section.items):
            if isinstance(item, Lock):
                pieces.append(Piece(item.text, "lock", at))
            else:
                after = next((text for text in found[at + 1 :] if text), "")
                pieces.append(Piece(joined(before, found[at], after), "fill", at))
            before = pieces[-1].text or before
        answer.append(FilledSection(section.name, tuple(pieces)))
    return tuple(answer)


def breaks_off(texts: Sequence[str], *, ended: bool) -> bool:
    """Whether the sections of a draft stop within a sentence because there was no room for its end.

    A model that ended its turn had room: whether it closes its last sentence is a matter of style.
    """
    last = next((text for text in reversed(texts) if text), "")
    return not ended and not ends_sentence(last)


def noted(found: Mapping[str, bool]) -> tuple[str, ...]:
    """The notes that hold."""
    return tuple(note for note, holds in found.items() if holds)


def locked_texts(sections: Sequence[Section]) -> list[str]:
    """The locked texts in reading order."""
    return [item.text for section in sections for item in section.items if isinstance(item, Lock)]


def open_ended(sections: Sequence[Section]) -> list[bool]:
    """Per gap: whether the locked text after it goes on with its sentence, so that it need not end one."""
    answer = []
    for section in sections:
        for at, item in enumerate(section.items):
            if isinstance(item, Gap):
                following = next(
                    (other.text for other in section.items[at + 1 :] if isinstance(other, Lock) and other.text.strip()),
                    "",
                )
                answer.append(continues_sentence(following))
    return answer
