"""From a request's prompt and images to an encoded prefix: what the model reads before it writes.

An encoding is kept and found again by everything it depends on: checkpoint, adapter, prompt and pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from inlay_model.errors import BadImage
from inlay_model.loading import Checkpoint, patch_grid, soft_tokens
from inlay_model.pixels import RadiographLike, as_picture
from inlay_model.prefix import Prefix, Prefixes, encode
from inlay_model.prompt import Prompt, build_prompt
from inlay_model.provenance import digest_of_ids, sha256_of
from inlay_model.recent import Recent
from inlay_model.vision import encode_images

# How a kind of model reads the beginning of a prompt: see `prefix.encode`.
Read = Callable[[Any, tuple[int, ...], tuple[int, ...], torch.Tensor | None], Prefix]
# Of the 26B model an image takes 1.6 MB.
_SEEN_BUDGET = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Study:
    """A prompt with its images, encoded."""

    prompt: Prompt
    prefix: Prefix
    image_digests: tuple[str, ...]

    @property
    def rest(self) -> tuple[int, ...]:
        """Tokens of the prompt that are not encoded yet."""
        return self.prompt.ids[self.prefix.length :]


class Encoder:
    """Encodes prompts with one checkpoint; what several requests share is kept under a byte budget.

    Kept are encoded prompts (`kept`) and, apart from them, what was seen in images: a draft and the first infill of a
    study differ in the prompt, and neither the images nor the time that the vision tower takes for them.
    """

    def __init__(self, checkpoint: Checkpoint, budget_bytes: int, read: Read = encode) -> None:
        self._checkpoint = checkpoint
        self._read = read
        self.kept = Prefixes(budget_bytes)
        self._seen: Recent[torch.Tensor] = Recent(_SEEN_BUDGET)

    def forget(self) -> None:
        """Forget all that is kept: it is made again when it is needed."""
        self.kept.clear()
        self._seen.clear()

    def study(
        self,
        images: Sequence[RadiographLike],
        instruction: str,
        locked: Sequence[str] = (),
        wish: str = "",
        later: Sequence[str] = (),
        comparison: str = "",
    ) -> Study:
        """Encode this instruction with these images (none: text only); `locked` is listed where checkpoints ask for it.

        `wish` is what else the request says (`inlay_model.wishes`), `later` what is locked on pages to come, which is
        listed for every checkpoint, `comparison` what is said of earlier examinations. Raises `BadImage` and
        `PromptTooLong`.
        """
        # Checkpoints that are told about locks share the encoding up to there; the others share all of it.
        told = self._checkpoint.about.locked_in_prompt
        listed = locked if told else later
        whole = not told and not wish and not later
        study = self.shared(images, instruction, listed, wish, comparison, whole=whole)
        if not study.rest:
            return study
        types = study.prompt.mm_token_type_ids[study.prefix.length :]
        return replace(study, prefix=encode(self._checkpoint.model, study.rest, types, None, after=study.prefix))

    def shared(
        self,
        images: Sequence[RadiographLike],
        instruction: str,
        listed: Sequence[str] = (),
        wish: str = "",
        comparison: str = "",
        *,
        whole: bool = False,
    ) -> Study:
        """Encode the part of a prompt that does not depend on what is locked or wished, or the `whole` of it.

        Raises as `study` does.
        """
        checkpoint = self._checkpoint
        pictures = [as_picture(image) for image in images]
        digests = tuple(image_digest(picture) for picture in pictures)
        counts = [self._soft_tokens(picture) for picture in pictures]
        prompt = build_prompt(checkpoint.tokenizer, counts, instruction, listed, wish, comparison)
        length = len(prompt.ids) if whole else prompt.shared
        key = self._key(prompt.ids[:length], digests)
        prefix = self.kept.get(key)
        if prefix is None:
            features = self._features(pictures, digests) if pictures else None
            prefix = self._read(checkpoint.model, prompt.ids[:length], prompt.mm_token_type_ids[:length], features)
            self.kept.put(key, prefix)
        return Study(prompt, prefix, digests)

    def _key(self, ids: Sequence[int], image_digests: Sequence[str]) -> str:
        parts = (self._checkpoint.digest, self._checkpoint.adapter_digest or "", digest_of_ids(ids), *image_digests)
        return sha256_of(*(part.encode() for part in parts))

    def _soft_tokens(self, picture: Image.Image) -> int:
        """How many tokens this picture becomes; raises `BadImage` for a shape that the vision model has no places for.

        The library would look places up beyond the end of its table.
        """
        processor = self._checkpoint.image_processor
        most = self._checkpoint.model.config.vision_config.position_embedding_size
        patches = patch_grid(processor, *picture.size)
        if max(patches) > most or min(patches) < processor.pooling_kernel_size:
            raise BadImage(
                f"An image of {picture.height} x {picture.width} is too long and narrow for this checkpoint. "
                "Crop it to the body."
            )
        return soft_tokens(processor, *picture.size)

    def _features(self, pictures: Sequence[Image.Image], digests: Sequence[str]) -> torch.Tensor:
        key = self._key((), digests)
        features_NH = self._seen.get(key)
        if features_NH is None:
            features_NH = looked_at(self._checkpoint, pictures)
            self._seen.put(key, features_NH)
        return features_NH


def looked_at(checkpoint: Checkpoint, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Soft tokens of these pictures one after the other, shape (N, H)."""
    return encode_images(checkpoint.model, *patches_of(checkpoint.image_processor, checkpoint.model, pictures))


def patches_of(processor: Any, model: Any, pictures: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and positions of the patches of these pictures, as `encode_images` of this model takes them."""
    batch = processor(images=list(pictures), return_tensors="pt")
    return batch["pixel_values"].to(model.device, model.dtype), batch["image_position_ids"].to(model.device)


def image_digest(image: RadiographLike) -> str:
    """Digest of an image's pixels, its size and whether it is grey or coloured."""
    picture = as_picture(image)
    return sha256_of(f"{picture.mode} {picture.width}x{picture.height}".encode(), picture.tobytes())
