"""The phantom suite: verdicts of the offline judge, disputed locks, and the figures made of them."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_model import Engine, Filled, FilledSection, Gap, GenerationSettings, Lock, Piece, Section
from inlay_model.answer import spliced
from inlay_model.evaluation import text_alone
from inlay_model.evaluation.disputes import contradicting, is_disputed, reworded, swapped_side
from inlay_model.evaluation.known_findings import contradicts, inventions, read, says_the_same, slots_right
from inlay_model.evaluation.overlap import first_sentence, whole_sentences
from inlay_model.evaluation.phantom import Verdict, complete_request, fill_of, judge, rows, summary, table
from inlay_model.evaluation.text_alone import both_ways
from inlay_model.loading import About, default_checkpoint
from inlay_model.phantom.findings import Findings, can_stand_together, draw_findings
from inlay_model.phantom.grammar import STYLES, PhantomReport, other_phrasings, read_sentences, write_report
from inlay_model.phantom.render import phantom

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> Findings:
    """Findings of a seed."""
    return Findings.from_indices(draw_findings(1, np.random.default_rng(seed))[0])


# ── the offline judge ───────────────────────────────────────────────────────────────────────────────────────────────

SOME = Findings.normal(left_effusion="small", consolidation="right lower lobe")


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("There is a small left pleural effusion.", True),
        ("Small left collection.", True),
        ("There is a small left pleural effusion. The heart is normal in size.", True),
        ("There is a large left pleural effusion.", False),
        ("There is a small right pleural effusion.", False),
        ("There is a small left pleural effusion. Large right pneumothorax.", False),
        ("Small left fluid.", False),
        ("", False),
    ],
)
def test_a_gap_is_right_if_it_says_what_is_missing_and_nothing_false(written: str, *, right: bool) -> None:
    """Other words are as good, more truth does no harm; wrong size, side or a further invention does."""
    assert says_the_same("There is a small left pleural effusion.", written, SOME) is right


def test_inventions_are_found_in_garbled_sentences_too() -> None:
    """A wrong degree is no invention; an absent finding or another side is, even in text that the grammar knows not."""
    assert not inventions(read("There is a large left pleural effusion."), SOME)
    assert inventions(read("There is a small right pneumothorax."), SOME)
    assert inventions(read("Small right left pneumothorax is."), SOME)
    assert not inventions(read("No pneumothorax whatever."), SOME)
    assert contradicts(read("The lungs are clear."), SOME)
    assert slots_right(None, SOME) == 0.0
    assert slots_right(SOME, SOME) == 1.0


def test_whole_sentences_and_the_first_of_them() -> None:
    """What a gap should hold is recognised, and what follows a given beginning is cut at its first full stop."""
    assert whole_sentences("The heart is large. No effusion.")
    assert not whole_sentences("the heart is large.")
    assert not whole_sentences("The heart is large")
    assert first_sentence("A b. C d. E.", after="A b.") == "C d."
    assert first_sentence("A b.", after="A b.") == ""


# ── disputes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def locks_of(sections: Sequence[Section]) -> list[str]:
    """The locked sentences of the first section."""
    return [item.text for item in sections[0].items if isinstance(item, Lock)]


@given(seed=seeds, style=st.sampled_from(STYLES))
def test_exactly_the_sentence_under_test_contradicts_the_image(*, seed: int, style: str) -> None:
    """All other locks of a false section are true, so a dispute of one of them would be wrong."""
    truth = drawn(seed)
    trial = contradicting(truth, style, np.random.default_rng(seed))
    assert trial is not None
    false = [n for n, text in enumerate(locks_of(trial.sections)) if contradicts(read_sentences([text]), truth)]
    assert false == [trial.item]
    assert trial.kind in {"side", "degree", "denied", "invented"}


@given(seed=seeds, style=st.sampled_from(STYLES))
def test_a_reworded_lock_states_the_same_in_other_words(*, seed: int, style: str) -> None:
    """One sentence differs from the reference report, and what is stated does not."""
    truth = drawn(seed)
    report = write_report(truth, style, np.random.default_rng(seed))
    trial = reworded(report, np.random.default_rng(seed))
    before, after = dict(report.sections)["findings"], locks_of(trial.sections)
    assert [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [trial.item]
    assert read_sentences(before).stated == read_sentences(after).stated


def test_every_sentence_of_findings_has_another_phrasing() -> None:
    """So a true lock in other words can be made of any, and it states the same."""
    reports = [write_report(drawn(seed), STYLES[seed % 3], np.random.default_rng(seed)) for seed in range(200)]
    for text in {sentence for report in reports for sentence in dict(report.sections)["findings"]}:
        others = other_phrasings(text)
        assert others
        assert text not in others
        assert all(read_sentences([other]).stated == read_sentences([text]).stated for other in others)
    assert other_phrasings("Somebody else's sentence.") == []


def test_findings_that_hide_each_other_cannot_stand_together() -> None:
    """A false lock about something that could not be seen anyway would be no contradiction of the image."""
    assert can_stand_together(drawn(3))
    assert not can_stand_together(Findings.normal(nodule="left lower zone", nodule_size="10 mm", left_effusion="large"))
    assert not can_stand_together(Findings.normal(nodule="left lower zone"))


def test_sides_are_swapped_in_whole_words() -> None:
    """Right becomes left and left right, and the case is kept."""
    assert swapped_side("Right effusion, left bright.") == "Left effusion, right bright."


# ── the suite ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Dispute:
    """A dispute as an engine reports it."""

    section: str
    item: int


@dataclass(frozen=True)
class FilledWithDisputes:
    """An answer of an engine that reports disputes."""

    sections: tuple[FilledSection, ...]
    disputes: tuple[Dispute, ...]
    run: Any = None
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sections' text."""
        return " ".join(section.text for section in self.sections)


class KnowsAll:
    """A model that knows the findings of the phantom it is shown: it drafts them, fills gaps and disputes rightly."""

    name = digest = "all"
    is_demonstration = True
    styles = STYLES

    def __init__(self, seed: int, *, disputes: bool) -> None:
        self.seed, self.disputes = seed, disputes
        self.truth = phantom(seed).findings

    def draft(
        self,
        images: Any,  # noqa: ARG002 (the port names it)
        *,
        sections: Sequence[str] = ("findings", "impression"),
        begin: str = "",
        **_: Any,
    ) -> Any:
        """The reference report, or what follows in it."""
        report = write_report(self.truth, STYLES[self.seed % len(STYLES)], np.random.default_rng([self.seed, 1]))
        assert report.text("findings").startswith(begin)
        return Filled(
            tuple(FilledSection(name, (Piece(report.text(name), "fill", 0),)) for name in sections),
            run=None,  # type: ignore[arg-type]
        )

    def infill(self, images: Any, sections: Sequence[Section], **_: Any) -> Any:  # noqa: ARG002
        """The sentences of the reference report that are not there, and a dispute for every false lock."""
        report = write_report(self.truth, STYLES[self.seed % len(STYLES)], np.random.default_rng([self.seed, 1]))
        locked = " ".join(item.text for item in sections[0].items if isinstance(item, Lock))
        missing = " ".join(text for text in dict(report.sections)["findings"] if text not in locked)
        end = [report.text("impression")] if isinstance(sections[-1].items[-1], Gap) else []
        gaps = sum(not isinstance(item, Lock) for section in sections for item in section.items)
        filled = spliced(sections, [*[missing, *[""] * gaps][: gaps - len(end)], *end])
        if not self.disputes:
            return Filled(filled, run=None)  # type: ignore[arg-type]
        found = [
            Dispute(section.name, at)
            for section in sections
            for at, item in enumerate(section.items)
            if isinstance(item, Lock) and contradicts(read(item.text), self.truth)
        ]
        return FilledWithDisputes(filled, tuple(found))


def test_a_model_that_knows_all_is_right_in_everything() -> None:
    """The suite gives full marks where they are due; without disputes in the answers their keys are absent."""
    verdicts = [judge(KnowsAll(seed, disputes=False), seed, steps=1) for seed in range(1_000_000, 1_000_003)]
    figures = summary(verdicts, seed=1, steps=1)
    for name in ("reports_exact", "slots_mean", "reports_without_invention", "infill_f1_both", "infill_f1_left"):
        assert figures[name] == 1.0, name
    for name in ("gap_sentence_rate", "gap_finding_right", "locks_kept", "gap_without_invention", "gap_left_empty"):
        assert figures[name] == 1.0, name
    assert not [name for name in figures if "dispute" in name]
    assert "disputed" not in table(figures)


class GrantsAll(KnowsAll):
    """It was trained on wishes too: it follows hints, and writes the same in the style that is named."""

    checkpoint = SimpleNamespace(about=About("all", takes_hints=True, rewrites=True))

    def infill(self, images: Any, sections: Sequence[Section], *, context: Any = None, **options: Any) -> Any:
        """What is missing; of a report to be rewritten what the style says of all that is not locked."""
        if context is None:
            return super().infill(images, sections, **options)
        report = write_report(self.truth, context.style, np.random.default_rng(7))
        locked = [item.text.strip() for item in sections[0].items if isinstance(item, Lock)]
        known = frozenset[tuple[str, str]]().union(*(read(text).stated for text in locked))
        free = [text for text in dict(report.sections)["findings"] if not read(text).stated <= known]
        gaps = sum(isinstance(item, Gap) for item in sections[0].items)
        return Filled(
            spliced(sections, [*[" ".join(free), ""][:gaps], report.text("impression")]),
            run=None,  # type: ignore[arg-type]
        )


def test_wishes_are_tried_with_models_trained_for_them() -> None:
    """Full marks where all is granted; others are asked for Impression only, and their other keys are absent."""
    verdicts = [judge(GrantsAll(seed, disputes=False), seed, steps=1) for seed in range(1_000_000, 1_000_004)]
    figures = summary(verdicts, seed=1, steps=1)
    for name in ("impression_right", "hint_followed", "rewrite_exact", "rewrite_in_style", "rewrite_locks_kept"):
        assert figures[name] == 1.0, name
    assert "gaps that state what was hinted | 1.0000" in table(figures)
    plain = summary([judge(KnowsAll(1_000_000, disputes=False), 1_000_000, steps=1)], seed=1, steps=1)
    assert plain["impression_right"] == 1.0
    assert not [name for name in plain if name.startswith(("hint", "rewrite")) or name.endswith("_without")]


class NeedsTheImage(GrantsAll):
    """It says that it can do without the image, and concludes nothing right from a text alone."""

    says = "No acute findings. Large left effusion."

    def infill(self, images: Any, sections: Sequence[Section], **options: Any) -> Any:
        """What it says wherever there is no image."""
        if images:
            return super().infill(images, sections, **options)
        return Filled(spliced(sections, [self.says]), run=None)  # type: ignore[arg-type]


def test_impression_without_the_image_is_tried_with_models_trained_for_it() -> None:
    """What each concludes stands beside the same with the image; words that differ are neither exact nor a full F1."""
    seeds = range(1_000_000, 1_000_003)
    knows = summary([judge(GrantsAll(seed, disputes=False), seed, steps=1) for seed in seeds], seed=1, steps=1)
    needs = summary([judge(NeedsTheImage(seed, disputes=False), seed, steps=1) for seed in seeds], seed=1, steps=1)
    names = [f"impression_{what}" for what in ("right", "exact", "f1")]
    for figures in (knows, needs):
        assert [figures[name] for name in names] == [1.0] * 3
    assert [knows[f"{name}_without"] for name in names] == [1.0] * 3
    assert [needs[f"{name}_without"] for name in names[:2]] == [0.0] * 2
    assert 0 < needs["impression_f1_without"] < 1
    assert "locked Findings without the image | 0.0000 | 0.000 to" in table(needs)
    spans = {title: span for title, _, span in rows(needs)}
    assert spans["token-F1 of these Impressions, without the image"] is None


def test_other_words_for_the_same_are_right_and_not_exact() -> None:
    """An Impression of another phrasing states what the reference states."""
    seed = next(seed for seed in range(1_000_000, 1_000_050) if phantom(seed).findings["heart"] == "mildly enlarged")

    class Otherwise(NeedsTheImage):
        says = write_report(phantom(seed).findings, STYLES[(seed + 1) % 3], np.random.default_rng(0)).text("impression")

    verdict = judge(Otherwise(seed, disputes=False), seed, steps=1)
    assert (verdict.alone, verdict.alone_exact) == (True, False)
    assert verdict.alone_f1 is not None
    assert verdict.alone_f1 < 1


def test_any_checkpoint_may_be_asked_both_ways() -> None:
    """The table has a row with the image and one without it, each the mean of its phantoms."""
    pairs = [both_ways(NeedsTheImage(seed, disputes=False), seed) for seed in range(1_000_000, 1_000_004)]
    lines = text_alone.table(pairs).splitlines()
    assert lines[2] == "| with the image | 4 | 1.000 | 1.000 | 1.000 |"
    assert lines[3].startswith("| without it | 4 | 0.000 | 0.000 | 0.")


def test_a_rewritten_reports_locks_are_compared_byte_for_byte() -> None:
    """Unfinished text before a lock is no lock lost; a blank that is gone behind it is one."""

    class Unfinished(GrantsAll):
        end = " "

        def infill(self, images: Any, sections: Sequence[Section], *, context: Any = None, **options: Any) -> Any:
            if context is None:
                return super().infill(images, sections, **options)
            parts = [
                tuple(
                    Piece(item.text.rstrip() + self.end, "lock", at)
                    if isinstance(item, Lock)
                    else Piece("There is no ", "fill", at)
                    for at, item in enumerate(section.items)
                )
                for section in sections
            ]
            return Filled(tuple(map(FilledSection, ("findings", "impression"), parts)), run=None)  # type: ignore[arg-type]

    class Shortened(Unfinished):
        end = ""

    # Of phantoms with odd seeds one sentence is locked.
    kept, lost = (judge(kind(1_000_001, disputes=False), 1_000_001, steps=1) for kind in (Unfinished, Shortened))
    assert (kept.rewritten, kept.rewritten_locks_kept) == (False, True)
    assert lost.rewritten_locks_kept is False


def test_disputes_are_counted_where_the_engine_reports_them() -> None:
    """A model that disputes exactly what is false has a true rate of one and a false rate of zero."""
    verdicts = [judge(KnowsAll(seed, disputes=True), seed, steps=1) for seed in range(1_000_000, 1_000_003)]
    figures = summary(verdicts, seed=1, steps=1)
    assert (figures["dispute_true_rate"], figures["dispute_false_rate"]) == (1.0, 0.0)
    assert figures["dispute_true_n"] == figures["dispute_false_n"] == 3
    assert "locks that contradict the image, disputed | 1.0000" in table(figures)


def test_a_dispute_counts_only_on_the_sentence_under_test() -> None:
    """Disputing a true neighbour is no credit, and an engine that reports none is not measured."""
    trial = contradicting(SOME, "standard", np.random.default_rng(0))
    assert trial is not None
    filled = spliced(trial.sections, [""])
    other = Dispute("findings", trial.item + 1)
    assert is_disputed(FilledWithDisputes(filled, (other,)), trial) is False  # type: ignore[arg-type]
    assert is_disputed(FilledWithDisputes(filled, (other, Dispute("findings", trial.item))), trial) is True  # type: ignore[arg-type]
    assert is_disputed(Filled(filled, run=None), trial) in {None, False}  # type: ignore[arg-type]


def test_the_figures_keep_their_names_and_means_have_no_interval() -> None:
    """What other tools read of the JSON stays: the keys. Rows of the table have Wilson's interval for shares only."""
    verdict = dataclasses.replace(judge(KnowsAll(1_000_000, disputes=False), 1_000_000, steps=1), lock_kept=True)
    worse = dataclasses.replace(verdict, exact=False, slots=0.5, lock_kept=None)
    figures = summary([verdict, worse], seed=1, steps=1)
    assert set(figures) == {
        "n", "seed", "steps", "reports_exact", "reports_well_formed", "slots_mean", "reports_without_invention",
        "infill_f1_both", "infill_f1_left", "gap_sentence_rate", "gap_finding_right", "gap_without_invention",
        "locks_kept", "locks_contradicted", "impression_right", "gap_left_empty",
    }  # fmt: skip
    assert (figures["reports_exact"], figures["slots_mean"], figures["locks_contradicted"]) == (0.5, 0.75, 1)
    spans = {title: span for title, _, span in rows(figures)}
    assert spans["finding slots right"] is None
    assert spans["reports with every finding slot right"] is not None
    assert math.isnan(float(summary([worse], seed=1, steps=1)["locks_kept"]))


def reference_of(seed: int) -> PhantomReport:
    """The reference report of a phantom, in the style of its seed."""
    return write_report(phantom(seed).findings, STYLES[seed % 3], np.random.default_rng([seed, 1]))


@pytest.mark.parametrize("seed", range(1_000_000, 1_000_006))
def test_the_whole_report_stands_around_a_gap_where_nothing_is_missing(seed: int) -> None:
    """Two locks around the gap are all of Findings, the rest is locked too; the same seed asks the same."""
    report = reference_of(seed)
    asked = complete_request(report, seed)
    before, gap, after = asked[0].items
    assert isinstance(before, Lock)
    assert isinstance(after, Lock)
    assert gap == Gap()
    assert f"{before.text} {after.text}" == report.text("findings")
    assert before.text.endswith(".")
    assert asked[1].items == (Lock(report.text("impression")),)
    assert complete_request(report, seed) == asked


def test_what_is_written_where_nothing_is_missing_is_counted() -> None:
    """A model that always says something leaves no such gap empty; old results, without the field, have no row."""

    class Talks(KnowsAll):
        def infill(self, images: Any, sections: Sequence[Section], **options: Any) -> Any:
            if all(isinstance(item, Lock) for item in sections[1].items):
                return Filled(spliced(sections, ["The lungs are clear."]), run=None)  # type: ignore[arg-type]
            return super().infill(images, sections, **options)

    verdict = judge(Talks(1_000_000, disputes=False), 1_000_000, steps=1)
    figures = summary([verdict], seed=1, steps=1)
    assert figures["gap_left_empty"] == 0.0
    assert "gaps where nothing is missing, left empty | 0.0000 | 0.000 to" in table(figures)
    old = {name: value for name, value in dataclasses.asdict(verdict).items() if name != "left_empty"}
    assert "left empty" not in table(summary([Verdict(**old)], seed=1, steps=1))


def test_the_shipped_checkpoint_writes_nothing_where_nothing_is_missing() -> None:
    """To fill in nothing is one of the lengths that are looked for, and wins in most complete reports; locks stay."""
    engine, empty = Engine.load(default_checkpoint(), device="cpu"), 0
    seeds = range(1_000_300, 1_000_306)
    for seed in seeds:
        asked = complete_request(reference_of(seed), seed)
        answer = engine.infill([phantom(seed).image], asked, settings=GenerationSettings(seed=1))
        for section, there in zip(asked, answer.sections, strict=True):
            locked = [item.text for item in section.items if isinstance(item, Lock)]
            assert [piece.text for piece in there.pieces if piece.kind == "lock"] == locked
        if not fill_of(answer):
            empty += 1
            assert answer.run.gap_lengths == (0,)
            assert answer.notes == ()
    assert empty > len(seeds) / 2


def test_verdicts_have_what_other_scorers_need() -> None:
    """Reference and candidates are kept as text."""
    names = {field.name for field in dataclasses.fields(Verdict)}
    assert {"draft", "masked", "filled", "filled_left"} <= names
