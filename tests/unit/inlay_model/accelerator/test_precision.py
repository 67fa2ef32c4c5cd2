import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.inlay_model.accelerator.conftest import distance, logits, small_config, small_model

from inlay_model import BadRequest, Engine, GenerationSettings, ReplayMismatch, RunRecord
from inlay_model.accelerator.accelerated import attach, detach
from inlay_model.accelerator.loader import device_map, spread_over
from inlay_model.accelerator.memory import check_memory, need_of, parameters_of, warn_if_tight
from inlay_model.accelerator.packing import pack
from inlay_model.accelerator.precision import apply_precision, packed_bytes
from inlay_model.accelerator.random_weights import diffusion_config, sibling_config, without_storage
from inlay_model.errors import NotEnoughMemory

GIB = 2**30


@pytest.mark.parametrize(("bits", "most"), [(16, 0.0), (8, 0.03), (4, 0.12)])
def test_packed_weights_are_the_wide_ones_but_for_their_precision(bits: int, most: float) -> None:
    """Unpacked again, weights differ by the step of their format and no more; all of them or one expert alone."""
    torch.manual_seed(0)
    gate_up, down = torch.randn(3, 128, 64) * 0.02, torch.randn(3, 64, 64) * 0.02
    packed = pack(gate_up, down, bits)
    for found, wide in zip(packed.widened(torch.float32), (gate_up, down), strict=True):
        assert distance(found, wide) <= most
    assert packed.widened(torch.float32, 1)[1].equal(packed.widened(torch.float32)[1][1])
    assert (packed.count, packed.inner, packed.hidden) == (3, 64, 64)


def test_four_bits_need_whole_groups_and_take_zeros() -> None:
    """Rows that are no multiple of 64 are refused; a group of zeros stays zeros."""
    with pytest.raises(ValueError, match="multiple of 64"):
        pack(torch.zeros(1, 64, 96), torch.zeros(1, 96, 32), 4)
    assert not pack(torch.zeros(1, 128, 64), torch.zeros(1, 64, 64), 4).widened(torch.float32)[0].any()


@pytest.mark.parametrize(("precision", "share", "most"), [("fp8", 0.27, 0.2), ("4bit", 0.15, 0.4)])
def test_a_precision_covers_the_packed_experts_on_both_paths(precision: str, share: float, most: float) -> None:
    """The experts' memory shrinks as it should; library and accelerated path compute the same from the packed ones."""
    model = small_model()
    expected = logits(model)
    wide = sum(
        layer.experts.gate_up_proj.nbytes + layer.experts.down_proj.nbytes for layer in model.model.decoder.layers
    )
    apply_precision(model, precision, torch.device("cpu"))
    assert packed_bytes(model) <= share * wide
    assert not model.model.encoder.language_model.layers[0].experts.gate_up_proj.numel()
    found = logits(model)
    assert 0 < distance(found, expected) < most
    assert attach(model) is not None
    try:
        # A number that falls on the other side of a rounding to float8 differs by a sixteenth.
        assert distance(logits(model), found) < (2e-2 if precision == "fp8" else 1e-5)
    finally:
        detach(model)


@pytest.mark.parametrize("precision", ["fp8", "4bit"])
def test_a_packed_model_stands_on_one_device(precision: str) -> None:
    """What is left of the wide experts is on the device of all else: a model on two devices is not accelerated."""
    model = without_storage(small_config())
    apply_precision(model, precision, torch.device("meta"))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


@pytest.mark.parametrize("precision", ["bf16", "fp8", "4bit"])
def test_the_memory_of_the_weights_is_counted_to_the_byte(precision: str) -> None:
    """The need before loading is what the loaded model has: packed experts with their scales, and all else."""
    model = small_model()
    apply_precision(model, precision, torch.device("cpu"))
    plain = sum(weight.nbytes for weight in model.parameters())
    assert need_of(small_config(), precision, width=4).weights == packed_bytes(model) + plain


def test_a_run_record_says_the_precision_and_replays_in_no_other(checkpoint_folder: Path, image: np.ndarray) -> None:
    """Packed and wide experts write differently under one digest; a record that does not say is replayed in any."""
    packed, wide = (Engine.load(checkpoint_folder, device="cpu", precision=name) for name in ("fp8", None))
    settings = GenerationSettings(steps=2)
    drafted = packed.draft([image], settings=settings)
    record = RunRecord.from_json(json.loads(json.dumps(drafted.run.to_json())))
    assert record.precision == "fp8"
    assert packed.replay(record, [image]).sections == drafted.sections
    with pytest.raises(ReplayMismatch, match=r"the precision bf16 differs from the record\. Load .* in fp8 \(--prec"):
        wide.replay(record, [image])
    told = wide.draft([image], settings=settings).run.to_json()
    assert told.pop("precision") == "bf16"
    old = RunRecord.from_json(told)
    assert old.precision is None
    assert wide.replay(old, [image]).run.text_digest == old.text_digest


def test_an_engine_is_loaded_in_a_precision(checkpoint_folder: Path) -> None:
    """Named by its argument; unknown ones, and sizes that four bits cannot hold, are refused before loading."""
    assert packed_bytes(Engine.load(checkpoint_folder, device="cpu", precision="fp8").checkpoint.model) > 0
    for precision, why in (("int3", "no precision int3"), ("4bit", "multiples of 64")):
        with pytest.raises(BadRequest, match=why):
            Engine.load(checkpoint_folder, device="cpu", precision=precision)


def test_the_random_model_has_the_26b_models_size() -> None:
    """25.25 thousand million parameters of text and 0.573 of vision, counted twice: whole, and by the memory check."""
    model = without_storage(diffusion_config())
    vision = sum(weight.numel() for name, weight in model.named_parameters() if "vision" in name)
    total = sum(weight.numel() for weight in model.parameters())
    assert round((total - vision) / 1e9, 2) == 25.25
    assert round(vision / 1e9, 3) == 0.573
    packed, rest = parameters_of(diffusion_config())
    assert packed + rest == total
    assert round(packed / 1e9, 1) == 22.8


def test_the_sibling_has_the_same_text_block() -> None:
    """Its layers are the diffusion model's decoder layers, parameter for parameter."""
    ours = without_storage(diffusion_config(num_hidden_layers=6, layer_types=None)).model.decoder.layers
    theirs = without_storage(sibling_config(num_hidden_layers=6, layer_types=None)).model.layers
    assert sorted(weight.shape for weight in ours.parameters()) == sorted(
        weight.shape for weight in theirs.parameters()
    )


def test_the_memory_that_is_needed_is_known_before_loading() -> None:
    """The 26B model needs about 50 GiB in bf16, half of that in fp8, and fits a card of 24 GiB in four bits."""
    need = {name: need_of(diffusion_config(), name).total / GIB for name in ("bf16", "fp8", "4bit")}
    assert 48 < need["bf16"] < 53
    assert 27 < need["fp8"] < 31
    assert 18 < need["4bit"] < 21
    one = need_of(diffusion_config(), "bf16")
    assert one.together(8).total > one.total


def test_memory_for_one_canvas_but_not_for_many_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What free memory suffices for at once, and what to do about it; nothing where there is enough."""
    most = need_of(diffusion_config(), "4bit").together(16)
    warn_if_tight(most, most.total)
    assert not caplog.records
    warn_if_tight(most, 20 * GIB)
    assert "20.0 GiB are free of the 27.3 GiB" in caplog.text
    assert "INLAY_PRECISION" in caplog.text


def test_too_little_memory_is_a_named_error_with_its_remedy() -> None:
    """It says what is needed, what is free and which precision to choose; a CPU is not asked."""
    need = need_of(diffusion_config(), "bf16")
    with pytest.raises(
        NotEnoughMemory, match=r"needs 50\.1 GiB of GPU memory; 40\.0 GiB are free\. Choose the precision fp8 or 4bit"
    ):
        check_memory(need, torch.device("cuda"), "bf16", free=40 * GIB)
    check_memory(need, torch.device("cuda"), "bf16", free=80 * GIB)
    check_memory(need, torch.device("cpu"), "bf16")


def test_tied_layers_share_a_device() -> None:
    """Every parameter has a place; encoder and decoder layer of the same number have the same."""
    places = device_map([layer // 10 for layer in range(30)], [0, 1, 2])
    model = without_storage(small_config())
    short = device_map([0, 0, 1], [0, 1])
    for name, _ in model.named_parameters(remove_duplicate=False):
        assert any(name == prefix or name.startswith(prefix + ".") for prefix in short), name
    for layer in range(30):
        assert places[f"model.decoder.layers.{layer}"] == places[f"model.encoder.language_model.layers.{layer}"]
    assert sorted({places[f"model.decoder.layers.{layer}"] for layer in range(30)}, key=str) == [0, 1, 2]


def test_a_model_spread_by_accelerate_computes_the_same_and_is_not_accelerated() -> None:
    """On a machine without GPUs both devices are the CPU: the hooks are real, the result is the same."""
    model = small_model()
    expected = logits(model)
    spread = spread_over(model, [0, 0, 1], ["cpu", "cpu"])
    torch.testing.assert_close(logits(spread), expected)
    spread.hf_device_map = device_map([0, 0, 1], [0, 1])
    assert attach(spread) is None
