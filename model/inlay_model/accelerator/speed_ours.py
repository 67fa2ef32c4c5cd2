"""Our side of the speed suite: steps, drafts, batches and infills on the accelerated path."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from inlay_model.accelerator.accelerated import Accelerated, detach
from inlay_model.accelerator.precision import apply_precision, packed_bytes
from inlay_model.accelerator.record import Record, timed
from inlay_model.accelerator.speed_case import Case, fast_runtime, forget
from inlay_model.call import teller
from inlay_model.encoding import patches_of
from inlay_model.engine import Engine
from inlay_model.generate import Denoised, denoising
from inlay_model.loading import About, Checkpoint, make_image_processor
from inlay_model.passes import Passes, driven, on
from inlay_model.pixels import as_picture
from inlay_model.prefix import Decoder, Prefix, encode
from inlay_model.request import Gap, GenerationSettings, Lock, Section, StepEvent
from inlay_model.schedule import Sampler
from inlay_model.step import Fixed, Step
from inlay_model.streaming import Stream
from inlay_model.together import Readers, Tally, together
from inlay_model.tokens import control_tokens
from inlay_model.vision import encode_images, seen_by_library


def sampler(steps: int) -> Sampler:
    """All steps are taken: random weights never settle."""
    return Sampler(steps, 0.4, 0.8, 0.1, 1, 0.005, early_stop=False)


def denoised(
    case: Case,
    model: Any,
    prefix: Prefix,
    steps: int,
    rows: int = 1,
    on_step: Callable[[int, Step], None] | None = None,
) -> Denoised:
    """Whole canvases, nothing locked, denoised on one prefix."""
    return driven(_work(case, model, steps, rows, on_step=on_step), Decoder(model, prefix, rows))


def requested(case: Case, model: Any, prefix: Prefix, steps: int, requests: int) -> list[Denoised | Exception]:
    """Requests of one canvas and one seed each, batched as a worker batches them."""
    works = [(on([prefix], _work(case, model, steps, seed=seed)), Tally()) for seed in range(requests)]
    return together(works, Readers(model), requests)


def _work(
    case: Case,
    model: Any,
    steps: int,
    rows: int = 1,
    seed: int = 0,
    on_step: Callable[[int, Step], None] | None = None,
) -> Passes[Denoised]:
    fixed = Fixed(
        torch.zeros(rows, case.canvas, dtype=torch.int64, device=case.device),
        torch.zeros(rows, case.canvas, dtype=torch.bool, device=case.device),
    )
    words = model.config.text_config.vocab_size
    generator = torch.Generator(case.device).manual_seed(seed)
    return denoising(fixed, sampler(steps), words, generator, dtype=case.dtype, on_step=on_step)


def draft(case: Case, model: Any, tokenizer: Any, steps: int) -> str:
    """From the ids of a prompt to text."""
    return str(tokenizer.decode(denoised(case, model, case.prefix(model), steps).ids_BL[0].tolist()))


def drafts(case: Case, record: Record) -> None:
    """Step, drafts and batch in bf16."""
    model = case.diffusion()
    path = case.attached(model, record.figures.get("tiles"))
    tokenizer = case.tokenizer()
    _step(case, record, model, path, "step_ms", rows=1)
    record.attempt("ours", "step_told_ms", partial(_told, case, record, model, tokenizer))
    record.attempt("ours", "look_ms", partial(_look, case, record, model))
    record.attempt("ours", "prefill_ms", lambda: _prefill(case, record, model))
    for steps in (16, 32, 48):
        record.attempt("ours", f"draft{steps}_s", partial(_draft, case, record, model, tokenizer, steps))
    _step(case, record, model, path, "batch8_step_ms", rows=8)
    record.attempt("ours", "batch8_requests_step_ms", partial(_requests, case, record, model, 8))
    _step(case, record, model, path, "batch4_step_ms", rows=4)
    _seal(record, model, path, "bf16")


def eight_bits(case: Case, record: Record) -> None:
    """The same with experts in fp8."""
    _packed(case, record, "fp8", "step_fp8_ms")


def four_bits(case: Case, record: Record) -> None:
    """Step and memory with experts in 4 bits."""
    _packed(case, record, "4bit", "step_4bit_ms")


def infills(case: Case, record: Record) -> None:
    """Infills of 8 steps through the engine: prefix cached, a gap of 40 tokens or of unknown length up to that."""
    model, tokenizer = case.diffusion(), case.tokenizer()
    path = case.attached(model, record.figures.get("tiles"))
    processor = make_image_processor(max_soft_tokens=70 if case.toy else 280)

    def engine_of(*, foretells: bool) -> Engine:
        about = About(name="random-26B", foretells_length=foretells)
        control = control_tokens(tokenizer)
        return Engine(Checkpoint(model, tokenizer, processor, control, about, "random", "random", None))

    # A checkpoint trained on misplaced text looks at few lengths, any other at all of them.
    shortlisting, searching = engine_of(foretells=True), engine_of(foretells=False)
    image = np.random.default_rng(3).integers(0, 256, (384, 384) if case.toy else (1024, 1024), dtype=np.uint8)
    before, after = Lock("The heart is normal in size."), Lock("No pneumothorax.")
    cases = {
        "infill8_s": (shortlisting, Gap(40, 40)),
        "infill8_search_s": (shortlisting, Gap(0, 40)),
        "infill8_search_all_s": (searching, Gap(0, 40)),
    }

    def asked(gap: Gap) -> list[Section]:
        return [Section("findings", (before, gap, after)), Section("impression", (Lock("No acute findings."),))]

    settings = GenerationSettings(steps=8, early_stop=False, begin_again=False, fill_attempts=1)
    for name, (engine, gap) in cases.items():

        def once(engine: Engine = engine, gap: Gap = gap) -> None:
            engine.infill([image], asked(gap), settings=settings)

        def work(name: str = name, once: Callable[[], None] = once) -> None:
            record.measure("ours", name, timed(once, case.rounds, warm=2))
            fast_runtime(path)

        record.attempt("ours", name, work)
    tokens = [kept.length for kept in shortlisting.prefixes._kept.values()]  # noqa: SLF001
    record.put("infill", "prefix_tokens", max(tokens, default=0))
    record.put("infill", "passes", dict(path.counts))
    _seal(record, model, path, "infill")


def _packed(case: Case, record: Record, precision: str, step: str) -> None:
    model = case.diffusion()
    apply_precision(model, precision, case.device)
    path = case.attached(model, record.figures.get("tiles"))
    record.put("memory", f"{precision}_experts_gib", round(packed_bytes(model) / 2**30, 2))
    _step(case, record, model, path, step, rows=1)
    tokenizer = case.tokenizer()
    name = f"draft16_{precision}_s"
    record.attempt("ours", name, lambda: _draft(case, record, model, tokenizer, 16, name))
    _seal(record, model, path, precision)


def _step(case: Case, record: Record, model: Any, path: Accelerated, name: str, rows: int) -> None:
    """Milliseconds per step of a run, host included; beside it those of the graph alone."""
    steps = case.steps

    def work() -> None:
        prefix = case.prefix(model)
        rounds = timed(lambda: denoised(case, model, prefix, steps, rows), case.rounds)
        fast_runtime(path)
        record.measure("ours", name, [1000 * seconds / steps for seconds in rounds], 3)
        graphs = list(fast_runtime(path)._steps.items())  # noqa: SLF001
        replay = next(replay for bucket, replay in graphs if bucket.rows == rows)
        alone = timed(lambda: [replay() for _ in range(steps)], case.rounds)
        record.measure("ours", f"{name.removesuffix('_ms')}_graph_ms", [1000 * each / steps for each in alone], 3)

    record.attempt("ours", name, work)


def _told(case: Case, record: Record, model: Any, tokenizer: Any) -> None:
    """A step of a run of which somebody hears every canvas, decoded."""
    steps, heard = case.steps, 0
    prefix = case.prefix(model)

    def hear(event: StepEvent) -> None:
        nonlocal heard
        heard += bool(event.shown.text)

    def once() -> None:
        with Stream(hear) as stream:
            tell = teller(stream, tokenizer, control_tokens(tokenizer), case.canvas, steps)
            denoised(case, model, prefix, steps, on_step=tell)

    record.measure("ours", "step_told_ms", [1000 * seconds / steps for seconds in timed(once, case.rounds)], 3)
    if not heard:
        raise RuntimeError("nobody heard a canvas")


def _requests(case: Case, record: Record, model: Any, requests: int) -> None:
    """A step of requests with seeds of their own, as a worker takes it."""
    steps, prefix = case.steps, case.prefix(model)

    def once() -> None:
        failed = [answer for answer in requested(case, model, prefix, steps, requests) if isinstance(answer, Exception)]
        if failed:
            raise failed[0]

    rounds = timed(once, case.rounds)
    record.measure("ours", f"batch{requests}_requests_step_ms", [1000 * seconds / steps for seconds in rounds], 3)


def _look(case: Case, record: Record, model: Any) -> None:
    """The vision tower's look at one image of 1,024 rows and columns, by its graph and by the library's own passes."""
    processor = make_image_processor(max_soft_tokens=70 if case.toy else 280)
    image = np.random.default_rng(3).integers(0, 256, (384, 384) if case.toy else (1024, 1024), dtype=np.uint8)
    given = patches_of(processor, model, [as_picture(image)])
    found: dict[str, torch.Tensor] = {}
    for name, work in (("look_ms", encode_images), ("look_library_ms", seen_by_library)):
        record.measure(
            "ours", name, [1000 * seconds for seconds in timed(partial(work, model, *given), case.rounds)], 2
        )
        found[name] = work(model, *given)
    ours, theirs = (each.float() for each in found.values())
    record.put("parity", "look", float(f"{(ours - theirs).norm() / theirs.norm():.2e}"))


def _prefill(case: Case, record: Record, model: Any) -> None:
    ids = case.ids()
    rounds = timed(lambda: encode(model, ids, (0,) * len(ids), None), case.rounds)
    record.measure("ours", "prefill_ms", [1000 * seconds for seconds in rounds], 2)


def _draft(case: Case, record: Record, model: Any, tokenizer: Any, steps: int, name: str | None = None) -> None:
    rounds = timed(lambda: draft(case, model, tokenizer, steps), case.rounds)
    record.measure("ours", name or f"draft{steps}_s", rounds)
    if name is None:
        record.put("ours", f"tokens_per_s_{steps}", round(case.canvas / sorted(rounds)[len(rounds) // 2], 1))


def _seal(record: Record, model: Any, path: Accelerated, name: str) -> None:
    """Keep the memory, and which way the passes went; a fallback would show here."""
    record.put("passes", name, {**path.counts, "fast": path.fast is not None})
    if torch.cuda.is_available():
        record.put("memory", f"{name}_gib", round(torch.cuda.memory_allocated() / 2**30, 2))
        record.put("memory", f"{name}_peak_gib", round(torch.cuda.max_memory_allocated() / 2**30, 2))
        torch.cuda.reset_peak_memory_stats()
    detach(model)
    forget()
