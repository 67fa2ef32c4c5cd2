"""What a request wishes besides sections and style, in words at the end of the prompt. Pure.

Training (`training/wishes.py`) and inference build the words here, so that they say the same.
"""

from collections.abc import Sequence

from inlay_model.prompt import title
from inlay_model.request import Gap, Item, Section


def hinted(hints: Sequence[str]) -> str:
    """What the gaps are to speak of, in reading order; empty where nothing is hinted."""
    said = [" ".join(hint.split()) for hint in hints]
    listed = "; ".join(hint for hint in said if hint)
    return f"\nIn the gaps: {listed}." if listed else ""


def to_rewrite(sections: Sequence[tuple[str, str]]) -> str:
    """The report that is to be rewritten in the style named before, section by section."""
    lines = [f"{title(name)}: {' '.join(text.split())}" for name, text in sections]
    return "\n".join(["", "Rewrite this report in that style:", *lines])


def hints_of(sections: Sequence[Section]) -> list[str]:
    """The hints of a request in reading order."""
    return [item.hint for part in sections for item in part.items if isinstance(item, Gap) and item.hint]


def as_it_was(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """A request as the report that it is to replace: locks, and what stood where the gaps are."""
    return [(part.name, "".join(_before(item) for item in part.items)) for part in sections]


def _before(item: Item) -> str:
    return (item.replaces or "") if isinstance(item, Gap) else item.text
