"""Gaps and locks: what a clinician asks to be rewritten, and how the model's words are spliced between the locks.

Locked text always comes from the stored strings, never from what the model returns, so that it is kept byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from inlay_core.domain.errors import Fault, Invalid, Locked
from inlay_core.domain.fragment import (
    Fragment,
    FragmentWarning,
    Origin,
    Section,
    check_section_name,
    replace_sections,
)
from inlay_core.domain.ids import NewId
from inlay_core.domain.text import refuse_unstorable, split_sentences

# A canvas of the model holds 256 tokens; a gap that is larger than that can never be filled in one piece.
MAX_GAP_TOKENS: Final = 256
# Far more than a radiologist types as a hint; it keeps the prompt bounded.
MAX_HINT_LENGTH: Final = 200
# More than a screen shows beside a gap, and each costs the worker another filling.
MAX_ALTERNATIVES: Final = 5
# Bounds the work of one request; a report has some tens of sentences.
MAX_ITEMS: Final = 200


@dataclass(frozen=True, slots=True)
class LockRef:
    """A stored fragment to keep, named by its id, so that its text never makes the trip."""

    fragment_id: str


@dataclass(frozen=True, slots=True)
class LockText:
    """Text that the caller sends to be kept."""

    text: str


@dataclass(frozen=True, slots=True)
class FreeText:
    """Text that is free to change: a gap of roughly its length."""

    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A place to be filled, with optional bounds in tokens and an optional hint for the model."""

    min_tokens: int | None = None
    max_tokens: int | None = None
    hint: str | None = None


Item = LockRef | LockText | FreeText | Gap


@dataclass(frozen=True, slots=True)
class InfillSection:
    """The items of one section, in order."""

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class InfillRequest:
    """What a clinician asks for. Sections that are not named stay as they are.

    With `rewrite` what is free to change says the same as before, in the site's style. With `warm_start` the model
    begins from the text that is free to change, this share of it noise, and not from noise alone.
    """

    sections: tuple[InfillSection, ...]
    seed: int | None = None
    steps: int | None = None
    alternatives: int = 1
    rewrite: bool = False
    warm_start: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The request at rest."""
        return {
            "sections": [{"name": s.name, "items": [_item_to_json(i) for i in s.items]} for s in self.sections],
            "seed": self.seed,
            "steps": self.steps,
            "alternatives": self.alternatives,
            "rewrite": self.rewrite,
            "warm_start": self.warm_start,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> InfillRequest:
        """Read a request from the API or from rest; raise Invalid, naming the place, where it is malformed."""
        sections = body.get("sections")
        if not isinstance(sections, Sequence) or isinstance(sections, str) or not sections:
            raise Invalid("bad-request", "An infill names at least one section.", "sections")
        read = tuple(_section_from_json(section, f"sections[{n}]") for n, section in enumerate(sections))
        if len({section.name for section in read}) != len(read):
            raise Invalid("repeated-section", "A section is named once.", "sections")
        rewrite = body.get("rewrite", False)
        if not isinstance(rewrite, bool):
            raise Invalid("bad-request", "The flag rewrite is true or false.", "rewrite")
        return cls(
            read,
            _optional_int(body, "seed", "seed", 0, 2**63 - 1),
            _optional_int(body, "steps", "steps", 1, 1024),
            _optional_int(body, "alternatives", "alternatives", 1, MAX_ALTERNATIVES) or 1,
            rewrite,
            _optional_share(body, "warm_start"),
        )


@dataclass(frozen=True, slots=True)
class KeptText:
    """A lock as the model sees it: the exact string, and the stored fragment that it is, if it is one."""

    text: str
    fragment: Fragment | None = None


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap as the model sees it; `replaces` is the text whose length it should roughly have."""

    min_tokens: int | None = None
    max_tokens: int | None = None
    hint: str | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedSection:
    """The ordered strings and gaps of one section. `context` sections are shown to the model and not changed."""

    name: str
    items: tuple[KeptText | OpenGap, ...]
    context: bool = False


@dataclass(frozen=True, slots=True)
class Fill:
    """The model's words for the gap that is item number `item` of the section."""

    section: str
    item: int
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text for a gap, without the blanks around it, and its score, a mean log-probability.

    `probability` is how often a text of such a score was right, where the model knows that of itself.
    """

    text: str
    score: float
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The text at rest, and for the API; a probability only where there is one."""
        known = {} if self.probability is None else {"probability": self.probability}
        return {"text": self.text, "score": self.score, **known}


@dataclass(frozen=True, slots=True)
class Choice:
    """What might stand in the gap that is item number `item` of the section, best first; the first one does."""

    section: str
    item: int
    texts: tuple[Candidate, ...]

    def to_json(self) -> dict[str, Any]:
        """The choice at rest, and for the API."""
        return {"section": self.section, "item": self.item, "texts": [text.to_json() for text in self.texts]}


@dataclass(frozen=True, slots=True)
class Dispute:
    """The model's prediction contradicts characters [start, end) of the lock that is item `item` of the section."""

    section: str
    item: int
    start: int
    end: int
    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class LockDigest:
    """Proof that a locked span came back byte for byte."""

    section: str
    item: int
    fragment_id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Spliced:
    """All sections of the report after the infill, and a digest per locked span."""

    sections: tuple[Section, ...]
    digests: tuple[LockDigest, ...]


def resolve(
    request: InfillRequest, sections: tuple[Section, ...], *, imported_text_allowed: bool = False
) -> tuple[ResolvedSection, ...]:
    """Turn the request into strings and gaps, on the sections of the version that it is based on.

    Raises Invalid for a fragment id that the section does not have or that is named twice, Locked when a locked or
    imported fragment of a named section would be lost, Invalid when imported text (an order's free text) would reach
    the model although the site does not allow it, or when a rewriting has no text to say again.
    """
    stored = {section.name: section for section in sections}
    resolved = [
        ResolvedSection(part.name, _resolve_items(part, stored.get(part.name, Section(part.name)), f"sections[{n}]"))
        for n, part in enumerate(request.sections)
    ]
    if not imported_text_allowed:
        _refuse_imported(resolved)
    if request.rewrite and not any(_says_something(item) for part in resolved for item in part.items):
        raise Invalid("nothing-to-rewrite", "There is no free text that could be said again.", "sections")
    named = {part.name for part in request.sections}
    context = [
        ResolvedSection(section.name, tuple(KeptText(f.text, f) for f in section.fragments), context=True)
        for section in sections
        if section.name not in named and section.fragments and (imported_text_allowed or not _is_imported(section))
    ]
    return tuple(resolved + context)


def _says_something(item: KeptText | OpenGap) -> bool:
    return isinstance(item, OpenGap) and bool((item.replaces or "").strip())


def splice(
    request: InfillRequest,
    sections: tuple[Section, ...],
    fills: Iterable[Fill],
    *,
    new_id: NewId,
    job_id: str,
    disputes: Iterable[Dispute] = (),
) -> Spliced:
    """Put the model's words between the locks; every gap needs exactly one fill (which may be empty).

    Locked fragments keep id, text, flag and origin; fills become sentences of origin model. Raises Fault when the
    fills do not fit the gaps.
    """
    words = _by_place(fills)
    contested = _disputes_by_place(disputes)
    new: list[Section] = []
    digests: list[LockDigest] = []
    for part in resolve(request, sections, imported_text_allowed=True):
        if part.context:
            continue
        fragments: list[Fragment] = []
        for number, item in enumerate(part.items):
            if isinstance(item, KeptText):
                kept = _keep(item, new_id, contested.get((part.name, number), ()))
                digests.append(LockDigest(part.name, number, kept.id, kept.digest))
                fragments.append(kept)
            else:
                text = _spaced(words.pop((part.name, number), None), fragments, part.items[number + 1 :])
                fragments += _sentences(text, new_id, job_id)
        new.append(Section(part.name, tuple(fragments)))
    if words:
        raise Fault("fill-without-gap", "The model filled a place that is no gap.", "result")
    return Spliced(replace_sections(sections, new), tuple(digests))


def draft_sections(
    texts: Iterable[tuple[str, str]], new_id: NewId, job_id: str, before: tuple[Section, ...] = ()
) -> tuple[Section, ...]:
    """The sections of a draft from (name, text) pairs, after those in `before` (what was imported)."""
    drafted = [
        Section(check_section_name(name, "result"), tuple(_sentences(text, new_id, job_id))) for name, text in texts
    ]
    return (*before, *drafted)


def _sentences(text: str, new_id: NewId, job_id: str) -> list[Fragment]:
    return [Fragment(new_id(), piece, Origin.MODEL, job_id=job_id) for piece in split_sentences(text)]


def _keep(item: KeptText, new_id: NewId, disputes: Iterable[Dispute]) -> Fragment:
    fragment = item.fragment or Fragment(new_id(), item.text, Origin.CLINICIAN)
    warnings = tuple(FragmentWarning(d.code, d.message, d.start, d.end) for d in disputes)
    return replace(fragment, locked=True, warnings=warnings)


def _spaced(text: str | None, before: Sequence[Fragment], after: Sequence[KeptText | OpenGap]) -> str:
    """The fill with a blank where its words would otherwise touch the words of a lock: locks cannot be given one."""
    if text is None:
        raise Fault("gap-without-fill", "The model left a gap without an answer.", "result")
    if not text:
        return text
    last = next((fragment.text for fragment in reversed(before) if fragment.text), "")
    if last and not last[-1].isspace() and text[0].isalnum():
        text = " " + text
    following = next((item.text for item in after if isinstance(item, KeptText) and item.text), "")
    touches = bool(after) and isinstance(after[0], KeptText) and following[:1].isalnum()
    return text + " " if touches and not text[-1].isspace() else text


def _by_place(fills: Iterable[Fill]) -> dict[tuple[str, int], str]:
    words: dict[tuple[str, int], str] = {}
    for fill in fills:
        if (fill.section, fill.item) in words:
            raise Fault("gap-filled-twice", "The model filled one gap twice.", "result")
        words[fill.section, fill.item] = refuse_unstorable(fill.text, "result")
    return words


def _disputes_by_place(disputes: Iterable[Dispute]) -> dict[tuple[str, int], list[Dispute]]:
    places: dict[tuple[str, int], list[Dispute]] = {}
    for dispute in disputes:
        places.setdefault((dispute.section, dispute.item), []).append(dispute)
    return places


def _resolve_items(part: InfillSection, stored: Section, place: str) -> tuple[KeptText | OpenGap, ...]:
    unused = {fragment.id: fragment for fragment in stored.fragments}
    for number, item in enumerate(part.items):
        if isinstance(item, LockRef) and unused.pop(item.fragment_id, None) is None:
            raise Invalid("unknown-fragment", "No such fragment, or named twice.", f"{place}.items[{number}].lock")
    resolved = tuple(_resolve_item(item, stored, unused) for item in part.items)
    if any(fragment.locked for fragment in unused.values()):
        raise Locked("locked-fragment-missing", "A locked fragment of the section is not in the request.", place)
    if any(fragment.origin is Origin.IMPORTED for fragment in unused.values()):
        raise Locked("imported-text-missing", "Imported text of the section would be written over.", place)
    return resolved


def _resolve_item(item: Item, stored: Section, unused: dict[str, Fragment]) -> KeptText | OpenGap:
    if isinstance(item, LockRef):
        fragment = stored.fragment(item.fragment_id)
        assert fragment is not None
        return KeptText(fragment.text, fragment)
    if isinstance(item, LockText):
        # Text that is already in the section keeps its id and origin: sending the model's words back as "my text"
        # must not turn them into a clinician's.
        known = next((fragment for fragment in unused.values() if fragment.text == item.text), None)
        if known is not None:
            del unused[known.id]
        return KeptText(item.text, known)
    if isinstance(item, FreeText):
        return OpenGap(replaces=item.text)
    return OpenGap(item.min_tokens, item.max_tokens, item.hint)


def _is_imported(section: Section) -> bool:
    return any(fragment.origin is Origin.IMPORTED for fragment in section.fragments)


def _refuse_imported(resolved: Iterable[ResolvedSection]) -> None:
    for section in resolved:
        for number, item in enumerate(section.items):
            if isinstance(item, KeptText) and item.fragment is not None and item.fragment.origin is Origin.IMPORTED:
                raise Invalid(
                    "imported-text", "Imported text does not reach the model here.", f"{section.name}.items[{number}]"
                )


def _item_to_json(item: Item) -> dict[str, Any]:
    match item:
        case LockRef(fragment_id):
            return {"lock": fragment_id}
        case LockText(text):
            return {"text": text, "locked": True}
        case FreeText(text):
            return {"text": text, "locked": False}
        case Gap(min_tokens, max_tokens, hint):
            return {"gap": {"min_tokens": min_tokens, "max_tokens": max_tokens, "hint": hint}}


def _section_from_json(body: Any, place: str) -> InfillSection:
    if not isinstance(body, Mapping) or not isinstance(body.get("name"), str):
        raise Invalid("bad-request", "A section is an object with a name.", place)
    items = body.get("items")
    if not isinstance(items, Sequence) or isinstance(items, str) or len(items) > MAX_ITEMS:
        raise Invalid("bad-request", f"A section has a list of at most {MAX_ITEMS} items.", f"{place}.items")
    name = check_section_name(body["name"], f"{place}.name")
    return InfillSection(name, tuple(_item_from_json(item, f"{place}.items[{n}]") for n, item in enumerate(items)))


def _item_from_json(body: Any, place: str) -> Item:
    if not isinstance(body, Mapping) or len({"lock", "text", "gap"} & body.keys()) != 1:
        raise Invalid("bad-request", "An item has exactly one of lock, text, gap.", place)
    readers: dict[str, Callable[[Any, Mapping[str, Any], str], Item]] = {
        "lock": _lock_from_json,
        "text": _text_from_json,
        "gap": _gap_from_json,
    }
    key = next(iter({"lock", "text", "gap"} & body.keys()))
    return readers[key](body[key], body, f"{place}.{key}")


def _lock_from_json(value: Any, _body: Mapping[str, Any], place: str) -> Item:
    if not isinstance(value, str):
        raise Invalid("bad-request", "A lock is the id of a fragment.", place)
    return LockRef(value)


def _text_from_json(value: Any, body: Mapping[str, Any], place: str) -> Item:
    locked = body.get("locked", False)
    if not isinstance(value, str) or not isinstance(locked, bool):
        raise Invalid("bad-request", "A text is a string, its flag locked is true or false.", place)
    refuse_unstorable(value, place)
    return LockText(value) if locked else FreeText(value)


def _gap_from_json(value: Any, _body: Mapping[str, Any], place: str) -> Item:
    if not isinstance(value, Mapping):
        raise Invalid("bad-request", "A gap is an object.", place)
    lower = _optional_int(value, "min_tokens", f"{place}.min_tokens", 0, MAX_GAP_TOKENS)
    upper = _optional_int(value, "max_tokens", f"{place}.max_tokens", 1, MAX_GAP_TOKENS)
    if lower is not None and upper is not None and lower > upper:
        raise Invalid("bad-gap", "min_tokens must not exceed max_tokens.", place)
    hint = value.get("hint")
    if hint is not None and (not isinstance(hint, str) or len(hint) > MAX_HINT_LENGTH):
        raise Invalid("bad-gap", f"A hint is a string of at most {MAX_HINT_LENGTH} characters.", f"{place}.hint")
    return Gap(lower, upper, refuse_unstorable(hint, f"{place}.hint") if hint else None)


def _optional_share(body: Mapping[str, Any], key: str) -> float | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise Invalid("bad-number", "Expected a number above 0, at most 1.", key)
    return float(value)


def _optional_int(body: Mapping[str, Any], key: str, place: str, low: int, high: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Invalid("bad-number", f"Expected a whole number from {low} to {high}.", place)
    return value
