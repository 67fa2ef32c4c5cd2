"""Beginning from the previous version's text: what the canvas holds, which steps are taken, what is measured."""

from typing import Any

import pytest
import torch

from inlay_model import BadRequest, Gap, GenerationSettings, Lock, Section
from inlay_model.call import Call
from inlay_model.canvas import Layout, encode_fragment
from inlay_model.evaluation.warm_start import TRIALS, Judged, judge, resubmission, table
from inlay_model.generate import Denoised, denoising
from inlay_model.passes import Passes, View
from inlay_model.phantom.findings import findings_of
from inlay_model.phantom.grammar import read_sentences, split_sentences
from inlay_model.schedule import Sampler
from inlay_model.step import Earlier, Fixed, half_way, noise

VOCABULARY = 1000
SAMPLER = Sampler(
    steps=16,
    t_min=0.4,
    t_max=0.8,
    entropy_bound=0.1,
    stability_threshold=1,
    confidence_threshold=0.005,
    early_stop=False,
)


def _generator(seed: int = 3) -> torch.Generator:
    generator = torch.Generator()
    generator.manual_seed(seed)
    return generator


def test_a_share_of_the_earlier_text_is_noise_and_locks_stand() -> None:
    """About as many known tokens are replaced as was asked; unknown places are all noise, locked ones as they are."""
    ids_BL = torch.full((1, 600), 7)
    locked_BL = torch.zeros(1, 600, dtype=torch.bool)
    locked_BL[:, :100] = True
    fixed = Fixed(torch.full((1, 600), 5), locked_BL)
    known_BL = torch.zeros(1, 600, dtype=torch.bool)
    known_BL[:, 100:500] = True
    noise_BL = noise(fixed, VOCABULARY, _generator())
    for share in (0.25, 0.75):
        canvas_BL = half_way(noise_BL, Earlier(ids_BL, known_BL, share), fixed, _generator(4))
        assert bool((canvas_BL[:, :100] == 5).all())
        assert abs(float((canvas_BL[:, 100:500] != 7).float().mean()) - share) < 0.08
        assert bool((canvas_BL[:, 500:] == noise_BL[:, 500:]).all())
    all_noise_BL = half_way(noise_BL, Earlier(ids_BL, known_BL, 1.0), fixed, _generator(4))
    assert bool((all_noise_BL == noise_BL).all())


def test_the_last_steps_of_the_schedule_are_taken() -> None:
    """A quarter of noise takes the last quarter of the steps, at their temperatures; at least one is always taken."""
    fixed = Fixed(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.bool))

    def temperatures(earlier: Earlier | None) -> list[float]:
        work = denoising(fixed, SAMPLER, VOCABULARY, _generator(), earlier=earlier)
        found: list[float] = []
        view = next(work)
        try:
            while True:
                assert isinstance(view, View)
                assert view.stride is not None
                found.append(view.stride.temperature)
                view = work.send(torch.zeros(4, VOCABULARY))
        except StopIteration:
            return found

    whole = temperatures(None)
    everywhere_BL = torch.ones(1, 4, dtype=torch.bool)
    assert len(whole) == 16
    assert temperatures(Earlier(fixed.ids_BL, everywhere_BL, 0.25)) == whole[-4:]
    assert temperatures(Earlier(fixed.ids_BL, everywhere_BL, 0.01)) == whole[-1:]
    assert temperatures(Earlier(fixed.ids_BL, everywhere_BL, 1.0)) == whole


def test_a_gap_begins_from_what_it_replaces_where_the_lengths_agree(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the previous text the canvas gets the very tokens, in their places, in the first attempt and in no other."""
    seen: list[tuple[Layout, dict[int, int]]] = []
    denoised = Call.denoised

    def watched(self: Call, layout: Layout, banned_V: Any = None, before: Any = None) -> Passes[Denoised]:
        seen.append((layout, dict(before or {})))
        return denoised(self, layout, banned_V, before)

    monkeypatch.setattr(Call, "denoised", watched)
    tokens = encode_fragment(engine.checkpoint.tokenizer, "No pneumothorax.")
    gap = Gap(len(tokens), len(tokens), replaces="No pneumothorax.")
    asked = (Section("findings", (Lock("The heart is normal. "), gap, Lock("No pleural effusion."))),)
    settings = GenerationSettings(steps=4, warm_start=0.5, second_look=False)
    answer = engine.infill(None, asked, settings=settings)
    assert answer.run.settings["warm_start"] == 0.5
    layout, before = seen[0]
    assert before == dict(zip(range(*layout.spans[0]), tokens, strict=True))
    assert all(not later for _, later in seen[1:])
    seen.clear()
    longer = (Section("findings", (Lock("The heart is normal. "), Gap(9, 9, replaces="No."), Lock("End."))),)
    engine.infill(None, longer, settings=settings)
    assert not any(found for _, found in seen)


def test_an_open_end_begins_from_the_previous_end_with_its_headers(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open sections at the end are one stretch of the previous version, closed by the end of turn and filled up."""
    seen: list[dict[int, int]] = []
    denoised = Call.denoised

    def watched(self: Call, layout: Layout, banned_V: Any = None, before: Any = None) -> Passes[Denoised]:
        seen.append(dict(before or {}))
        return denoised(self, layout, banned_V, before)

    monkeypatch.setattr(Call, "denoised", watched)
    before = (
        Section("findings", (Lock("Clear. "), Gap(replaces="No pneumothorax."))),
        Section("impression", (Gap(replaces="No acute findings."),)),
    )
    engine.infill(None, before, settings=GenerationSettings(steps=2, warm_start=0.5, second_look=False))
    places = sorted(seen[0])
    assert places == list(range(places[0], engine.checkpoint.canvas_length))
    text = engine.checkpoint.tokenizer.decode([seen[0][at] for at in places], skip_special_tokens=True)
    assert text.split() == ["No", "pneumothorax.", "Impression:", "No", "acute", "findings."]
    cold = GenerationSettings(steps=2, second_look=False)
    plain = (Section("findings", (Lock("Clear. "), Gap())), Section("impression", (Gap(),)))
    # Without the setting, what is replaced does not matter.
    assert engine.infill(None, before, settings=cold).sections == engine.infill(None, plain, settings=cold).sections


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    """Nothing of it, less, and more than all."""
    with pytest.raises(BadRequest, match="warm_start"):
        GenerationSettings(warm_start=share)


def test_the_trials_are_what_they_say() -> None:
    """In `corrected` what is locked is true and the previous text false; in `overlooked` the false sentence is open."""
    for seed in range(1_000_000, 1_000_020):
        truth = findings_of(seed)
        for trial in TRIALS:
            sections = resubmission(seed, trial)
            if sections is None:
                continue
            locked = [item.text for item in sections[0].items if isinstance(item, Lock)]
            open_texts = [item.replaces or "" for item in sections[0].items if isinstance(item, Gap)]
            said, left = (read_sentences(split_sentences(" ".join(texts))) for texts in (locked, open_texts))
            assert all(truth[name] == value for name, value in said.stated)
            false = [name for name, value in left.stated if truth[name] != value]
            assert bool(false) == (trial == "overlooked")


def test_the_table_has_a_row_per_trial_and_start() -> None:
    """Means of what was judged, by trial and share of noise."""
    found = [
        Judged("corrected", None, exact=True, slots=1.0, conclusion=True, steps=8, passes=10),
        Judged("corrected", None, exact=False, slots=0.5, conclusion=True, steps=10, passes=12),
        Judged("corrected", 0.25, exact=True, slots=1.0, conclusion=False, steps=4, passes=6),
    ]
    lines = table(found).splitlines()
    assert lines[2] == "| corrected | noise | 2 | 0.500 | 0.750 | 1.000 | 9.0 | 11.0 |"
    assert lines[3] == "| corrected | previous version, 25 % noise | 1 | 1.000 | 1.000 | 0.000 | 4.0 | 6.0 |"


def test_a_report_is_judged_as_a_whole(engine: Any) -> None:
    """Words that are none of the grammar's are no report: nothing is exact, and the cost is the run's."""
    asked = (Section("findings", (Lock("Words."),)), Section("impression", (Lock("Words."),)))
    answer = engine.infill(None, asked)
    verdict = judge(answer, findings_of(1_000_000), "corrected", None)
    assert (verdict.exact, verdict.conclusion) == (False, False)
    assert verdict.passes == answer.run.forward_passes
