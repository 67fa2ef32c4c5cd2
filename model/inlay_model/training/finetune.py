"""Training an adapter on a JSONL: the paper's recipe on a checkpoint of either kind, everything but the adapter frozen.

Which examples a step sees and how they are corrupted follows from the recipe's seed and the step's number alone, so a
run that goes on from its state sees what it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inlay_model.errors import BadData, BadRecipe
from inlay_model.experts import use_dense_experts
from inlay_model.loading import Checkpoint
from inlay_model.provenance import digest_of_file
from inlay_model.tokens import encode_plain
from inlay_model.training import lora
from inlay_model.training.compiled import compile_layers, padded
from inlay_model.training.corruption import BoolArray, Corruption, IntArray, filled, gap_noise, plain_noise, shifted
from inlay_model.training.dataset import Dataset, Example, Limits, encode_text
from inlay_model.training.encoding import Prompts, stack_prompts, with_question
from inlay_model.training.gap_questions import gap_of
from inlay_model.training.log import RunLog
from inlay_model.training.loop import Loop, Task
from inlay_model.training.objectives import Answers, BlockDiffusion, NextToken, Objective
from inlay_model.training.recipe import Recipe
from inlay_model.training.state import load_state, run_of, save_state
from inlay_model.vision import encode_images

# Keys of the phase that mean something here and not to the loop.
EXTRA_KEYS = ("epochs", "activation_checkpointing")
_EPOCHS = 3
# Tokens of a text that a model without a canvas is trained on at most.
_MOST_TOKENS = 512
# For compiled layers prompts and texts have lengths that are multiples of this: few shapes, and little padding.
_STEP = 32
ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as tensors: prompts, texts, and all images one after the other (None: there are none)."""

    prompts: Prompts
    answers: Answers
    pixels: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, slots=True)
class Collation:
    """How examples become a batch. `canvas` is the length of a canvas; None: as long as the longest text.

    With `even` batches have one of few lengths, for layers that are compiled.
    """

    tokenizer: Any
    image_processor: Any
    kind: str
    canvas: int | None
    corruption: Corruption
    pad: int
    eos: int
    even: bool = False

    def __call__(self, examples: Sequence[Example], rng: np.random.Generator) -> Batch:
        """One batch; what is random comes from `rng`."""
        if self.kind == "autoregressive":
            examples = [self._asked(example, rng) for example in examples]
        length = self.canvas or self._length(max(len(example.text.ids) for example in examples))
        rows = [self._row(example, length, rng) for example in examples]
        target, canvas, noise = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
        prompts = stack_prompts([example.prompt for example in examples], self.pad, self._length)
        return Batch(prompts, Answers(target, canvas, noise), self._pixels(examples))

    def _length(self, longest: int) -> int:
        return padded(longest, _STEP) if self.even else longest

    def _asked(self, example: Example, rng: np.random.Generator) -> Example:
        """With the recipe's share: a question for the text of a gap instead of the whole report."""
        if rng.random() >= self.corruption.infill or not all(name for name, _ in example.sections):
            return example
        question, missing = gap_of(example.sections, {}, rng)
        prompt = with_question(example.prompt, encode_plain(self.tokenizer, question))
        return replace(example, prompt=prompt, text=encode_text(self.tokenizer, [("", missing)]))

    def _row(self, example: Example, length: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, BoolArray]:
        """Target, canvas and noise mask."""
        target = filled(example.text, length, self.eos)
        if self.kind == "autoregressive":
            return target, target, np.zeros(length, dtype=np.bool_)
        kind = rng.random()
        if kind < self.corruption.shift:
            return shifted(example.text, length, self.corruption, self.eos, rng)
        if kind < self.corruption.shift + self.corruption.infill:
            return target, target, gap_noise(example.text, length, rng)
        return target, target, plain_noise(length, self.corruption, rng)

    def _pixels(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor] | None:
        pictures = [picture for example in examples for picture in example.pictures]
        if not pictures:
            return None
        made = self.image_processor(images=pictures, return_tensors="pt")
        return made["pixel_values"], made["image_position_ids"]


class ExampleStream(torch.utils.data.IterableDataset[Batch | BadData]):
    """Batches number `first` and on, each of `size` examples; every epoch has an order of its own.

    A batch with a bad line is the error, which a worker process could only raise buried in its own traceback.
    """

    def __init__(self, dataset: Dataset, collation: Collation, size: int, seed: int, first: int) -> None:
        self._dataset, self._collation, self._size = dataset, collation, size
        self._seed, self._first = seed, first
        self._order: tuple[int, Any] = (-1, None)

    def __iter__(self) -> Iterator[Batch | BadData]:
        worker = torch.utils.data.get_worker_info()
        number, stride = (self._first, 1) if worker is None else (self._first + worker.id, worker.num_workers)
        while True:
            try:
                yield self.batch(number)
            except BadData as problem:
                yield problem
            number += stride

    def batch(self, number: int) -> Batch:
        """The batch of this number."""
        places = range(number * self._size, (number + 1) * self._size)
        examples = [self._dataset[self._index(place)] for place in places]
        return self._collation(examples, np.random.default_rng([self._seed, 2, number]))

    def _index(self, place: int) -> int:
        epoch, within = divmod(place, len(self._dataset))
        if self._order[0] != epoch:
            shuffled = np.random.default_rng([self._seed, 1, epoch]).permutation(len(self._dataset))
            self._order = (epoch, shuffled)
        return int(self._order[1][within])


class AdapterTrainer:
    """One run: a frozen checkpoint, the adapter in it, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        base: Checkpoint,
        dataset: Dataset,
        out: Path,
        log: RunLog,
        *,
        workers: int = 0,
        compile: bool = False,  # noqa: A002 - as the command's option
    ) -> None:
        check_recipe(recipe)
        self.recipe, self.base, self.dataset, self.out, self.workers = recipe, base, dataset, out, workers
        self.model = base.model
        self.device = self.model.device
        use_dense_experts(self.model)
        parameters = lora.attach(self.model, recipe.lora, recipe.seed, base.about.name)
        if recipe["training"].get("activation_checkpointing", False):
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self.collation = replace(collation_of(base, recipe), even=compile)
        if compile:
            compile_layers(self.model)
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.objective = objective_of(base, recipe.kind)
        task = Task("training", self._loss, lambda batch: self.objective.supervised(batch.answers))
        phase = with_steps(recipe, len(dataset)).phase("training", EXTRA_KEYS)
        self.loop: Loop[Batch] = Loop(task, phase, parameters, self.device, log)
        self.loop.save = self.save
        self._run = run_of(
            {"lora": asdict(recipe.lora), "corruption": asdict(recipe.corruption), "training": asdict(phase)},
            kind=recipe.kind,
            seed=recipe.seed,
            base=base.weights_digest,
            data=digest_of_file(dataset.file),
        )

    def run(self, until: float = math.inf) -> None:
        """Train as far as the time goes."""
        phase = self.loop.phase
        first = self.loop.step * phase.accumulate
        stream = ExampleStream(self.dataset, self.collation, phase.portion, self.recipe.seed, first)
        loader = torch.utils.data.DataLoader(
            stream, batch_size=None, num_workers=self.workers, prefetch_factor=2 if self.workers else None
        )
        self.loop.run(_good(loader), until)

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        features = None
        if batch.pixels is not None:
            values, positions = (each.to(self.device) for each in batch.pixels)
            with torch.no_grad():
                features = encode_images(self.model, values.to(self.model.dtype), positions)
        prompts, answers = batch.prompts.to(self.device), batch.answers.to(self.device)
        return {"loss": self.objective.loss(self.model, prompts, features, answers, self.generator)}

    def save(self) -> str:
        """Write the adapter, and what a later run needs to go on; returns the adapter's digest."""
        about = {"recipe": self.recipe.settings, "steps": self.loop.step, "examples": len(self.dataset)}
        digest = lora.save_adapter(self.model, self.base, about, self.out / ADAPTER)
        save_state(
            self.out,
            {
                "adapter": lora.adapter_state(self.model),
                "loop": self.loop.state(),
                "generator": self.generator.get_state(),
            },
            self._run,
        )
        return digest

    def resume(self) -> bool:
        """Go on from the state in the output folder if there is one; returns whether there was.

        Raises `BadRecipe` where it is of another recipe, base or data.
        """
        state = load_state(self.out, self.device, self._run)
        if state is None:
            return False
        lora.load_adapter_state(self.model, state["adapter"])
        self.loop.restore(state["loop"])
        self.generator.set_state(state["generator"].cpu())
        return True


def _good(batches: Iterable[Batch | BadData]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, BadData):
            raise batch
        yield batch


def dataset_of(file: Path, base: Checkpoint, kind: str) -> Dataset:
    """The lines of a file, as long as the checkpoint takes them."""
    positions = int(base.model.config.get_text_config().max_position_embeddings)
    text = base.canvas_length if kind == "diffusion" else min(_MOST_TOKENS, positions // 2)
    return Dataset(file, base.tokenizer, base.image_processor, Limits(text, positions - text))


def objective_of(base: Checkpoint, kind: str) -> Objective:
    """The objective of a kind of model."""
    return NextToken(base.control.eos) if kind == "autoregressive" else BlockDiffusion(base.vocabulary)


def collation_of(base: Checkpoint, recipe: Recipe) -> Collation:
    """How examples become batches for this checkpoint."""
    return Collation(
        tokenizer=base.tokenizer,
        image_processor=base.image_processor,
        kind=recipe.kind,
        canvas=base.canvas_length if recipe.kind == "diffusion" else None,
        corruption=recipe.corruption,
        pad=base.control.pad,
        eos=base.control.eos,
    )


def check_recipe(recipe: Recipe) -> None:
    """Raise `BadRecipe` for what an adapter cannot be trained by, before a checkpoint is loaded."""
    said = recipe["training"]
    if not isinstance(said.get("activation_checkpointing", False), bool):
        raise BadRecipe("[training] activation_checkpointing is true or false.")
    epochs = said.get("epochs", _EPOCHS)
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs < math.inf:
        raise BadRecipe("[training] epochs is a number above 0.")
    # Each is checked when it is made.
    _ = recipe.lora, recipe.corruption
    Recipe(recipe.settings | {"training": {"steps": 0, **said}}).phase("training", EXTRA_KEYS)


def with_steps(recipe: Recipe, examples: int) -> Recipe:
    """The recipe with a number of steps: its own, else that of its epochs (three) over so many examples."""
    said = recipe["training"]
    if "steps" in said:
        return recipe
    steps = math.ceil(said.get("epochs", _EPOCHS) * examples / said["batch"])
    return Recipe(recipe.settings | {"training": {**said, "steps": steps}})
