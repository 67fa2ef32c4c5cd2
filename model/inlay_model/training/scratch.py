"""Training from scratch on phantoms: builds vocabulary and model, trains, writes an ordinary checkpoint.

Two phases. First the vision tower alone learns to name findings (auxiliary classifiers), then the whole model learns
the recipe's objective, the classifiers staying on with a small weight. State is saved at intervals, and a run that is
interrupted goes on from it with the batches that it would have seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from inlay_model.experts import use_dense_experts
from inlay_model.loading import kind_of
from inlay_model.phantom.anatomy import draw_anatomy
from inlay_model.phantom.findings import draw_findings
from inlay_model.phantom.render import SIZE, ingredients, paint
from inlay_model.training import architecture
from inlay_model.training.compiled import compile_layers, compiled, worth_compiling
from inlay_model.training.corruption import IntArray
from inlay_model.training.encoding import Prompts, patches
from inlay_model.training.log import RunLog
from inlay_model.training.loop import Loop, Task
from inlay_model.training.objectives import Answers, BlockDiffusion, NextToken, Objective
from inlay_model.training.phantoms import Batch, Drawing, batch, batch_at
from inlay_model.training.recipe import Recipe
from inlay_model.training.sight import FindingHeads
from inlay_model.training.state import has_state, load_state, run_of, save_state
from inlay_model.vision import encode_images, vision_of

T = TypeVar("T")

_PHASES = ("sight", "training")
# The parts that see: what `vision_of` a model has of them.
_EYES = ("vision_tower", "embed_vision")
# What tells batches and findings of a fixed set of studies from those of the phases.
_FIXED = 7
# How many images of that set are looked at together.
_SEEN_TOGETHER = 64
# Keys of a phase that mean something here and not to the loop.
EXTRA_KEYS = ("auxiliary_weight", "average_decay")
# Tables of the recipe that say what is built. Not the vocabulary's: a run that goes on has its own.
_BUILT = ("canvas", "text", "vision", "image")


@dataclass(frozen=True, slots=True)
class Options:
    """What is decided by the machine and the hour, not by the recipe.

    `init` is a checkpoint whose weights to begin from, `eyes` one whose vision tower alone to take, `tokenizer` one
    whose vocabulary to take.
    """

    out: Path
    device: str = "cpu"
    workers: int = 0
    init: Path | None = None
    eyes: Path | None = None
    tokenizer: Path | None = None
    compile: bool = False
    fit: bool = False


class Stream(torch.utils.data.IterableDataset[T]):
    """Batches number `first` and on of a phase, made by worker processes; what each holds follows from its number."""

    def __init__(self, make: Callable[[int], T], first: int) -> None:
        self._make, self._first = make, first

    def __iter__(self) -> Iterator[T]:
        worker = torch.utils.data.get_worker_info()
        number, stride = (self._first, 1) if worker is None else (self._first + worker.id, worker.num_workers)
        while True:
            yield self._make(number)
            number += stride


def drawn_at(drawing: Drawing, seed: tuple[int, ...], number: int) -> Batch:
    """The batch of this number, of phantoms of its own."""
    return batch_at(drawing, (*seed, number))


def chosen_at(drawing: Drawing, seed: tuple[int, ...], known: IntArray, number: int) -> tuple[Batch, IntArray]:
    """The batch of this number, of phantoms with some of the known findings (studies, slots), and which of them."""
    rng = np.random.default_rng((*seed, number))
    chosen = rng.choice(len(known), drawing.size)
    return batch(drawing, rng, known[chosen]), chosen


class PhantomTrainer:
    """One run: model, classifiers, weight average, and the loops of its two phases."""

    def __init__(self, recipe: Recipe, options: Options, log: RunLog) -> None:
        recipe.need_scratch_tables()
        self.recipe, self.options, self.device = recipe, options, torch.device(options.device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        self.tokenizer = _tokenizer(recipe, options)
        self.model = architecture.new_model(recipe, self.tokenizer).to(self.device)
        if options.init is not None:
            self.model.load_state_dict(architecture.trained_model(recipe.kind, options.init).state_dict())
        if options.eyes is not None:
            _take_eyes(self.model, options.eyes)
        if self.device.type == "cuda":
            # On a CPU the saved overhead is less than the added arithmetic: 6.6 examples a second instead of 8.
            use_dense_experts(self.model)
        self.heads = FindingHeads(recipe["text"]["hidden_size"]).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.objective: Objective = (
            NextToken(self.tokenizer.eos_token_id)
            if recipe.kind == "autoregressive"
            else BlockDiffusion(len(self.tokenizer))
        )
        self.drawing = self._drawing()
        self._paint: Callable[..., Tensor] = paint
        if options.compile:
            self._paint = compiled(paint)
            compile_layers(self.model)
        vision = vision_of(self.model)
        eyes = [*vision.vision_tower.parameters(), *vision.embed_vision.parameters(), *self.heads.parameters()]
        everything = [*self.model.parameters(), *self.heads.parameters()]
        self.loops = {
            "sight": self._loop("sight", self._sight_loss, eyes, log),
            "training": self._loop("training", self._training_loss, everything, log),
        }
        self.loops["training"].after_step = self._average
        phases = {name: asdict(loop.phase) for name, loop in self.loops.items()}
        extra = {key: recipe["training"][key] for key in EXTRA_KEYS}
        self._run = run_of(
            {"corruption": asdict(recipe.corruption), **phases, "training": phases["training"] | extra},
            kind=recipe.kind,
            seed=recipe.seed,
            **{table: recipe[table] for table in _BUILT},
        )

    def _drawing(self) -> Drawing:
        vision = self.recipe["vision"]
        side = SIZE // (vision["patch_size"] * vision["pooling_kernel_size"])
        return Drawing(
            tokenizer=self.tokenizer,
            kind=self.recipe.kind,
            size=self.recipe["training"]["batch"],
            canvas=self.recipe["canvas"]["length"],
            soft_tokens=side * side,
            corruption=self.recipe.corruption,
        )

    def _loop(
        self, name: str, loss: Callable[[Any], dict[str, Tensor]], parameters: list[torch.nn.Parameter], log: RunLog
    ) -> Loop[Any]:
        task = Task(name, loss, lambda drawn: self.objective.supervised(_answers(drawn)))
        loop = Loop(task, self.recipe.phase(name, EXTRA_KEYS), parameters, self.device, log)
        loop.save = self.save
        return loop

    def run(self, until: float = math.inf) -> None:
        """Both phases, one after the other, as far as the time goes."""
        for number, name in enumerate(_PHASES):
            if time.monotonic() < until and not self.loops[name].finished:
                self.loops[name].run(self._batches(name, number), until, fit=self.options.fit and name == "training")

    def run_on_fixed(self, studies: int, until: float = math.inf) -> None:
        """Train the text stack alone on a fixed set of encoded studies, for eyes that see already.

        That is what a CPU can do in an hour; on a GPU, too, no step has images to draw and to look at.
        """
        vision, loop = vision_of(self.model), self.loops["training"]
        for part in _EYES:
            getattr(vision, part).requires_grad_(False)
        rng = np.random.default_rng([self.recipe.seed, _FIXED])
        drawn = draw_findings(studies, rng)
        features = self._encoded(drawn, rng)

        def loss(some: tuple[Batch, IntArray]) -> dict[str, Tensor]:
            known, chosen = some
            return {"loss": self._objective_loss(known, features[chosen])}

        loop.task = Task("training", loss)
        make = partial(chosen_at, self._portion(loop), (self.recipe.seed, _FIXED), drawn)
        loop.run(self._numbered(loop, make), until, fit=self.options.fit)

    def _batches(self, name: str, number: int) -> Iterator[Batch]:
        loop = self.loops[name]
        return self._numbered(loop, partial(drawn_at, self._portion(loop), (self.recipe.seed, number)))

    def _portion(self, loop: Loop[Any]) -> Drawing:
        return self.drawing.sized(loop.phase.portion)

    def _numbered(self, loop: Loop[Any], make: Callable[[int], T]) -> Iterator[T]:
        stream = Stream(make, loop.step * loop.phase.accumulate)
        workers = self.options.workers
        return iter(
            torch.utils.data.DataLoader(
                stream,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                collate_fn=_as_made,
            )
        )

    def _images(self, anatomy: Any) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            image_BHW = self._paint(*ingredients(anatomy, self.generator))
            return patches(image_BHW, self.recipe["vision"]["patch_size"])

    def _encoded(self, drawn: Any, rng: np.random.Generator) -> Tensor:
        """Image tokens of studies, shape (studies, soft tokens, hidden), in portions."""
        portions = []
        for start in range(0, len(drawn), _SEEN_TOGETHER):
            # Once each, so that nothing is compiled for it.
            with torch.no_grad(), worth_compiling(usual=False):
                anatomy = draw_anatomy(drawn[start : start + _SEEN_TOGETHER], rng)
                portions.append(self._by_image(encode_images(self.model, *self._images(anatomy)), len(anatomy["gain"])))
        return torch.cat(portions)

    def _sight_loss(self, drawn: Batch) -> dict[str, Tensor]:
        _, auxiliary, right = self._seen(drawn)
        return {"loss": auxiliary, "auxiliary": auxiliary, "seen": right}

    def _training_loss(self, drawn: Batch) -> dict[str, Tensor]:
        features, auxiliary, right = self._seen(drawn)
        aim = self._objective_loss(drawn, features)
        loss = aim + self.recipe["training"]["auxiliary_weight"] * auxiliary
        return {"loss": loss, "objective": aim, "auxiliary": auxiliary, "seen": right}

    def _seen(self, drawn: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens (B, soft tokens, hidden), the classifiers' loss, and the share with every slot right."""
        features_NH = encode_images(self.model, *self._images(drawn.anatomy))
        features = self._by_image(features_NH, len(drawn.findings))
        return features, *self.heads.loss(features.float(), torch.from_numpy(drawn.findings).to(self.device))

    def _objective_loss(self, drawn: Batch, features: Tensor) -> Tensor:
        prompts, answers = _prompts(drawn).to(self.device), _answers(drawn).to(self.device)
        seen = features.flatten(0, 1) if drawn.has_images else None
        with worth_compiling(usual=self.drawing.is_usual(drawn)):
            return self.objective.loss(self.model, prompts, seen, answers, self.generator)

    def _by_image(self, features_NH: Tensor, count: int) -> Tensor:
        return features_NH.view(count, -1, features_NH.shape[-1])

    def _average(self, step: int) -> None:
        """Exponential average of the weights: what is saved and served."""
        decay = min(self.recipe["training"]["average_decay"], step / (step + 9))
        current = self.model.state_dict()
        floats = [name for name, value in self.average.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floats], [current[n] for n in floats], 1 - decay)

    @property
    def finished(self) -> bool:
        """Whether every step of the recipe has been made."""
        return self.loops["training"].finished

    def save(self) -> None:
        """Write what a later run needs to go on, and the averaged weights as a checkpoint in the ordinary format."""
        architecture.save_checkpoint(self.recipe, self.average, self.tokenizer, self.options.out)
        save_state(
            self.options.out,
            {
                "model": self.model.state_dict(),
                "heads": self.heads.state_dict(),
                "average": self.average,
                "loops": {name: loop.state() for name, loop in self.loops.items()},
                "generator": self.generator.get_state(),
            },
            self._run,
        )

    def resume(self) -> bool:
        """Go on from the state in the output folder if there is one; returns whether there was.

        Raises `BadRecipe` where it is of another recipe.
        """
        state = load_state(self.options.out, self.device, self._run)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.average = state["average"]
        for name, loop in self.loops.items():
            loop.restore(state["loops"][name])
        self.generator.set_state(state["generator"].cpu())
        return True


def _as_made(made: T) -> T:
    return made


def _tokenizer(recipe: Recipe, options: Options) -> Any:
    """The vocabulary of the run that goes on, of the checkpoint that is named, or a new one."""
    begun = options.out if has_state(options.out) else None
    found = begun or options.init or options.tokenizer
    return architecture.tokenizer_of(found) if found else architecture.new_tokenizer(recipe)


def _take_eyes(model: Any, checkpoint: Path) -> None:
    """Have this model see as that of a checkpoint does, of whichever kind."""
    theirs = vision_of(architecture.trained_model(kind_of(checkpoint), checkpoint))
    for part in _EYES:
        getattr(vision_of(model), part).load_state_dict(getattr(theirs, part).state_dict())


def _prompts(drawn: Batch) -> Prompts:
    return Prompts(*(torch.from_numpy(each) for each in (drawn.prompt_BT, drawn.types_BT, drawn.real_BT)))


def _answers(drawn: Batch) -> Answers:
    return Answers(*(torch.from_numpy(each) for each in (drawn.target_BL, drawn.canvas_BL, drawn.noise_BL)))
