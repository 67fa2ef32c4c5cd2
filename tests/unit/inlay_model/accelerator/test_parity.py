import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.inlay_model.accelerator.conftest import distance, logits, small_model

from inlay_model.accelerator import accelerated
from inlay_model.accelerator.accelerated import attach, best_kernels, detach
from inlay_model.accelerator.attached import attached
from inlay_model.accelerator.reference import Reference
from inlay_model.accelerator.runtime import Runtime
from inlay_model.accelerator.slate import Slate
from inlay_model.generate import Denoised, run
from inlay_model.glance import Glance
from inlay_model.prefix import Decoder, Prefix, encode
from inlay_model.schedule import Sampler
from inlay_model.step import Fixed, Step
from inlay_model.vision import encode_images, vision_of

SAMPLER = Sampler(6, 0.4, 0.8, 2.5, 1, 0.005, early_stop=False, begin_again=(0.5,))
PROMPT = tuple(range(10, 50))


@pytest.fixture
def _joined(model: Any) -> Iterator[None]:
    """The model with its accelerated path, taken away again."""
    assert attach(model) is not None
    yield
    detach(model)


def denoised(
    model: Any, prefix: Prefix, seed: int = 4, rows: int = 2, banned_V: torch.Tensor | None = None
) -> Denoised:
    """Some canvases with random locks, denoised on this prefix."""
    torch.manual_seed(2)
    fixed = Fixed(torch.randint(0, 600, (rows, 32)), torch.rand(rows, 32) < 0.5)
    with torch.inference_mode():
        return run(
            Decoder(model, prefix, rows), fixed, SAMPLER, 600, torch.Generator().manual_seed(seed), banned_V=banned_V
        )


def encoded(model: Any) -> Prefix:
    """A prompt encoded in two pieces, the second continuing the first."""
    with torch.inference_mode():
        first = encode(model, PROMPT, (0,) * len(PROMPT), None)
        return encode(model, PROMPT[:11], (0,) * 11, None, after=first)


def test_the_accelerated_passes_are_the_librarys(model: Any) -> None:
    """Keys and values, logits with self-conditioning, and a whole run with locks, bans and a new beginning."""
    banned_V = torch.rand(600, generator=torch.Generator().manual_seed(1)) < 0.2
    canvas_BL, wanted_BL = torch.randint(0, 600, (2, 32)), torch.rand(2, 32) < 0.4
    told_BLV = torch.randn(2, 32, 600) * 3
    plain = encoded(model)
    with torch.inference_mode():
        logits_NV = Decoder(model, plain, 2)(canvas_BL, wanted_BL, told_BLV)
    expected = denoised(model, plain, banned_V=banned_V)
    assert attach(model) is not None
    try:
        fast = encoded(model)
        assert fast.length == plain.length == 51
        for ours, theirs in zip(fast.cache.layers, plain.cache.layers, strict=True):
            torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(ours.values, theirs.values, atol=1e-5, rtol=1e-4)
        with torch.inference_mode():
            found_NV = Decoder(model, fast, 2)(canvas_BL, wanted_BL, told_BLV)
        torch.testing.assert_close(found_NV, logits_NV, atol=2e-5, rtol=1e-4)
        found = denoised(model, fast, banned_V=banned_V)
        counts = attached(model).counts
    finally:
        detach(model)
    assert found.ids_BL.equal(expected.ids_BL)
    assert found.accepted_BL.equal(expected.accepted_BL)
    assert found.doubts == pytest.approx(expected.doubts, abs=1e-4, rel=1e-4)
    assert (counts["encode.fast"], counts["read.fast"], counts["step.fast"]) == (2, 1, 6)


def test_joining_the_projections_leaves_the_model_as_it_was() -> None:
    """Attaching and detaching changes nothing of what the library's own modules compute, to the bit."""
    model = small_model(seed=3)
    canvas_BL = torch.randint(0, 600, (1, 32))
    with torch.inference_mode():
        prefix = encode(model, PROMPT, (0,) * len(PROMPT), None)
        before = Decoder(model, prefix)(canvas_BL, canvas_BL >= 0)
        for _ in range(2):
            attach(model)
            detach(model)
        assert Decoder(model, prefix)(canvas_BL, canvas_BL >= 0).equal(before)
    layer = model.model.decoder.layers[0].self_attn
    assert layer.q_proj.weight is model.model.encoder.language_model.layers[0].self_attn.q_proj.weight


@pytest.mark.usefixtures("_joined")
def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: Any) -> None:
    """On one device and in one bucket."""
    prefix = encoded(model)
    once, again = denoised(model, prefix), denoised(model, prefix)
    assert once.ids_BL.equal(again.ids_BL)
    assert not denoised(model, prefix, seed=5).ids_BL.equal(once.ids_BL)


@pytest.mark.usefixtures("_joined")
def test_rows_with_prefixes_of_their_own_are_what_they_are_alone(model: Any) -> None:
    """A batch of two canvases on two prompts of different length gives what each gives alone (to 1e-4)."""
    with torch.inference_mode():
        prefixes = tuple(encode(model, PROMPT[:count], (0,) * count, None) for count in (12, 40))
        canvas_BL, all_BL = torch.randint(0, 600, (2, 32)), torch.ones(2, 32, dtype=torch.bool)
        path = attached(model)
        both_NV = path.read(prefixes, canvas_BL, all_BL, None)
        alone = [path.read(prefixes[at : at + 1], canvas_BL[at : at + 1], all_BL[:1], None) for at in (0, 1)]
    torch.testing.assert_close(both_NV, torch.cat(alone), atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("_joined")
def test_an_image_sees_itself_in_both_directions(model: Any) -> None:
    """A prompt with a run of image tokens is encoded as the library encodes it, masks included."""
    ids, types = (*PROMPT[:6], *(7,) * 9, *PROMPT[6:12]), (*(0,) * 6, *(1,) * 9, *(0,) * 6)
    with torch.inference_mode():
        fast = encode(model, ids, types, None)
        detach(model)
        plain = encode(model, ids, types, None)
    for ours, theirs in zip(fast.cache.layers, plain.cache.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("_joined")
def test_prompts_beyond_the_window_are_left_to_the_library(model: Any) -> None:
    """A prompt that reaches the sliding window is encoded all the same, and counted as unfit."""
    long = (11,) * 1030
    with torch.inference_mode():
        assert encode(model, long, (0,) * len(long), None).length == 1030
    assert attached(model).counts["unfit"] == 1


@pytest.mark.usefixtures("_joined")
def test_each_step_is_told_while_the_next_is_taken(model: Any) -> None:
    """Every step once and in order, the last at the end: telling takes nothing of the device's time."""
    prefix = encoded(model)
    path = attached(model)
    told: list[tuple[int, int, list[list[int]]]] = []

    def tell(number: int, step: Step) -> None:
        told.append((number, path.counts["step.fast"], step.glance.read()[0].tolist()))

    fixed = Fixed(torch.zeros(2, 32, dtype=torch.int64), torch.zeros(2, 32, dtype=torch.bool))
    with torch.inference_mode():
        done = run(Decoder(model, prefix, 2), fixed, SAMPLER, 600, torch.Generator().manual_seed(4), on_step=tell)
    assert [number for number, _, _ in told] == [1, 2, 3, 4, 5, 6]
    assert [taken for _, taken, _ in told] == [2, 3, 4, 5, 6, 6]
    assert told[-1][2] == done.ids_BL.tolist()


@pytest.mark.usefixtures("_joined")
def test_what_a_step_needs_is_in_place_before_the_one_before_it_is_looked_at(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the device stands still no longer than a look takes; not where a step begins anew, which is not foreseen.

    Of six steps the fourth begins anew.
    """
    done: list[str] = []

    def note(kind: type, name: str) -> None:
        work = getattr(kind, name)

        def noted(*given: Any) -> Any:
            done.append(name)
            return work(*given)

        monkeypatch.setattr(kind, name, noted)

    for kind, name in ((Slate, "order"), (Runtime, "step"), (Glance, "read")):
        note(kind, name)
    denoised(model, encoded(model))
    # A step that was not foreseen is put in place within it; none is foreseen by the last, and by the third.
    unforeseen, last = ["step", "order", "order", "read"], ["step", "read"]
    assert done == [*unforeseen, "step", "order", "read", *last, *unforeseen, "step", "order", "read", *last]


@pytest.mark.usefixtures("_joined")
def test_what_is_drawn_ahead_is_given_back(model: Any) -> None:
    """After a run that stops early a generator stands where the plain passes leave it: what comes next is the same."""
    prefix = encoded(model)
    sampler = replace(SAMPLER, early_stop=True, stability_threshold=0, confidence_threshold=100.0, begin_again=())
    fixed = Fixed(torch.zeros(1, 32, dtype=torch.int64), torch.zeros(1, 32, dtype=torch.bool))
    states = []
    for fast in (True, False):
        if not fast:
            detach(model)
        generator = torch.Generator().manual_seed(4)
        with torch.inference_mode():
            assert run(Decoder(model, prefix), fixed, sampler, 600, generator).steps < sampler.steps
        states.append(generator.get_state())
    assert states[0].equal(states[1])


class _Broken(Reference):
    def experts(self, *_: Any) -> torch.Tensor:
        """Fail as a GPU does."""
        raise RuntimeError("an illegal memory access was encountered")


def test_a_failing_kernel_is_replaced_by_the_plain_passes(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on with the same text; a warning and a count say what failed, and it is not tried again."""
    prefix = encoded(model)
    expected = denoised(model, prefix)
    path = attach(model, _Broken())
    assert path is not None
    try:
        assert denoised(model, prefix).ids_BL.equal(expected.ids_BL)
    finally:
        detach(model)
    assert path.fast is None
    assert path.counts["failed.step.RuntimeError"] == 1
    assert path.counts["step.plain"] == 6
    assert "The accelerated step failed (RuntimeError)" in caplog.text
    (record,) = (one for one in caplog.records if one.exc_info)
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton finds a GPU here")
@pytest.mark.usefixtures("_joined")
def test_what_cannot_be_laid_out_ahead_is_dealt_with_where_the_step_is_taken(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain passes go on with the same text, and the failure is counted once."""
    prefix, path, order = encoded(model), attached(model), Slate.order
    expected = denoised(model, prefix)
    path.counts.clear()
    (fast,) = path.fast._slates.values()
    laid_out: list[Slate] = []

    def broken(slate: Slate, ask: Any) -> None:
        laid_out.append(slate)
        if laid_out[1:] and slate is fast:
            raise RuntimeError("an illegal memory access was encountered")
        order(slate, ask)

    monkeypatch.setattr(Slate, "order", broken)
    assert denoised(model, prefix).ids_BL.equal(expected.ids_BL)
    # Ahead of the second step, in it, and then by the plain passes.
    assert [slate is fast for slate in laid_out[:4]] == [True, True, True, False]
    assert path.counts == {"step.fast": 1, "failed.step.RuntimeError": 1, "step.plain": SAMPLER.steps - 1}


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton can launch kernels where there is a GPU")
def test_where_triton_cannot_launch_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """Once, while loading: a compiler or a driver that is missing would else be a failed pass without a reason."""
    accelerated._unready.cache_clear()
    kernels = [best_kernels(torch.device("cuda")) for _ in range(2)]
    assert [type(one) for one in kernels] == [Reference, Reference]
    (said,) = caplog.messages
    assert "Triton cannot launch kernels" in said
    assert "not installed" in said or "0 active drivers" in said


def test_models_that_are_not_plain_are_left_alone(model: Any) -> None:
    """A model with an adapter that is not merged gets no accelerated path and goes on as before."""
    own = small_model(seed=5)
    attention = own.model.decoder.layers[0].self_attn
    attention.q_proj = torch.nn.Sequential(attention.q_proj)
    assert attach(own) is None
    assert attached(own) is None


def _by_graphs(model: Any) -> torch.Tensor:
    """The logits of a model on a GPU by its accelerated path."""
    path = attach(model)
    assert path is not None
    found_NV = logits(model)
    assert not [name for name in path.counts if name.startswith("failed")]
    assert path.counts["read.fast"] == 1
    assert path.fast is not None
    assert path.fast.capture.captured > 0
    detach(model)
    return found_NV


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs and bfloat16 kernels need a CUDA device")
def test_graphs_and_kernels_on_a_gpu_agree_with_eager() -> None:
    """In float32 they are the library's logits. In bfloat16 rounding moves a router's choices, in the library too.

    So there neither is the measure of the other: both are as far from float32, which zeros are not.
    """
    exact, coarse = small_model().to("cuda"), small_model().to("cuda", torch.bfloat16)
    exact_NV = logits(exact)
    assert distance(_by_graphs(exact), exact_NV) < 1e-4
    theirs = distance(logits(coarse), exact_NV)
    assert theirs < 0.5
    assert distance(_by_graphs(coarse), exact_NV) < 1.5 * theirs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs need a CUDA device")
def test_another_thread_may_wait_for_the_gpu_while_graphs_are_captured() -> None:
    """One that tells of steps does: it waits for what was copied."""
    model = small_model().to("cuda", torch.bfloat16)
    arrived, began, ended = torch.cuda.Event(), threading.Event(), threading.Event()
    arrived.record()
    waited: list[BaseException] = []

    def wait() -> None:
        try:
            while not ended.is_set():
                arrived.synchronize()
                began.set()
        except RuntimeError as problem:
            waited.append(problem)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        assert began.wait(10)
        assert _by_graphs(model).isfinite().all()
    finally:
        ended.set()
        thread.join()
    assert waited == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs need a CUDA device")
def test_the_same_seed_gives_the_same_text_twice_on_a_gpu() -> None:
    """In bfloat16, by graphs: no kernel's sums have an order of their own."""
    model = small_model().to("cuda", torch.bfloat16)
    path = attach(model)
    assert path is not None
    with torch.inference_mode():
        prefix = encode(model, PROMPT, (0,) * len(PROMPT), None)
        fixed = Fixed(torch.randint(0, 600, (1, 32), device="cuda"), torch.rand(1, 32, device="cuda") < 0.5)
        texts = [
            run(Decoder(model, prefix), fixed, SAMPLER, 600, torch.Generator("cuda").manual_seed(1)).ids_BL.tolist()
            for _ in range(2)
        ]
    detach(model)
    assert texts[0] == texts[1]
    assert (path.counts["step.fast"], path.counts["step.plain"]) == (2 * SAMPLER.steps, 0)


@pytest.mark.usefixtures("_joined")
def test_images_are_seen_as_by_the_librarys_tower(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image, two of different shapes, and then one again; and the library's tower where the own look fails."""
    path, torch_generator = attached(model), torch.Generator().manual_seed(6)
    depth = 3 * model.config.vision_config.patch_size**2
    grid = torch.cartesian_prod(torch.arange(6), torch.arange(6)).flip(-1)
    whole, half = grid, torch.where((torch.arange(36) < 18).unsqueeze(-1), grid, -1)
    values_BPD = torch.rand(2, 36, depth, generator=torch_generator)
    looks = [(values_BPD[:1], whole.unsqueeze(0)), (values_BPD, torch.stack([whole, half]))]
    with torch.inference_mode():
        for values, positions in (*looks, looks[0]):
            seen_NH = encode_images(model, values, positions)
            expected_NH = vision_of(model).get_image_features(values, positions, return_dict=True).pooler_output
            torch.testing.assert_close(seen_NH, expected_NH.reshape(seen_NH.shape), atol=2e-5, rtol=1e-4)
        assert path.counts["look.fast"] == 3
        monkeypatch.setattr(type(path.fast.look), "_layers", _fails)
        path.fast.look._passes.clear()
        assert torch.equal(encode_images(model, *looks[0]), expected_NH.reshape(seen_NH.shape))
        assert (path.counts["look.fast"], path.counts["failed.look.RuntimeError"]) == (3, 1)
        assert path.fast is not None


def _fails(*_: Any) -> torch.Tensor:
    raise RuntimeError
