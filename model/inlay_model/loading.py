"""Checkpoints: finding, checking and loading them, by folder or pinned hub id. Needs no torchvision."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay_model.calibration import Curve
from inlay_model.errors import AdapterProblem, BadRequest, CheckpointProblem, UnpinnedRevision, WrongDigest
from inlay_model.provenance import ABOUT, digest_of_folder, digest_of_weights, fetched
from inlay_model.schedule import Sampler
from inlay_model.tokens import Control, Tokenizer, control_tokens

if TYPE_CHECKING:
    from inlay_model.adapters import Added

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NEEDED = ("config.json", "tokenizer.json")
# How images are prepared stands in one of these, depending on the library that wrote the folder.
_PREPARED = ("preprocessor_config.json", "processor_config.json")
_INDEX = "model.safetensors.index.json"
# Git leaves such a text where a file was not fetched from large-file storage.
_POINTER = b"version https://git-lfs"
# What a checkpoint's configuration calls the two kinds of model.
_MODEL_TYPES = {"diffusion_gemma": "diffusion", "gemma4": "autoregressive"}
# What transformers' generate uses where the checkpoint says nothing, and so do we.
_DEFAULTS = {"t_min": 0.4, "t_max": 0.8, "stability_threshold": 1, "confidence_threshold": 0.005}
_DEFAULT_ENTROPY_BOUND = 0.1
_DTYPES = ("float32", "bfloat16", "float16")
_COPY = "Copy or fetch the folder again, as a whole."


@dataclass(frozen=True, slots=True)
class About:
    """What a checkpoint says of itself in `inlay.json`; the defaults hold for checkpoints without that file.

    `kind` is `diffusion` or `autoregressive`. `locked_in_prompt`: locked fragments are listed in the prompt too.
    `foretells_length`: it was trained on misplaced text and says at every position what belongs there, so that few
    lengths of a gap need to be tried.
    `dispute_threshold`: it was trained on locks that contradict the image, and a word that it holds to be wrong with a
    greater probability than this is disputed; None where it was not.
    `takes_hints` and `rewrites`: it was trained on prompts that say what a gap is to speak of, and on prompts with a
    report to be written in another style.
    `takes_comparison`: its prompt may tell of earlier examinations. That is so of a checkpoint that follows
    instructions, so where nothing is said it is false of demonstrations only.
    `fills_without_image`: it fills gaps from the text alone where there is no image; where nothing is said as with
    `takes_comparison`.
    `calibration`: how often texts of a score were right, as points (score, probability) of a rising curve.


    `views`: how many images of a study it was trained to read together.
    """

    name: str
    kind: str = "diffusion"
    demonstration: bool = False
    locked_in_prompt: bool = True
    foretells_length: bool = False
    dispute_threshold: float | None = None
    takes_hints: bool = False
    rewrites: bool = False
    takes_comparison: bool = True
    fills_without_image: bool = True
    calibration: Curve = ()
    styles: tuple[str, ...] = ()
    views: int = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: model in evaluation mode, tokenizer, image processor, and where it comes from.

    `weights_digest` is the digest without `inlay.json`, which adapters name as their base. `precision` is how the
    experts are held (accelerator/precision.py).
    """

    model: Any
    tokenizer: Tokenizer
    image_processor: Any
    control: Control
    about: About
    digest: str
    weights_digest: str
    revision: str | None
    adapters: "Added | None" = None
    precision: str = "bf16"

    @property
    def adapter_digest(self) -> str | None:
        """Digest of the adapter that is active now: part of run records and of the keys of whatever was computed."""
        return None if self.adapters is None else self.adapters.digest

    def use_adapter(self, name: str | None) -> None:
        """Make an adapter active by the name it was loaded under, None for the bare base; raises `AdapterProblem`."""
        if self.adapters is not None:
            self.adapters.use(name)
        elif name is not None:
            raise AdapterProblem(f"No adapter {name} was loaded with this checkpoint.")

    @property
    def canvas_length(self) -> int:
        """Tokens of one canvas of a diffusion model."""
        return int(self.model.config.canvas_length)

    @property
    def vocabulary(self) -> int:
        """Tokens the model can write."""
        return int(self.model.config.text_config.vocab_size)


def make_image_processor(*, max_soft_tokens: int = 280, patch_size: int = 16, pooling_kernel_size: int = 3) -> Any:
    """The PIL image processor of Gemma 4 (0..255 to 0..1, aspect kept, sides multiples of patch times pooling).

    A square image of 384 gives 64 soft tokens with `max_soft_tokens=70`, the smallest that the library allows.
    """
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    return Gemma4ImageProcessorPil(
        max_soft_tokens=max_soft_tokens, patch_size=patch_size, pooling_kernel_size=pooling_kernel_size
    )


def soft_tokens(image_processor: Any, width: int, height: int) -> int:
    """How many soft tokens an image of this size becomes, without touching its pixels."""
    rows, columns = patch_grid(image_processor, width, height)
    return rows * columns // int(image_processor.pooling_kernel_size) ** 2


def patch_grid(image_processor: Any, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of patches that an image of this size is cut into; either is zero where it is too narrow."""
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    patch, pooling = image_processor.patch_size, image_processor.pooling_kernel_size
    rows, columns = get_aspect_ratio_preserving_size(
        height=height,
        width=width,
        patch_size=patch,
        max_patches=image_processor.max_soft_tokens * pooling**2,
        pooling_kernel_size=pooling,
    )
    return int(rows // patch), int(columns // patch)


def default_checkpoint() -> Path:
    """Folder of the demonstration checkpoint: inside the package where it was packed there, else beside it."""
    package = Path(__file__).parent
    packed = package / "checkpoints" / "phantom-diffusion"
    return packed if packed.is_dir() else package.parent / "checkpoints" / "phantom-diffusion"


DEMONSTRATION = default_checkpoint()


def find_folder(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """Local folder of a checkpoint. A hub id needs its commit hash, else `UnpinnedRevision`; then it is fetched.

    Raises `CheckpointProblem` for what is neither, and `FetchProblem` where the hub does not give it.
    """
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        return folder
    name = str(path_or_hub_id)
    if not _HUB_ID.fullmatch(name):
        raise CheckpointProblem(
            f"There is no checkpoint folder {name}, and it is no hub id (owner/name) either. "
            "Name a folder that is there; inlay model fetch brings one."
        )
    if revision is None or not _COMMIT.fullmatch(revision):
        raise UnpinnedRevision(
            f"{name} needs revision=<40 hexadecimal digits of a commit>: branch and tag names can move."
        )
    from huggingface_hub import snapshot_download

    from inlay_model.fetch import asking_the_hub

    with asking_the_hub(name, revision):
        return Path(snapshot_download(name, revision=revision))


def load(
    path_or_hub_id: str | Path,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    *,
    digest: str | None = None,
    adapter: str | Path | Mapping[str, str | Path] | None = None,
    kind: str = "diffusion",
    precision: str | None = None,
    accelerate: bool | None = None,
) -> Checkpoint:
    """A checkpoint, loaded onto the device (the first GPU, else the CPU) in bfloat16 there and float32 on a CPU.

    bfloat16 weights are widened on a CPU because most CPUs compute it slower than float32. The device `auto` spreads
    the layers over all GPUs.
    `digest` is what the folder's digest has to be (`WrongDigest` else); by default any will do.
    `adapter` is the folder of a PEFT adapter, which is added to the weights, or several by name, of which
    `Checkpoint.use_adapter` chooses one (at first none). `kind` is what the caller can work with.
    `precision` packs the experts (bf16, fp8, 4bit: accelerator/precision.py); `accelerate` says whether graphs and own
    kernels are used, by default on a GPU for a diffusion model. They read the weights that adapters are added to; a
    model whose encoder and decoder an adapter changes differently goes without.
    Raises `CheckpointProblem` with the missing or unfit part, `AdapterProblem` for an adapter of another base,
    `BadRequest` for a device or a dtype that there is not, and `NotEnoughMemory` before anything is read.
    """
    from inlay_model.accelerator.loader import place
    from inlay_model.accelerator.memory import named

    folder = find_folder(path_or_hub_id, revision)
    record = fetched(folder)
    _check_files(folder, kind)
    adapters = _read_adapters(adapter)
    spread = device == "auto"
    target = _device(device)
    numbers = _numbers(dtype, target)
    about = read_about(folder, str(path_or_hub_id))
    found = digest_of_folder(folder)
    if digest and digest != found:
        raise WrongDigest(
            f"The checkpoint {folder} is another one than is expected (wrong digest): it has {found}, expected is "
            f"{digest}. Put the expected one there, or expect this one if it was chosen."
        )
    weights = digest_of_weights(folder)
    _check_bases(adapters, about.name, weights)
    held = precision or "bf16"
    added: Added | None = None

    def adapt(model: Any) -> None:
        nonlocal added
        added = _added(model, adapters)

    if kind == "autoregressive":
        # A model for comparison: what it needs is not computed, but too little is named all the same.
        with named(target):
            model, tokenizer, image_processor = _load_parts(folder, kind, numbers)
            model = model.to(target)
            adapt(model)
    else:
        files = [folder / name for name in _parts(folder)]
        with place(folder, files, target, numbers, held, spread=spread, accelerate=accelerate) as put:
            model, tokenizer, image_processor = _load_parts(folder, kind, numbers)
            model = put(model, adapt)
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        image_processor=image_processor,
        control=control_tokens(tokenizer),
        about=about,
        digest=found,
        weights_digest=weights,
        revision=revision or record.get("revision"),
        adapters=added,
        precision=held,
    )


def kind_of(folder: Path) -> str:
    """Which kind of model lies in this folder: `diffusion` or `autoregressive`; raises `CheckpointProblem`."""
    if not (folder / "config.json").is_file():
        raise CheckpointProblem(f"The checkpoint {folder} has no config.json. {_COPY}")
    found = _json(folder / "config.json").get("model_type")
    if found not in _MODEL_TYPES:
        raise _unknown_class(folder, found, " or ".join(_MODEL_TYPES))
    return _MODEL_TYPES[found]


def read_about(folder: Path, name: str) -> About:
    """The checkpoint's `inlay.json`, or what holds without one."""
    file = folder / ABOUT
    if not file.is_file():
        return About(name=name, kind=kind_of(folder))
    said = _json(file)
    instructed = not said.get("demonstration", False)
    return About(
        name=str(said.get("name", folder.name)),
        kind=kind_of(folder),
        demonstration=bool(said.get("demonstration", False)),
        locked_in_prompt=bool(said.get("locked_in_prompt", True)),
        foretells_length=bool(said.get("foretells_length", False)),
        dispute_threshold=_share(said.get("dispute_threshold"), file),
        takes_hints=bool(said.get("takes_hints", False)),
        rewrites=bool(said.get("rewrites", False)),
        takes_comparison=bool(said.get("takes_comparison", instructed)),
        fills_without_image=bool(said.get("fills_without_image", instructed)),
        calibration=_curve(said.get("calibration", ()), file),
        styles=tuple(said.get("styles", ())),
        views=_count(said.get("views", 1), file),
    )


def _curve(said: Any, file: Path) -> Curve:
    try:
        curve = tuple((float(score), float(p)) for score, p in said)
    except (TypeError, ValueError) as problem:
        raise CheckpointProblem(f"{file}: calibration is a list of [score, probability].") from problem
    rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(curve))
    if not rising or not all(0 <= p <= 1 for _, p in curve):
        raise CheckpointProblem(f"{file}: calibration is a rising curve of probabilities.")
    return curve


def _count(said: Any, file: Path) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or said < 1:
        raise CheckpointProblem(f"{file}: views is a whole number from 1 on.")
    return said


def _share(said: Any, file: Path) -> float | None:
    if said is not None and not (isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said <= 1):
        raise CheckpointProblem(f"{file}: dispute_threshold is a number from 0 to 1.")
    return None if said is None else float(said)


def sampler_defaults(model: Any) -> Mapping[str, Any]:
    """Sampler numbers of the checkpoint's generation_config, completed by those of transformers."""
    said = model.generation_config
    numbers = {name: getattr(said, name, None) for name in _DEFAULTS}
    found = {name: _DEFAULTS[name] if value is None else value for name, value in numbers.items()}
    bound = getattr(getattr(said, "sampler_config", None), "entropy_bound", None)
    return {**found, "entropy_bound": _DEFAULT_ENTROPY_BOUND if bound is None else bound}


def make_sampler(
    defaults: Mapping[str, Any],
    *,
    steps: int,
    early_stop: bool,
    begin_again: tuple[float, ...] = (),
    stop_when_accepted: bool = False,
    **wanted: Any,
) -> Sampler:
    """The sampler of a request: what it asks for, else the defaults."""
    chosen = {name: defaults[name] if wanted.get(name) is None else wanted[name] for name in defaults}
    return Sampler(
        steps=steps,
        early_stop=early_stop,
        begin_again=begin_again,
        stop_when_accepted=stop_when_accepted,
        **chosen,
    )


def _check_files(folder: Path, kind: str) -> None:
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise CheckpointProblem(f"The checkpoint {folder} has no {name}. {_COPY}")
    if not any((folder / name).is_file() for name in _PREPARED):
        raise CheckpointProblem(f"The checkpoint {folder} has no {_PREPARED[0]}. {_COPY}")
    found = _json(folder / "config.json").get("model_type")
    if _MODEL_TYPES.get(str(found)) != kind:
        raise _unknown_class(folder, found, next(name for name, value in _MODEL_TYPES.items() if value == kind))
    parts = _parts(folder)
    for name in parts:
        if not (folder / name).is_file():
            raise CheckpointProblem(f"The checkpoint {folder} has no {name}, which {_INDEX} lists. {_COPY}")
        with (folder / name).open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise CheckpointProblem(
                    f"{folder / name} is a pointer to large-file storage and no weights: run git lfs pull."
                )
    if not parts:
        raise CheckpointProblem(f"The checkpoint {folder} has no *.safetensors files. {_COPY}")


def _parts(folder: Path) -> list[str]:
    """Names of the files of weights: those of the index, where there is one."""
    index = folder / _INDEX
    if not index.is_file():
        return sorted(file.name for file in folder.glob("*.safetensors"))
    named = _json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CheckpointProblem(f"{index} lists no weights. {_COPY}")
    return sorted({str(name) for name in named.values()})


def _unknown_class(folder: Path, found: Any, needed: str) -> CheckpointProblem:
    what = f"holds a {found} model" if found else "says no model_type in its config.json"
    return CheckpointProblem(f"{folder} {what}; a {needed} checkpoint is needed: name the folder or hub id of one.")


def _device(named: str | None) -> Any:
    """The device of this name, of `auto` the first GPU, by default that or the CPU; raises `BadRequest` for none."""
    import torch

    if named is None or not named:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if named == "auto" else named)
    except RuntimeError:
        raise BadRequest(f"There is no device {named}: name cpu, cuda, cuda:1 ... or auto.") from None
    # The driver may know of GPUs that this build cannot use.
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadRequest(no_gpu(named, torch.version.cuda or torch.version.hip))
    found = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= found:
        raise BadRequest(f"There is no device {named}: PyTorch finds {found} GPUs here. Leave the device out for any.")
    return device


def no_gpu(named: str, built_for: str | None) -> str:
    """What to do where this device was asked for and no GPU is found; `built_for` is the CUDA version of PyTorch."""
    if built_for is None:
        remedy = "This PyTorch is built for the CPU; install one for CUDA (of the images that with -cuda in its tag)"
    else:
        remedy = (
            f"Look at nvidia-smi: the driver has to serve CUDA {built_for}, and a container gets the GPU from NVIDIA's "
            "runtime (in the chart worker.runtimeClassName)"
        )
    return f"There is no device {named}: PyTorch finds no GPU here. {remedy}, or leave the device out for the CPU."


def _numbers(named: str | None, device: Any) -> Any:
    """The dtype of this name, by default the one that the device computes fast; raises `BadRequest` for others."""
    import torch

    if named is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if named not in _DTYPES:
        raise BadRequest(f"Weights are held as {', '.join(_DTYPES)}, and not as {named}.")
    return getattr(torch, named)


def _read_adapters(given: str | Path | Mapping[str, str | Path] | None) -> dict[str, Any]:
    from inlay_model.adapters import read_adapter

    named = {} if given is None else given if isinstance(given, Mapping) else {Path(given).name: given}
    return {name: read_adapter(folder) for name, folder in named.items()}


def _check_bases(adapters: Mapping[str, Any], name: str, weights_digest: str) -> None:
    from inlay_model.adapters import check_base

    for adapter in adapters.values():
        check_base(adapter, name, weights_digest)


def _added(model: Any, adapters: Mapping[str, Any]) -> "Added | None":
    from inlay_model.adapters import Added

    return Added(model, adapters) if adapters else None


def _json(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise CheckpointProblem(f"{file} is no JSON.") from problem
    if not isinstance(said, dict):
        raise CheckpointProblem(f"{file} is no JSON object.")
    return said


def _load_parts(folder: Path, kind: str, dtype: Any) -> tuple[Any, Tokenizer, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion, Gemma4ForConditionalGeneration
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    from transformers.utils import logging

    classes: dict[str, Any] = {
        "diffusion": DiffusionGemmaForBlockDiffusion,
        "autoregressive": Gemma4ForConditionalGeneration,
    }
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        image_processor = Gemma4ImageProcessorPil.from_pretrained(folder)
        model: Any
        model, found = classes[kind].from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except torch.OutOfMemoryError:
        raise
    except SafetensorError as problem:
        raise CheckpointProblem(f"A file of weights in {folder} is cut short or damaged. {_COPY}") from problem
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        raise CheckpointProblem(
            f"The checkpoint {folder} cannot be loaded ({type(problem).__name__}): its files do not fit each other. "
            f"{_COPY}"
        ) from problem
    finally:
        if bars:
            logging.enable_progress_bar()
    if not tokenizer.chat_template:
        raise CheckpointProblem(f"The tokenizer of {folder} has no chat template (chat_template.jinja). {_COPY}")
    # The library fills what is missing with random numbers, and says so in a log only.
    if found["missing_keys"]:
        first = min(found["missing_keys"])
        raise CheckpointProblem(
            f"The weights of {folder} lack {len(found['missing_keys'])} tensors that its config.json asks for, such as "
            f"{first}. {_COPY}"
        )
    return model.eval().requires_grad_(False), tokenizer, image_processor
