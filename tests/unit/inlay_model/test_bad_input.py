"""What cannot be done is a named error with a remedy, and leaves an engine that answers the next request."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from inlay_model import (
    BadImage,
    BadRequest,
    CanvasOverflow,
    CheckpointProblem,
    DraftRequest,
    Engine,
    Filled,
    Gap,
    GenerationSettings,
    InfillRequest,
    Lock,
    NotANumber,
    PromptTooLong,
    Section,
)
from inlay_model.accelerator.memory import is_out_of_memory
from inlay_model.errors import NotEnoughMemory
from inlay_model.loading import no_gpu
from inlay_testkit.tiny_diffusion import save_tiny

QUICK = GenerationSettings(steps=2, early_stop=False)


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _without(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def _config(**said: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **said}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return damage


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def _a_projection(weights: dict[str, torch.Tensor]) -> str:
    return next(name for name in weights if name.endswith("layers.0.self_attn.q_proj.weight"))


def _lacking(weights: dict[str, torch.Tensor]) -> None:
    del weights[_a_projection(weights)]


def _narrower(weights: dict[str, torch.Tensor]) -> None:
    weights[_a_projection(weights)] = weights[_a_projection(weights)][:-1].contiguous()


def _cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n")


def _part_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without("config.json"), r"no config\.json.*again"),
        (_without("tokenizer.json"), r"no tokenizer\.json.*again"),
        (_without("preprocessor_config.json"), r"no preprocessor_config\.json.*again"),
        (_without("chat_template.jinja"), r"no chat template.*again"),
        (_without("model.safetensors"), r"no \*\.safetensors.*again"),
        (_part_missing, r"no model-00002-of-00002\.safetensors.*again"),
        (_pointer, "git lfs pull"),
        (_cut_short, "cut short or damaged.*again"),
        (_weights(_lacking), r"lack .* such as model\.decoder\.layers\.0\.self_attn\.q_proj.*again"),
        (_weights(_narrower), "do not fit each other.*again"),
        (_config(model_type="llama"), "holds a llama model; a diffusion_gemma checkpoint is needed: name"),
        (_config(model_type=None), "says no model_type.*name the folder"),
        (_config(text_config={"hidden_size": "wide"}), r"configuration of .* cannot be read.*Take config\.json"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_part_and_the_remedy(
    tmp_path: Path, checkpoint_folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    """Missing files and tensors, damaged and foreign ones: none of them loads, and none as random weights."""
    folder = Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))
    damage(folder)
    with pytest.raises(CheckpointProblem, match=f"(?s){said}"):
        Engine.load(folder, device="cpu")


def test_a_device_or_a_dtype_that_there_is_not_is_refused(checkpoint_folder: Path) -> None:
    """A mistyped device, a GPU beyond those there are, and numbers that weights cannot be."""
    with pytest.raises(BadRequest, match="no device gpu: name cpu"):
        Engine.load(checkpoint_folder, device="gpu")
    with pytest.raises(BadRequest, match="no device cuda:99: PyTorch finds"):
        Engine.load(checkpoint_folder, device="cuda:99")
    with pytest.raises(BadRequest, match="float32, bfloat16, float16"):
        Engine.load(checkpoint_folder, device="cpu", dtype="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_a_gpu_that_is_asked_for_is_not_replaced_by_the_cpu(checkpoint_folder: Path, device: str) -> None:
    """By name or as all there are: a worker for a GPU that finds none says so and does not start."""
    with pytest.raises(BadRequest, match=f"no device {device}: PyTorch finds no GPU here"):
        Engine.load(checkpoint_folder, device=device)


def test_where_there_is_no_gpu_the_remedy_is_named() -> None:
    """A build for the CPU has to be replaced; a build for CUDA needs a driver that serves it, and the runtime."""
    assert "install one for CUDA" in no_gpu("cuda", None)
    assert "serve CUDA 13.0" in no_gpu("cuda", "13.0")
    assert "worker.runtimeClassName" in no_gpu("cuda", "13.0")


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((64, 64), value, np.uint16))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((64, 64, 3), np.uint8), r"rows x columns of 8 bits; this one is \(64, 64, 3\) of uint8.*Window"),
        (np.zeros((64, 64), np.uint16), "uint16.*Window"),
        (np.zeros((64, 64), np.float32), "float32.*Window"),
        (np.zeros((0, 64), np.uint8), "at least 16 rows and columns; this one has 0 x"),
        (np.zeros((64, 15), np.uint8), "this one has 64 x 15"),
        (np.eye(64, 4000, dtype=np.uint8), "64 x 4000 is too long and narrow.*Crop"),
        (np.zeros((400, 400), np.uint8), "needs contrast.*Send the image itself"),
        (Image.new("RGB", (64, 64), (9, 20, 200)), "needs contrast"),
        (_deep(3000), "more than 8 bits.*Window"),
        (Image.new("F", (64, 64)), "more than 8 bits.*Window"),
        (None, "not NoneType.*Window"),
        ("chest.png", "not str.*Window"),
        ([[0, 255], [255, 0]], "not list.*Window"),
    ],
)
def test_what_is_no_radiograph_is_refused_before_any_pass(engine: Any, bad: Any, said: str) -> None:
    """Arrays of other shapes and types, deep pictures, slivers and things that are no image say what is needed."""
    passes: list[int] = []
    with _hooked(engine, lambda *_: passes.append(1)), pytest.raises(BadImage, match=f"(?s){said}"):
        engine.draft([bad], settings=QUICK)
    assert passes == []


def test_a_picture_cut_short_on_disk_is_refused(engine: Any, tmp_path: Path) -> None:
    """Pillow reads pixels late: a file that ends early is found when the picture is used."""
    file = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:20000])
    with Image.open(file) as picture, pytest.raises(BadImage, match="cannot be decoded"):
        engine.draft([picture], settings=QUICK)


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_beyond_the_models_positions_names_both_numbers(engine: Any, image: np.ndarray) -> None:
    """Sixteen images make more tokens than the model has positions: the error counts them, and nothing is read."""
    with pytest.raises(PromptTooLong, match=r"The prompt has 1\d\d\d tokens, .* positions for 960\. Send fewer images"):
        engine.draft([image] * 16, settings=QUICK)
    assert isinstance(engine.draft([image], settings=QUICK), Filled)


def test_more_locked_tokens_than_canvas_are_counted_before_any_pass(engine: Any) -> None:
    """One section that cannot fit on a canvas is refused with both counts before the model is asked anything."""
    passes: list[int] = []
    with _hooked(engine, lambda *_: passes.append(1)), pytest.raises(CanvasOverflow, match="Lock fewer") as refused:
        engine.infill(None, (Section("findings", (Lock("ॐ" * 40), Gap())),), settings=QUICK)
    assert refused.value.needed > refused.value.available == 64
    assert passes == []


# ── a model that fails ───────────────────────────────────────────────────────────────────────────────────────────────


class _hooked:  # noqa: N801 - read as a context manager
    """Calls `act` before every layer of the decoder."""

    def __init__(self, engine: Engine, act: Callable[..., Any]) -> None:
        self._layer = engine.checkpoint.model.model.decoder.layers[0]
        self._act = act

    def __enter__(self) -> None:
        self._handle = self._layer.register_forward_pre_hook(self._act)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _fail(error: BaseException) -> Any:
    raise error


def test_out_of_memory_is_named_and_what_was_held_is_let_go(engine: Any, image: np.ndarray) -> None:
    """The tensors of the failed pass and the kept studies are freed; the next request encodes anew and is answered."""
    fine = engine.draft([image], settings=QUICK)
    held: list[weakref.ref[torch.Tensor]] = []

    def full(*_: Any) -> None:
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with _hooked(engine, full):
        (answer,) = engine.batch([DraftRequest([image], settings=QUICK)])
    assert isinstance(answer, NotEnoughMemory)
    assert "device with more free memory" in str(answer)
    gc.collect()
    assert held
    assert all(one() is None for one in held)
    assert engine.prefixes.nbytes == 0
    assert engine.draft([image], settings=QUICK).text == fine.text


def test_one_request_too_large_for_memory_leaves_its_neighbours(engine: Any, image: np.ndarray) -> None:
    """A pass that fits for one request but not for two is done one by one; both are answered as they are alone."""
    requests = [
        DraftRequest([image], settings=QUICK),
        InfillRequest(None, (Section("findings", (Gap(4, 4), Lock("End."))),), settings=QUICK),
    ]
    alone = [engine.batch([request])[0].text for request in requests]
    sizes: list[int] = []

    def small(_: Any, given: tuple[Any, ...]) -> None:
        sizes.append(given[0].shape[0])
        if given[0].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with _hooked(engine, small):
        assert [answer.text for answer in engine.batch(requests)] == alone
    assert max(sizes) > 1


def test_main_memory_that_is_full_counts_as_well() -> None:
    """PyTorch has no class of its own for it: the error of a real allocation that cannot be is known."""
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(full.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def _make_nan(engine: Engine) -> None:
    """Spoil every study that the engine keeps."""
    with torch.inference_mode():
        for prefix in engine.prefixes._kept.values():
            prefix.cache.layers[0].values.fill_(float("nan"))


def test_a_study_that_became_nan_is_encoded_anew(engine: Any, image: np.ndarray) -> None:
    """NaN in a kept study would be found by every attempt: it is let go, and the next attempt is answered."""
    fine = engine.draft([image], settings=QUICK)
    _make_nan(engine)
    with pytest.raises(NotANumber, match=r"NaN.*fetch the checkpoint again, or choose a higher precision"):
        engine.draft([image], settings=QUICK)
    assert engine.draft([image], settings=QUICK).text == fine.text


@pytest.mark.parametrize("foretells_length", [False, True])
def test_nan_in_a_search_for_lengths_is_named_and_the_study_encoded_anew(
    tmp_path: Path, image: np.ndarray, *, foretells_length: bool
) -> None:
    """An infill looks for lengths before it denoises: NaN is found there, whether or not the checkpoint foretells."""
    engine = Engine.load(save_tiny(tmp_path, foretells_length=foretells_length), device="cpu")
    asked = (Section("findings", (Lock("The heart is normal. "), Gap(), Lock("No effusion."))),)
    fine = engine.infill([image], asked, settings=QUICK)
    _make_nan(engine)
    with pytest.raises(NotANumber, match=r"NaN.*fetch the checkpoint again, or choose a higher precision"):
        engine.infill([image], asked, settings=QUICK)
    assert engine.infill([image], asked, settings=QUICK).text == fine.text
