"""Reports longer than a canvas: sections are the blocks, and as many as fit one after the other are a page. Pure.

A page is filled on a canvas of its own, behind the pages before it. What is locked after it stands in the prompt, and
the beginning of the next section at its end where there is room.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from inlay_model.canvas import Blocks, Frame, encode_fragment, encode_header, encode_request
from inlay_model.request import Gap, Section
from inlay_model.tokens import Control, Tokenizer

# Tokens that a gap should find on its page: a sentence. Where a section has no room for that it stands by itself.
_ROOM = 24
# Tokens of the next section that are shown at the end of a page: enough to tell how long the last gap is.
_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Page:
    """Sections that are filled on one canvas, the first of them by number, and its frame."""

    first: int
    sections: tuple[Section, ...]
    frame: Frame


def paged(tokenizer: Tokenizer, sections: Sequence[Section], canvas_length: int, control: Control) -> list[Page]:
    """The pages of a request: one where it fits on a canvas, else as few as hold it.

    Raises `CanvasOverflow` where one section alone is too long for a canvas.
    """
    blocks = encode_request(tokenizer, sections)
    smallest = sum(hole.gap.min_tokens for hole in blocks.holes)
    if blocks.locked_tokens + smallest <= canvas_length or len(sections) == 1:
        frame = Frame(blocks, canvas_length, control)
        _ = frame.room
        return [Page(0, tuple(sections), frame)]
    groups: list[list[Section]] = []
    for number, section in enumerate(sections):
        if groups and _size(tokenizer, [*groups[-1], section], number - len(groups[-1])) <= canvas_length:
            groups[-1].append(section)
        else:
            groups.append([section])
    pages: list[Page] = []
    for number, group in enumerate(groups):
        first = sum(len(earlier) for earlier in groups[:number])
        blocks = encode_request(tokenizer, group, first)
        if number + 1 < len(groups):
            spare = canvas_length - _size(tokenizer, group, first)
            blocks = _going_on(blocks, _beginning(tokenizer, sections[first + len(group)])[: max(0, spare)])
        frame = Frame(blocks, canvas_length, control)
        _ = frame.room
        pages.append(Page(first, tuple(group), frame))
    return pages


def written_before(tokenizer: Tokenizer, sections: Sequence[tuple[str, str]]) -> list[int]:
    """Token ids of finished sections, as the pages after them find them."""
    ids: list[int] = []
    for index, (name, text) in enumerate(sections):
        ids += [*encode_header(tokenizer, index, name), *encode_fragment(tokenizer, text)]
    return ids


def _size(tokenizer: Tokenizer, sections: Sequence[Section], first: int) -> int:
    """Tokens that these sections, of which `first` is the number of the first, should find on a page of their own."""
    blocks = encode_request(tokenizer, sections, first)
    return blocks.locked_tokens + sum(max(_ROOM, hole.gap.min_tokens) for hole in blocks.holes)


def _beginning(tokenizer: Tokenizer, section: Section) -> list[int]:
    """The header of the next section and what is locked at its beginning; nothing where it begins with a gap."""
    ids: list[int] = []
    for item in section.items:
        if isinstance(item, Gap):
            break
        ids += encode_fragment(tokenizer, item.text)
    return [*encode_header(tokenizer, 1, section.name), *ids][:_SHOWN] if ids else []


def _going_on(blocks: Blocks, beginning: Sequence[int]) -> Blocks:
    """A page that is not the last: what follows stands before its end, and no gap is written like a draft's end."""
    *parts, end = blocks.parts
    # The end of turn always closes a request, so its last part is no hole.
    assert isinstance(end, tuple)
    return Blocks((*parts, (*end[:-1], *beginning, end[-1])))
