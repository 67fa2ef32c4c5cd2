"""From claims to the model's values and back, and errors to reasons."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.errors import Conflict, DomainError, Fault, Forbidden, Invalid, NotFound, Stale, Unavailable
from inlay_core.domain.infill import KeptText, OpenGap, ResolvedSection
from inlay_core.domain.job import Job, JobKind
from inlay_core.domain.order import Priority
from inlay_model import BadImage, CanvasOverflow, Dispute, Filled, Gap, Lock, NotANumber, PromptTooLong, Word
from inlay_testkit.engine import FakeModel, run_record
from inlay_worker.failures import is_unexpected, reason_of
from inlay_worker.generation import Generation, disputes_of, fills_of, sections_of, settings_of
from inlay_worker.generation import run_record as record_of

ITEMS = st.lists(
    st.one_of(
        st.text(max_size=12).map(KeptText),
        st.just(OpenGap()),
        st.just(OpenGap(max_tokens=0)),
        st.text(min_size=1, max_size=12).map(lambda text: OpenGap(replaces=text)),
    ),
    max_size=6,
).map(tuple)
NAMES = st.permutations(["technique", "findings", "impression"])


@given(NAMES, st.tuples(ITEMS, ITEMS, ITEMS))
def test_every_gap_gets_exactly_one_fill(names: list[str], items: tuple[tuple[KeptText | OpenGap, ...], ...]) -> None:
    """Whatever the request, the fills name its gaps one to one, by section and item, in any order of sections."""
    resolved = tuple(ResolvedSection(name, part) for name, part in zip(names, items, strict=True))
    filled = FakeModel().infill(None, sections_of(resolved))
    gaps = [(part.name, n) for part in resolved for n, item in enumerate(part.items) if isinstance(item, OpenGap)]
    assert [(fill.section, fill.item) for fill in fills_of(resolved, filled)] == gaps


@given(NAMES, st.tuples(ITEMS, ITEMS, ITEMS))
def test_locks_reach_the_model_as_they_are(names: list[str], items: tuple[tuple[KeptText | OpenGap, ...], ...]) -> None:
    """Locked strings are handed over unchanged, and the sections stand in the order of a report."""
    resolved = tuple(ResolvedSection(name, part) for name, part in zip(names, items, strict=True))
    sections = sections_of(resolved)
    assert [section.name for section in sections] == ["technique", "findings", "impression"]
    sent = {(s.name, n): item.text for s in sections for n, item in enumerate(s.items) if isinstance(item, Lock)}
    assert sent == {
        (part.name, n): item.text
        for part in resolved
        for n, item in enumerate(part.items)
        if isinstance(item, KeptText)
    }


def test_text_that_is_free_becomes_a_gap() -> None:
    """Unlocked text is a gap of unknown length; explicit bounds and hints are passed on."""
    part = ResolvedSection("findings", (OpenGap(replaces="one two three four"), OpenGap(3, 9, "pleura"), OpenGap()))
    (section,) = sections_of((part,))
    assert section.items == (Gap(), Gap(3, 9, "pleura"), Gap())
    (told,) = sections_of((part,), replaced=True)
    assert told.items == (Gap(replaces="one two three four"), Gap(3, 9, "pleura"), Gap())


def test_disputes_name_the_word_and_how_probable_it_is() -> None:
    """A disputed word becomes a warning with its span; what stands in a gap or in text for context does not."""
    found = (
        Dispute("findings", 1, 3, 7, 0.034, "right"),
        Dispute("findings", 1, 8, 16, 0.0001),
        Dispute("findings", 0, 0, 2, 0.1),
        Dispute("technique", 0, 0, 2, 0.1),
        Dispute("impression", 0, 0, 2, 0.1),
    )
    resolved = (
        ResolvedSection("findings", (OpenGap(), KeptText("No left effusion. "))),
        ResolvedSection("technique", (KeptText("PA view."),), context=True),
    )
    left, effusion = disputes_of(resolved, Filled((), run_record(), disputes=found))
    assert (left.section, left.item, left.start, left.end, left.code) == ("findings", 1, 3, 7, "disputed")
    assert left.message == "The model holds “left” to be wrong: it gives it a probability of 3 % and would say “right”."
    assert effusion.message == "The model holds “effusion” to be wrong: it gives it a probability of less than 1 %."
    assert disputes_of(resolved, Filled((), run_record())) == ()


def job(**request: object) -> Job:
    """An infill with this request."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Job("j-1", "r-1", JobKind.INFILL, 1, Priority.ROUTINE, now, request=request)


def test_the_record_says_how_probable_the_written_words_are() -> None:
    """Where the model read its words once more; else the record has none of it."""
    told = Filled((), run_record(), confidence=(Word("findings", 1, 0, 5, 0.123456),))
    word = {"section": "findings", "item": 1, "start": 0, "end": 5, "probability": 0.1235}
    assert record_of(told)["confidence"] == [word]
    assert "confidence" not in record_of(Filled((), run_record(), confidence=()))


def test_request_overrides_steps_and_seed() -> None:
    """Steps and seed of the request are used; a seed of 0 is a seed."""
    assert (settings_of(job(), 16).steps, settings_of(job(steps=4), 16).steps) == (16, 4)
    assert settings_of(job(seed=0), 16).seed == 0
    assert 0 < settings_of(job(seed=None), 16).seed < 2**63


def test_a_site_reports_in_one_of_the_models_styles() -> None:
    """The site's style must be one that the model knows: the setting is named, and what can be chosen."""
    Generation(FakeModel(), steps=4, style="plain")
    with pytest.raises(Invalid, match="plain") as refused:
        Generation(FakeModel(), steps=4, style="baroque")
    assert refused.value.place == "INLAY_REPORT_STYLE"


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (Invalid("image-truncated", "cut"), "image-truncated", False),
        (Forbidden("not-a-phantom", "no"), "not-a-phantom", False),
        (NotFound("unknown-report", "no"), "unknown-report", False),
        (Unavailable("pacs-away", "no"), "pacs-away", True),
        (Conflict("image-replaced", "no"), "image-replaced", True),
        (Fault("gap-without-fill", "no"), "gap-without-fill", True),
        (Stale("fence-moved", "no"), "fence-moved", True),
        (CanvasOverflow(300, 256), "canvas-overflow", False),
        (PromptTooLong("long"), "prompt-too-long", False),
        (BadImage("odd"), "bad-image", False),
        (NotANumber("nan"), "nan-logits", True),
        (MemoryError(), "out-of-memory", True),
        (RuntimeError("quotes a name"), "worker-fault", True),
        (KeyError("name"), "worker-fault", True),
    ],
)
def test_errors_become_reasons(error: Exception, code: str, retry: bool) -> None:
    """Each kind of error has its code, and says whether trying again can help; foreign texts are not kept."""
    reason, again = reason_of(error)
    assert (reason.code, again) == (code, retry)
    assert "name" not in reason.text


def test_out_of_memory_of_torch_is_known_by_its_name() -> None:
    """A full GPU is an expected failure, although the module never imports torch."""

    class OutOfMemoryError(RuntimeError):
        pass

    assert reason_of(OutOfMemoryError())[0].code == "out-of-memory"
    assert not is_unexpected(OutOfMemoryError())
    assert is_unexpected(RuntimeError())
    assert not is_unexpected(DomainError("x", "y"))
