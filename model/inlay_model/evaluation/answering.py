"""Candidates of the VQA table: anything that answers a question about an image, our checkpoints and endpoints alike."""

import base64
import io
from typing import Protocol

import torch
from PIL import Image

from inlay_model.canvas import lay_out_draft
from inlay_model.encoding import looked_at
from inlay_model.engine import Engine, RadiographLike, as_picture
from inlay_model.evaluation.endpoints import Chat
from inlay_model.evaluation.loaded import Placing, autoregressive, diffusion, parts_of
from inlay_model.gaps import as_fixed
from inlay_model.generate import run
from inlay_model.loading import find_folder, kind_of, make_sampler, sampler_defaults, soft_tokens
from inlay_model.prefix import Decoder, encode
from inlay_model.prompt import build_prompt
from inlay_model.request import GenerationSettings
from inlay_model.sibling import Sibling
from inlay_model.transcript import fill_text, until_end_of_turn

# What an endpoint is told: our own models were trained to answer shortly, it was not.
_SHORTLY = "Answer the question about the image in a few words. For a yes-or-no question answer yes or no."
_ANYWHERE = Placing()


class Candidate(Protocol):
    """Something that answers questions about images."""

    def __call__(self, image: RadiographLike, question: str) -> str:
        """The answer, as text."""


class DiffusionCandidate:
    """A diffusion checkpoint: the question is the prompt, the whole canvas is free."""

    def __init__(self, engine: Engine, steps: int, seed: int = 0) -> None:
        self._checkpoint = engine.checkpoint
        self._steps, self._seed = steps, seed

    def __call__(self, image: RadiographLike, question: str) -> str:
        """The canvas up to the end of turn."""
        checkpoint, model = self._checkpoint, self._checkpoint.model
        picture = as_picture(image)
        prompt = build_prompt(checkpoint.tokenizer, soft_tokens(checkpoint.image_processor, *picture.size), question)
        layout = lay_out_draft(checkpoint.tokenizer, None, checkpoint.canvas_length)
        sampler = make_sampler(sampler_defaults(model), steps=self._steps, early_stop=True)
        generator = torch.Generator(model.device)
        generator.manual_seed(self._seed)
        with torch.inference_mode():
            features = looked_at(checkpoint, [picture])
            prefix = encode(model, prompt.ids, prompt.mm_token_type_ids, features)
            done = run(
                Decoder(model, prefix),
                as_fixed([layout], model.device),
                sampler,
                checkpoint.vocabulary,
                generator,
                dtype=model.dtype,
            )
        return fill_text(checkpoint.tokenizer, until_end_of_turn(done.ids_BL[0].tolist(), checkpoint.control))


class SiblingCandidate:
    """An autoregressive checkpoint: the question is the prompt, the answer its turn."""

    def __init__(self, sibling: Sibling, seed: int = 0) -> None:
        self._sibling, self._settings = sibling, GenerationSettings(seed=seed)

    def __call__(self, image: RadiographLike, question: str) -> str:
        """The model's turn."""
        return self._sibling.answer([image], question, settings=self._settings)


class EndpointCandidate:
    """An OpenAI-compatible vision model; the image travels in the request, as PNG."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def __call__(self, image: RadiographLike, question: str) -> str:
        """The endpoint's answer."""
        packed = base64.b64encode(as_png(as_picture(image))).decode("ascii")
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{packed}"}},
            {"type": "text", "text": question},
        ]
        return self._chat.ask([{"role": "system", "content": _SHORTLY}, {"role": "user", "content": content}])


def load_candidate(named: str, steps: int, placing: Placing = _ANYWHERE) -> Candidate:
    """The candidate of a checkpoint folder, whichever of the two kinds it is, or of `folder+adapter folder`.

    Raises `CheckpointProblem` for what is neither.
    """
    if kind_of(find_folder(parts_of(named)[0])) == "autoregressive":
        return SiblingCandidate(autoregressive(named, placing))
    return DiffusionCandidate(diffusion(named, placing), steps)


def as_png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    packed = io.BytesIO()
    picture.save(packed, format="PNG")
    return packed.getvalue()
