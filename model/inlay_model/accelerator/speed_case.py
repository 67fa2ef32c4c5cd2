"""What the parts of the speed suite share: the shape, the models, a tokenizer, kernels with the tiles found best."""

import gc
from dataclasses import dataclass
from typing import Any

import torch

from inlay_model.accelerator.accelerated import Accelerated, attach, best_kernels
from inlay_model.accelerator.random_checkpoint import widened_tokenizer
from inlay_model.accelerator.random_weights import TOY, diffusion_config, random_model, sibling_config
from inlay_model.accelerator.reference import Reference
from inlay_model.accelerator.runtime import Runtime
from inlay_model.prefix import Prefix, encode


@dataclass(frozen=True, slots=True)
class Case:
    """One machine and one shape; `toy` is a rehearsal on a small one."""

    device: torch.device
    rounds: int = 5
    toy: bool = False
    layers: int | None = None
    without: tuple[str, ...] = ()
    apart: bool = False

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return 40 if self.toy else 300

    @property
    def canvas(self) -> int:
        """Tokens of a canvas."""
        return 128 if self.toy else 256

    @property
    def steps(self) -> int:
        """Of a run whose steps are timed."""
        return 4 if self.toy else 16

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def changes(self) -> dict[str, Any]:
        """What differs from the 26B shape."""
        if self.toy:
            return TOY
        return {"num_hidden_layers": self.layers, "layer_types": None} if self.layers else {}

    def ids(self) -> tuple[int, ...]:
        """A prompt of random tokens."""
        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randint(300, 1000, (self.prompt,), generator=generator).tolist())

    def prefix(self, model: Any) -> Prefix:
        """That prompt, encoded."""
        ids = self.ids()
        return encode(model, ids, (0,) * len(ids), None)

    def diffusion(self) -> Any:
        """The diffusion model, on the device."""
        config = diffusion_config(**self.changes())
        config.canvas_length = self.canvas
        # The tokenizer's own, see `tokenizer`.
        config.image_token_id = 8
        if self.toy:
            config.vision_config.num_hidden_layers = 1
        return random_model(config, self.device, self.dtype)

    def sibling(self) -> Any:
        """The autoregressive sibling, on the device."""
        return random_model(sibling_config(**self.changes()), self.device, self.dtype)

    def kernels(self, found: dict[str, Any] | None = None) -> Reference:
        """Kernels of this device with the tiles that the part `tiles` found."""
        if self.device.type != "cuda":
            return best_kernels(self.device)
        from inlay_model.accelerator.fused import Fused, tuning_of

        return Fused(tuning_of(found or {}), self.without)

    def attached(self, model: Any, found: dict[str, Any] | None = None) -> Accelerated:
        """The model's accelerated path; raises where it is not fit for one."""
        path = attach(model, self.kernels(found), beside=self.apart)
        if path is None:
            raise RuntimeError("the model is not fit for the accelerated path")
        return path

    def tokenizer(self) -> Any:
        """The demonstration checkpoint's tokenizer with as many words as the model has."""
        return widened_tokenizer(int(diffusion_config(**self.changes()).text_config.vocab_size))


def fast_runtime(path: Accelerated) -> Runtime:
    """The fast runtime of a path; raises where it has failed, so that no slow figure passes for a fast one."""
    if path.fast is None:
        raise RuntimeError(f"the fast passes failed: {dict(path.counts)}")
    return path.fast


def forget() -> None:
    """Free what the last part left on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
