"""Training from scratch on phantoms: builds vocabulary and model, trains, writes an ordinary checkpoint.

Two phases. First the vision tower alone learns to name findings (auxiliary classifiers), then the whole model
learns to denoise reports, the classifiers staying on with a small weight. State is saved at intervals, and a run
that is interrupted goes on from it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inlay_model import loss as objective
from inlay_model.data import Batch, Corruption, ReportEncoder, batch, batches
from inlay_model.experts import use_dense_experts
from inlay_model.phantom.anatomy import draw_anatomy
from inlay_model.phantom.findings import Findings, draw_findings
from inlay_model.phantom.grammar import STYLES, corpus, write_report
from inlay_model.phantom.remarks import REMARKS
from inlay_model.phantom.render import SIZE, ingredients, paint
from inlay_model.prompt import Prompt, build_prompt, instruction
from inlay_model.vocabulary import as_pretrained, build_vocabulary

SECTIONS = ("findings", "impression")

# The pace of a run is measured once compilation is over.
_MEASURE_AFTER, _MEASURE = 150, 100
_SAVE_MINUTES, _LOG_EVERY = 4.0, 50


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named run as read from a TOML file of model/configs."""

    settings: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe; raises ValueError naming what is missing."""
        settings = tomllib.loads(path.read_text())
        missing = {"vocabulary", "canvas", "text", "vision", "image", "sight", "training"} - settings.keys()
        if missing:
            raise ValueError(f"{path}: the recipe lacks the table(s) {', '.join(sorted(missing))}")
        return cls(settings)

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]


def new_tokenizer(recipe: Recipe) -> Any:
    """The vocabulary of a recipe, learnt from sampled phantom reports, remarks and instructions."""
    rng = np.random.default_rng(recipe["seed"])
    reports = recipe["vocabulary"]["reports"]
    drawn = draw_findings(reports, rng)
    texts = [
        f"{name.capitalize()}: {' '.join(sentences)}\n"
        for row, style in zip(drawn, STYLES * (reports // len(STYLES) + 1), strict=False)
        for name, sentences in write_report(Findings.from_indices(row), style, rng).sections
    ]
    # Rare sentences are repeated so that their words become single tokens too.
    texts += [f" {sentence}" for sentence in [*corpus(), *REMARKS]] * 20
    texts += [f"user\n{instruction(SECTIONS, style)}\nmodel\n" for style in STYLES] * 200
    return as_pretrained(build_vocabulary(texts, recipe["vocabulary"]["size"]))


def new_model(recipe: Recipe, tokenizer: Any) -> Any:
    """An untrained DiffusionGemma of the recipe's size."""
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DiffusionGemmaTextConfig
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    config = DiffusionGemmaConfig(
        text_config=DiffusionGemmaTextConfig(vocab_size=len(tokenizer), **special, **recipe["text"]),
        vision_config=Gemma4VisionConfig(**recipe["vision"]),
        boi_token_id=tokenizer.convert_tokens_to_ids("<|image>"),
        eoi_token_id=tokenizer.convert_tokens_to_ids("<image|>"),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        canvas_length=recipe["canvas"]["length"],
    )
    torch.manual_seed(recipe["seed"])
    model = DiffusionGemmaForBlockDiffusion(config)
    # The library fills this table with ones, which tells no position from another.
    torch.nn.init.normal_(model.model.encoder.vision_tower.patch_embedder.position_embedding_table, std=0.02)
    return model


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    along = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


def _tokenizer_of(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


class _Stream(torch.utils.data.IterableDataset[Batch]):
    """Batches made by worker processes, each from a seed of its own."""

    def __init__(self, tokenizer: Any, size: int, canvas: int, corruption: Corruption, seed: int) -> None:
        self._arguments = (ReportEncoder(tokenizer), size, canvas, corruption)
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        return batches(*self._arguments, seed=(self._seed, worker.id if worker else 0))


class Trainer:
    """One run: model, optimiser, position in the recipe."""

    def __init__(self, recipe: Recipe, options: argparse.Namespace) -> None:
        out, device, init = options.out, options.device, options.init
        self.recipe, self.out, self.device = recipe, out, torch.device(device)
        self.workers, self.fit = options.workers, options.fit
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        self.tokenizer = new_tokenizer(recipe) if init is None else _tokenizer_of(init)
        self.model = new_model(recipe, self.tokenizer).to(self.device)
        use_dense_experts(self.model)
        self.heads = objective.FindingHeads(recipe["text"]["hidden_size"]).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.generator = torch.Generator(self.device).manual_seed(recipe["seed"])
        self.corruption = Corruption(**recipe.settings.get("corruption", {}))
        self.patch = recipe["vision"]["patch_size"]
        side = SIZE // (self.patch * recipe["vision"]["pooling_kernel_size"])
        self.prompts = {style: self._prompt(style, side * side) for style in (*STYLES, None)}
        self.step = {"sight": 0, "training": 0}
        self.optimiser: torch.optim.Optimizer | None = None
        self._paint = paint
        if options.compile:
            self._compile()

    def _compile(self) -> None:
        # Every layer of the encoder writes a cache slot of its own and is therefore compiled by itself.
        torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 - there is no public name
        self._paint = torch.compile(paint)
        tower = self.model.model.encoder.vision_tower.encoder.layers
        for layer in [*tower, *self.model.model.encoder.language_model.layers, *self.model.model.decoder.layers]:
            layer.compile()

    def _prompt(self, style: str | None, soft_tokens: int) -> tuple[Tensor, Tensor]:
        prompt: Prompt = build_prompt(self.tokenizer, soft_tokens, instruction(SECTIONS, style))
        return (
            torch.tensor(prompt.ids, device=self.device),
            torch.tensor(prompt.mm_token_type_ids, device=self.device),
        )

    def _optimiser(self, parameters: list[torch.nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
        matrices = [p for p in parameters if p.ndim >= 2]
        others = [p for p in parameters if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": settings.get("weight_decay", 0.0)},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=settings["learning_rate"], betas=(0.9, 0.95), fused=self.device.type == "cuda"
        )

    def _images(self, anatomy: Any) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return objective.patches(self._paint(*ingredients(anatomy, self.generator)), self.patch)

    def _batches(self, phase: str) -> Iterator[Batch]:
        size, canvas = self.recipe[phase]["batch"], self.recipe["canvas"]["length"]
        seed = self.recipe["seed"] + self.step[phase] + (1 << 20 if phase == "training" else 0)
        stream = _Stream(self.tokenizer, size, canvas, self.corruption, seed)
        return iter(
            torch.utils.data.DataLoader(
                stream, batch_size=None, num_workers=self.workers, prefetch_factor=4 if self.workers else None
            )
        )

    def sight(self, until: float) -> None:
        """Train the vision tower with the auxiliary classifiers alone."""
        encoder = self.model.model.encoder
        parameters = [*encoder.vision_tower.parameters(), *encoder.embed_vision.parameters(), *self.heads.parameters()]
        self._loop("sight", list(parameters), self._sight_loss, until)

    def training(self, until: float) -> None:
        """Train everything to denoise reports."""
        parameters = [*self.model.parameters(), *self.heads.parameters()]
        self._loop("training", parameters, self._training_loss, until)

    def writing(self, until: float, studies: int) -> None:
        """Train the text stack alone on a fixed set of encoded studies: what a CPU can do in an hour."""
        encoder = self.model.model.encoder
        frozen = {id(p) for part in (encoder.vision_tower, encoder.embed_vision) for p in part.parameters()}
        parameters = [p for p in self.model.parameters() if id(p) not in frozen]
        rng = np.random.default_rng([self.recipe["seed"], self.step["training"], 7])
        drawn = draw_findings(studies, rng)
        tokens = self._encoded(drawn, rng)
        size, canvas = self.recipe["training"]["batch"], self.recipe["canvas"]["length"]
        reports = ReportEncoder(self.tokenizer)

        def some() -> Iterator[tuple[Batch, Tensor]]:
            while True:
                chosen = rng.choice(studies, size)
                yield batch(reports, size, canvas, self.corruption, rng, drawn[chosen]), tokens[chosen]

        self._loop("training", parameters, lambda both: self._denoising(*both), until, some())

    def _encoded(self, drawn: Any, rng: np.random.Generator) -> Tensor:
        """Image tokens of studies, shape (studies, soft tokens, hidden), in portions."""
        portions = []
        for start in range(0, len(drawn), 16):
            with torch.no_grad():
                values, positions = self._images(draw_anatomy(drawn[start : start + 16], rng))
                portions.append(objective.encode_image(self.model, values, positions))
        return torch.cat(portions)

    def _sight_loss(self, drawn: Batch) -> dict[str, Tensor]:
        values, positions = self._images(drawn.anatomy)
        tokens = objective.encode_image(self.model, values, positions)
        auxiliary, right = self.heads.loss(tokens.float(), torch.from_numpy(drawn.findings).to(self.device))
        return {"loss": auxiliary, "auxiliary": auxiliary, "seen": right}

    def _training_loss(self, drawn: Batch) -> dict[str, Tensor]:
        values, positions = self._images(drawn.anatomy)
        tokens = objective.encode_image(self.model, values, positions)
        auxiliary, right = self.heads.loss(tokens.float(), torch.from_numpy(drawn.findings).to(self.device))
        denoising = self._denoising(drawn, tokens)["loss"]
        weight = self.recipe["training"]["auxiliary_weight"]
        return {"loss": denoising + weight * auxiliary, "denoising": denoising, "auxiliary": auxiliary, "seen": right}

    def _denoising(self, drawn: Batch, tokens: Tensor) -> dict[str, Tensor]:
        cache = objective.encode_prompt(self.model, *self.prompts[drawn.style], tokens)
        target, shown, noise = (
            torch.from_numpy(each).to(self.device) for each in (drawn.target_BL, drawn.canvas_BL, drawn.noise_BL)
        )
        canvas = objective.with_noise(shown, noise, len(self.tokenizer), self.generator)
        return {"loss": objective.denoising_loss(self.model, cache, canvas, target, self.generator)}

    def _loop(
        self,
        phase: str,
        parameters: list[torch.nn.Parameter],
        loss: Any,
        until: float,
        drawn_from: Iterator[Any] | None = None,
    ) -> None:
        settings = self.recipe[phase]
        steps, size = settings["steps"], settings["batch"]
        if self.step[phase] >= steps:
            return
        self.optimiser = optimiser = self._optimiser(parameters, settings)
        self._resume_optimiser(phase)
        began, first = time.monotonic(), self.step[phase]
        measured = saved = began
        for drawn in drawn_from or self._batches(phase):
            step = self.step[phase]
            rate = learning_rate(step, steps, settings["learning_rate"], settings.get("warm_up", 100))
            for group in optimiser.param_groups:
                group["lr"] = rate
            # Without its cache: a weight first cast under no_grad, for self-conditioning, would lose its gradient.
            with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False):
                parts = loss(drawn)
            optimiser.zero_grad(set_to_none=True)
            parts["loss"].backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.get("gradient_clip", 1.0))
            optimiser.step()
            if phase == "training":
                self._average(step)
            self.step[phase] = step + 1
            if self.fit and step + 1 == first + _MEASURE_AFTER + _MEASURE:
                steps = self._fitted(phase, steps, step + 1, measured, until)
            elif step + 1 == first + _MEASURE_AFTER:
                measured = time.monotonic()
            if step % _LOG_EVERY == 0 or step + 1 == steps:
                self._log(phase, step, steps, size, parts, rate, (time.monotonic() - began, first))
            if time.monotonic() - saved > 60 * _SAVE_MINUTES:
                saved = time.monotonic()
                self.save_state()
                self.save_checkpoint()
            if step + 1 == steps:
                self.optimiser = None
                break
            if time.monotonic() > until:
                break

    def _fitted(self, phase: str, steps: int, done: int, since: float, until: float) -> int:
        """The number of steps that end in time, at the pace measured over the last `_MEASURE` steps."""
        pace = (time.monotonic() - since) / _MEASURE
        left = until - time.monotonic() if phase == "training" else math.inf
        fitted = min(steps, done + int(0.98 * left / pace)) if left < math.inf else steps
        self.recipe[phase]["steps"] = fitted
        print(json.dumps({"phase": phase, "seconds per step": round(pace, 4), "steps": fitted}), flush=True)
        return fitted

    def _average(self, step: int) -> None:
        """Exponential average of the weights: what is saved and served."""
        decay = min(self.recipe["training"]["average_decay"], (step + 1) / (step + 10))
        current = self.model.state_dict()
        floats = [name for name, value in self.average.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floats], [current[n] for n in floats], 1 - decay)

    def _log(
        self, phase: str, step: int, steps: int, size: int, parts: dict[str, Tensor], rate: float, clock: Any
    ) -> None:
        elapsed, first = clock
        per_step = elapsed / max(1, step + 1 - first)
        line = {"phase": phase, "step": step, "of": steps, "lr": round(rate, 6)}
        line |= {name: round(float(value.detach()), 5) for name, value in parts.items()}
        line |= {"images/s": round(size / per_step), "eta s": round(per_step * (steps - step - 1))}
        print(json.dumps(line), flush=True)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    @property
    def finished(self) -> bool:
        """Whether every step of the recipe has been made."""
        return bool(self.step["training"] >= self.recipe["training"]["steps"])

    def save_state(self) -> None:
        """Write what a later run needs to go on, over the previous state only when it is whole."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "average": self.average,
            "step": self.step,
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "generator": self.generator.get_state(),
        }
        torch.save(state, self.out / "state.tmp")
        (self.out / "state.tmp").replace(self.out / "state.pt")

    def begin_from(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint; optimiser and auxiliary classifiers begin anew."""
        from transformers import DiffusionGemmaForBlockDiffusion

        trained = DiffusionGemmaForBlockDiffusion.from_pretrained(checkpoint, dtype=torch.float32)
        self.model.load_state_dict(trained.state_dict())
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def resume(self) -> None:
        """Go on from `state.pt` in the output folder if there is one."""
        path = self.out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.average, self.step = state["average"], state["step"]
        self.generator.set_state(state["generator"].cpu())
        self._resumed = state["optimiser"]

    _resumed: Any = None

    def _resume_optimiser(self, phase: str) -> None:
        if self._resumed is not None and self.step[phase] > 0 and self.optimiser is not None:
            self.optimiser.load_state_dict(self._resumed)
        self._resumed = None

    def save_checkpoint(self) -> None:
        """Write the averaged weights in the ordinary format: configuration, tokenizer, image processor, safetensors."""
        save_checkpoint(self.recipe, self.average, self.tokenizer, self.out)


def save_checkpoint(recipe: Recipe, weights: dict[str, Tensor], tokenizer: Any, out: Path) -> None:
    """Write a checkpoint that the 26B model's code loads too, in parts of under 16 MB."""
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
        DiffusionGemmaGenerationConfig,
        EntropyBoundSamplerConfig,
    )

    from inlay_model.loading import make_image_processor

    model = new_model(recipe, tokenizer)
    model.load_state_dict(weights)
    model.generation_config = DiffusionGemmaGenerationConfig(
        max_new_tokens=recipe["canvas"]["length"],
        max_denoising_steps=16,
        # Chosen on phantoms of seed 1: the library's defaults (0.1, 0.4, 0.8) leave one report in seven unsettled
        # after 16 steps and 3 % of them wrong for it.
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.3),
        t_min=0.3,
        t_max=0.6,
        stability_threshold=1,
        confidence_threshold=0.005,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<turn|>")],
    )
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size="12MB")
    tokenizer.save_pretrained(out)
    vision = recipe["vision"]
    make_image_processor(
        max_soft_tokens=recipe["image"]["max_soft_tokens"],
        patch_size=vision["patch_size"],
        pooling_kernel_size=vision["pooling_kernel_size"],
    ).save_pretrained(out)
    card = {"demonstration": True, "name": recipe["name"], "locked_in_prompt": False, "styles": list(STYLES)}
    card["foretells_length"] = recipe.settings.get("corruption", {}).get("shift", 0) > 0
    (out / "inlay.json").write_text(json.dumps(card, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model train`."""
    parser = argparse.ArgumentParser(prog="inlay model train", description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="recipe, for example model/configs/phantom-diffusion.toml"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for log, state and checkpoint")
    parser.add_argument("--init", type=Path, help="checkpoint of the same recipe whose weights to begin from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=8, help="processes that write reports (default 8)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long; run again to go on")
    parser.add_argument("--compile", action="store_true", help="compile layers: about a minute to start, then faster")
    parser.add_argument("--studies", type=int, help="keep the eyes fixed and train the text stack on so many studies")
    parser.add_argument("--fit", action="store_true", help="shorten the last phase so that it ends within --minutes")
    parser.add_argument("--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="change the recipe")
    arguments = parser.parse_args(argv)
    recipe = Recipe.read(arguments.config)
    for change in arguments.set:
        name, value = change.split("=", 1)
        table, key = name.split(".", 1)
        recipe[table][key] = json.loads(value)
    arguments.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * arguments.minutes
    trainer = Trainer(recipe, arguments)
    print(f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.1f} M parameters", flush=True)
    if arguments.init is not None:
        trainer.begin_from(arguments.init)
    trainer.resume()
    if arguments.studies is not None:
        trainer.writing(until, arguments.studies)
    else:
        trainer.sight(until)
        if time.monotonic() < until:
            trainer.training(until)
    trainer.save_state()
    trainer.save_checkpoint()
    return 0 if trainer.finished else 3


if __name__ == "__main__":
    sys.exit(main())
