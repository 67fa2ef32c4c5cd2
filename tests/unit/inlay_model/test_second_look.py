"""The second look: each half of a text is hidden once, what would not be written again is mended or gives way."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay_model import Engine, Gap, GenerationSettings, Lock, NotANumber, PromptContext, RunRecord, Section
from inlay_model.answer import draft_request
from inlay_model.call import Call, Ears, make_call
from inlay_model.canvas import encode_fragment
from inlay_model.encoding import Study
from inlay_model.filling import banned_in_gaps
from inlay_model.gaps import Policy
from inlay_model.loading import default_checkpoint
from inlay_model.mending import Mended, mended
from inlay_model.passes import Passes, driven
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.render import phantom
from inlay_model.prefix import Decoder
from inlay_model.prompt import instruction
from inlay_model.second_look import DOUBTED, regrets, sentence_parts

VOCABULARY = 11
NAMES = ("findings", "impression")
ONE = (Section("findings", (Lock("The heart is normal. "), Gap(max_tokens=6), Lock("No pneumothorax. "))),)
OPEN = (Section("findings", (Lock("The heart is normal. "), Gap())), Section("impression", (Gap(),)))
SHORT = GenerationSettings(steps=3, seed=4)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_each_part_is_hidden_once_while_all_else_stands(sizes: list[int], seed: int) -> None:
    """Two canvases with halves of equal number; a part's regret is that of its worst token, zero for the likeliest."""
    ends = np.cumsum(sizes)
    parts = [range(end - size + 2, end + 2) for end, size in zip(ends, sizes, strict=True)]
    length = int(ends[-1]) + 5
    rng = np.random.default_rng(seed)
    canvas_L = torch.from_numpy(rng.integers(0, VOCABULARY, length))
    logits_LV = torch.from_numpy(rng.normal(size=(length, VOCABULARY)))
    seen: list[torch.Tensor] = []

    def read(canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: Any = None) -> torch.Tensor:
        assert conditioning_BLV is None
        seen.append(wanted_BL)
        assert torch.equal(canvas_BL[~wanted_BL], canvas_L.expand(2, -1)[~wanted_BL])
        return logits_LV.float().expand(2, -1, -1)[wanted_BL]

    found = driven(regrets(canvas_L, parts, VOCABULARY, torch.Generator().manual_seed(seed)), read)
    (hidden_BL,) = seen
    assert hidden_BL.sum(0).tolist() == [int(any(at in part for part in parts)) for at in range(length)]
    assert [len({int(hidden_BL[:, at].int().argmax()) for at in part}) for part in parts] == [1] * len(parts)
    halves = [int(hidden_BL[1, part[0]]) for part in parts]
    assert abs(sum(halves) * 2 - len(parts)) <= 1
    expected = [max(float(logits_LV[at].max() - logits_LV[at, canvas_L[at]]) for at in part) for part in parts]
    assert found == pytest.approx(expected, abs=1e-5)


def test_regrets_made_of_nan_are_refused_by_name() -> None:
    """A text is neither doubted nor let stand by a damaged model."""

    def read(canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: Any = None) -> torch.Tensor:
        return torch.full((int(wanted_BL.sum()), VOCABULARY), torch.nan)

    canvas_L = torch.zeros(6, dtype=torch.long)
    with pytest.raises(NotANumber):
        driven(regrets(canvas_L, [[1, 2], [4]], VOCABULARY, torch.Generator()), read)


def test_sentences_are_hidden_whole_and_a_single_one_by_its_tokens(engine: Any) -> None:
    """Where there are several sentences each is a part; one by itself would be judged by nothing of its own."""
    tokenizer = engine.checkpoint.tokenizer
    one = encode_fragment(tokenizer, "The lungs are clear.")
    two = encode_fragment(tokenizer, "No nodule of 3.5 cm is seen.")
    assert sentence_parts(tokenizer, [*one, *two], 7) == [
        range(7, 7 + len(one)),
        range(7 + len(one), 7 + len(one) + len(two)),
    ]
    assert sentence_parts(tokenizer, two, 3) == [range(at, at + 1) for at in range(3, 3 + len(two))]


def doubting(monkeypatch: pytest.MonkeyPatch, said: Sequence[Sequence[float]]) -> list[Sequence[int]]:
    """Second looks that find these regrets in turn, then none; the canvases that were looked at."""
    seen: list[Sequence[int]] = []

    def looked_at(call: Call, ids: Sequence[int], parts: Sequence[Sequence[int]]) -> Passes[list[float]]:
        yield from ()
        call.looks.taken += 1
        seen.append(ids)
        found = said[len(seen) - 1] if len(seen) <= len(said) else []
        return [*found, *[0.0] * len(parts)][: len(parts)]

    monkeypatch.setattr(Call, "looked_at", looked_at)
    return seen


def mend(engine: Engine, texts: Sequence[str], study: Study, begin: str = "", style: str | None = None) -> Mended:
    """A draft of these texts after its second look."""
    checkpoint = engine.checkpoint
    asked = draft_request(NAMES, begin)
    call = make_call(checkpoint, "draft", asked, replace(SHORT, steps=8), PromptContext(style), Ears())
    work = mended(call, Policy(), banned_in_gaps(checkpoint), texts)

    def read(canvas_BL: torch.Tensor, wanted_BL: torch.Tensor, conditioning_BLV: Any = None) -> torch.Tensor:
        return Decoder(checkpoint.model, study.prefix, batch=len(canvas_BL))(canvas_BL, wanted_BL, conditioning_BLV)

    with torch.inference_mode():
        return driven(work, read)


def shown(engine: Engine, image: np.ndarray, style: str | None = None) -> Study:
    """An encoded study."""
    with torch.inference_mode():
        return engine._encoder.study([image], instruction(NAMES, style))


def test_only_the_doubtful_sentence_of_a_draft_is_written_again(
    engine: Any, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences that stand come back as they were, and so does what the draft began with; nothing doubted, no pass."""
    study = shown(engine, image)
    texts = ("The lungs are clear. No effusion.", "No acute findings.")
    doubting(monkeypatch, [[0.0, 0.0, 0.0]])
    assert mend(engine, texts, study) == Mended(texts)
    monkeypatch.undo()
    doubting(monkeypatch, [[0.0, DOUBTED + 1, 0.0]])
    # An untrained model ends no sentence, so nothing else is left to it here.
    monkeypatch.setattr("inlay_model.filling.ends_sentence", lambda _: True)
    found = mend(engine, texts, study, begin="The heart is normal.")
    assert found.gaps == 1
    assert found.texts[0].startswith("The lungs are clear.")
    assert "The heart" not in found.texts[0]
    assert found.texts[0] != texts[0]
    assert found.texts[1] == texts[1]


def test_a_text_that_is_doubted_gives_way_to_another_one(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first gap text doubted: a second is written, and the record says so. All doubted: the best of them stays."""
    monkeypatch.setattr("inlay_model.filling.ends_sentence", lambda _: True)
    seen = doubting(monkeypatch, [[DOUBTED + 1]])
    answer = engine.infill(None, ONE, settings=SHORT)
    assert (len(seen), answer.run.second_looks, answer.run.doubted) == (2, 2, 1)
    doubting(monkeypatch, [[DOUBTED + 1]] * 9)
    stubborn = engine.infill(None, ONE, settings=SHORT)
    assert (stubborn.run.second_looks, stubborn.run.doubted) == (3, 3)
    assert stubborn.notes == answer.notes == ()
    plain = engine.infill(None, ONE, settings=replace(SHORT, second_look=False))
    assert (plain.run.second_looks, plain.run.doubted) == (0, 0)


def test_replay_takes_the_same_looks(engine: Any, image: np.ndarray) -> None:
    """With and without a second look, one gap or an open end: the same text; old records knew none."""
    for sections in (ONE, OPEN):
        for second_look in (True, False):
            answer = engine.infill([image], sections, settings=replace(SHORT, second_look=second_look))
            again = engine.replay(RunRecord.from_json(answer.run.to_json()), [image], sections)
            assert again.sections == answer.sections
            assert again.run.second_looks == answer.run.second_looks
    old = answer.run.to_json()
    old["settings"] = {key: value for key, value in old["settings"].items() if key != "second_look"}
    assert engine.replay(RunRecord.from_json(old), [image], OPEN).run.second_looks == 0


def test_the_shipped_checkpoint_mends_garbled_sentences() -> None:
    """A draft with a garbled Impression and one that breaks off reads rightly after the second look."""
    engine = Engine.load(default_checkpoint(), device="cpu")
    truth = Findings.normal(heart="mildly enlarged", consolidation="right middle lobe", rib_fracture="right")
    study = shown(engine, phantom(1_000_168, truth).image, "concise")
    body = "No devices. Heart mildly enlarged. Consolidation right middle lobe. Pleura clear. Right rib fracture."
    end = "Mild cardiomegaly. Consolidation right middle lobe. Right rib fracture."
    garbled = mend(engine, (body, end.replace("Consolidation right", "Mild cardiomegaly")), study, style="concise")
    assert garbled.texts == (body, end)
    cut_off = mend(engine, (body, end.removesuffix(".")), study, style="concise")
    assert cut_off.texts == (body, end)
    # Where nothing is missing nothing is written, unless a least length asks for it.
    lock, normal = Lock("No devices. Heart normal. "), phantom(1_000_900, Findings.normal()).image
    for gap, shortest in ((Gap(), 0), (Gap(3, 4), 3)):
        part = Section("findings", (lock, gap, Lock("Lungs clear. Pleura clear. Bones intact. ")))
        answer = engine.infill([normal], (part, Section("impression", (Lock("Normal."),))))
        assert answer.run.gap_lengths[0] >= shortest
        assert (answer.sections[0].pieces[1].text == "") is (shortest == 0)
