"""The other sides of the speed suite: transformers' generate, eager and compiled, of diffusion model and sibling."""

import time
from typing import Any

import torch

from inlay_model.accelerator.record import Record, timed
from inlay_model.accelerator.speed_case import Case


def diffusion_eager(case: Case, record: Record) -> None:
    """As it loads by default."""
    _diffusion(case, record, "transformers_eager", {})


def diffusion_compiled(case: Case, record: Record) -> None:
    """With the static cache, for which it compiles encoder, decoder and sampler."""
    _diffusion(case, record, "transformers_compiled", {"cache_implementation": "static"})


def sibling_eager(case: Case, record: Record) -> None:
    """256 tokens one by one."""
    _sibling(case, record, "sibling_eager", {})


def sibling_compiled(case: Case, record: Record) -> None:
    """With the static cache, for which it compiles the forward pass."""
    _sibling(case, record, "sibling_compiled", {"cache_implementation": "static"})


def _diffusion(case: Case, record: Record, group: str, settings: dict[str, Any]) -> None:
    model = case.diffusion()
    tokenizer = case.tokenizer()
    ids_1T = torch.tensor([case.ids()], device=case.device)

    def draft(steps: int) -> str:
        out = model.generate(
            input_ids=ids_1T,
            mm_token_type_ids=torch.zeros_like(ids_1T),
            max_denoising_steps=steps,
            max_new_tokens=case.canvas,
            # It has no switch for early stopping; no entropy is below this threshold.
            confidence_threshold=1e-30,
            eos_token_id=None,
            **settings,
        )
        return str(tokenizer.decode(out.sequences[0, ids_1T.shape[1] :].tolist()))

    _first(record, group, lambda: draft(16))
    seconds: dict[int, float] = {}
    for steps in (16, 32, 48):

        def work(steps: int = steps) -> None:
            rounds = timed(lambda: draft(steps), case.rounds)
            record.measure(group, f"draft{steps}_s", rounds)
            seconds[steps] = record.figures[group][f"draft{steps}_s"]
            record.put(group, f"tokens_per_s_{steps}", round(case.canvas / seconds[steps], 1))

        record.attempt(group, f"draft{steps}_s", work)
    if 16 in seconds and 48 in seconds:
        # The prefill falls out of the difference.
        record.put(group, "step_ms", round(1000 * (seconds[48] - seconds[16]) / 32, 2))


def _sibling(case: Case, record: Record, group: str, settings: dict[str, Any]) -> None:
    model = case.sibling()
    tokenizer = case.tokenizer()
    ids_1T = torch.tensor([case.ids()], device=case.device)

    def write() -> str:
        out = model.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=case.canvas,
            min_new_tokens=case.canvas,
            do_sample=False,
            pad_token_id=0,
            **settings,
        )
        return str(tokenizer.decode(out[0, ids_1T.shape[1] :].tolist()))

    _first(record, group, write)
    rounds = timed(write, max(2, case.rounds // 2))
    record.measure(group, "tokens256_s", rounds)
    record.put(group, "tokens_per_s", round(case.canvas / record.figures[group]["tokens256_s"], 1))


def _first(record: Record, group: str, work: Any) -> None:
    """The first run, in which libraries choose and compile: its time is kept beside the others."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    record.put(group, "first_run_s", round(time.perf_counter() - began, 1))
