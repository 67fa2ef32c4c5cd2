"""An answer as the command line prints it: the report on standard output, what is to be said of it beside, or JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from inlay_model.provenance import request_json
from inlay_model.request import Alternative, Dispute, Filled, FilledSection, Section, Word

_LABEL = "AI draft, not verified by a clinician."
_DEMO_LABEL = "Synthetic phantom images only; not for clinical use."


def as_json(filled: Filled) -> dict[str, Any]:
    """The whole answer. `disputes` and `confidence` are null where the report was not read once more for them."""
    return {
        "sections": _sections_json(filled.sections),
        "notes": list(filled.notes),
        "disputes": None if filled.disputes is None else [_with_text(filled, one) for one in filled.disputes],
        "confidence": None if filled.confidence is None else [_with_text(filled, one) for one in filled.confidence],
        "alternatives": [asdict(choice) for choice in filled.alternatives],
        "run": filled.run.to_json(),
    }


def as_record(filled: Filled, asked: Sequence[Section]) -> dict[str, Any]:
    """What `--record` writes: the request, the run that answered it, and the answer."""
    return {
        "sections": request_json(asked),
        "run": filled.run.to_json(),
        "answer": _sections_json(filled.sections),
    }


def remarks(filled: Filled, *, demonstration: bool, confidence: bool) -> Iterator[str]:
    """Lines for people: whose text it is, notes, disputed locks, other texts for gaps, and how sure each word is."""
    yield f"({_LABEL}{f' {_DEMO_LABEL}' if demonstration else ''})"
    for note in filled.notes:
        yield f"note: {note}"
    for dispute in filled.disputes or ():
        instead = f", it would say: {dispute.instead}" if dispute.instead else ""
        doubt = f"probability {dispute.probability:.2g}{instead}"
        yield f"disputed in {dispute.section}: {_words(filled, dispute)} ({doubt})"
    for choice in filled.alternatives:
        yield f"{choice.section}, {_ordinal(filled, choice.section, choice.item)}, best first:"
        yield from (f"  {number}. {_alternative(one)}" for number, one in enumerate(choice.texts, start=1))
    if confidence:
        for (section, item), words in groupby(filled.confidence or (), key=lambda word: (word.section, word.item)):
            each = ", ".join(f"{_words(filled, word)} {word.probability:.2f}" for word in words)
            yield f"confidence in {section}, {_ordinal(filled, section, item)}: {each}"


def _alternative(one: Alternative) -> str:
    right = "" if one.probability is None else f", right in {one.probability:.0%} of such"
    return f"{one.text or '(nothing)'} (score {one.score:.3f}{right})"


def _ordinal(filled: Filled, section: str, item: int) -> str:
    """Which gap of its section an item is, counted as people do."""
    pieces = next(part.pieces for part in filled.sections if part.name == section)
    return f"gap {sum(piece.kind == 'fill' for piece in pieces[: item + 1])}"


def _words(filled: Filled, span: Dispute | Word) -> str:
    pieces = next(part.pieces for part in filled.sections if part.name == span.section)
    return pieces[span.item].text[span.start : span.end].strip()


def _with_text(filled: Filled, span: Dispute | Word) -> dict[str, Any]:
    return {**asdict(span), "text": _words(filled, span)}


def _sections_json(sections: Sequence[FilledSection]) -> list[dict[str, Any]]:
    return [
        {
            "name": section.name,
            "text": section.text,
            "pieces": [
                {"text": piece.text, "kind": piece.kind, "item": piece.item, "sha256": piece.sha256}
                for piece in section.pieces
            ],
        }
        for section in sections
    ]
