"""The accelerated path of a loaded model, and what happens when it fails: the plain passes go on, a count says so.

`attach` gives a model its path; `inlay_model.prefix` asks `attached` before it computes anything itself. A failure of
a graph or a kernel switches this model to the plain passes (same arithmetic, no graphs, no own kernels) until the
process ends.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

from inlay_model.accelerator.ask import Ask
from inlay_model.accelerator.attached import forget, remember
from inlay_model.accelerator.memory import give_back, named
from inlay_model.accelerator.passes import Taken
from inlay_model.accelerator.reference import Reference
from inlay_model.accelerator.runtime import Runtime
from inlay_model.accelerator.weights import Unfit
from inlay_model.prefix import Prefix

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Accelerated:
    """Runs passes on the fast runtime, and on the plain one once the fast one has failed.

    `counts` has how many passes went which way, and how often what failed: for metrics and for the honest reader.
    """

    def __init__(self, fast: Runtime, plain: Callable[[], Runtime]) -> None:
        self.fast: Runtime | None = fast
        self.counts: Counter[str] = Counter()
        self._plain_made: Runtime | None = None
        self._blind = False
        self._make_plain = plain

    def look(self, values_BPD: Tensor, positions_BP2: Tensor) -> Tensor | None:
        """Soft tokens of images, or nothing where the library's own tower has to look: after its graph has failed.

        What fails here are the library's own layers on fixed tensors, so the other passes stay as they are.
        """
        if self.fast is None or self._blind:
            return None
        try:
            seen_NH = self.fast.look(values_BPD, positions_BP2)
        except Exception as problem:  # noqa: BLE001 - as below
            self._blind = True
            self._note("look", problem, "the library's own goes on")
            return None
        self.counts["look.fast"] += 1
        return seen_NH

    def encode(
        self, ids: tuple[int, ...], types: tuple[int, ...], features_NH: Tensor | None, after: Prefix | None
    ) -> Prefix | None:
        """The encoded prompt, or nothing where the library's own path has to encode it."""
        try:
            return self._run("encode", lambda runtime: runtime.encode(ids, types, features_NH, after))
        except Unfit as why:
            self._unfit(why)
            return None

    def read(
        self, prefixes: Sequence[Prefix], canvas_BL: Tensor, wanted_BL: Tensor, logits_BLV: Tensor | None
    ) -> Tensor | None:
        """Logits at the wanted positions, or nothing where there is no bucket for them.

        `logits_BLV` are those of the step before, for loops that take their steps themselves.
        """
        try:
            return self._run(
                "read", lambda runtime: runtime.read(prefixes, canvas_BL, wanted_BL, told_by(runtime, logits_BLV))
            )
        except Unfit as why:
            self._unfit(why)
            return None

    def takes(self, prefixes: Sequence[Prefix], free: int) -> bool:
        """Whether there is a bucket for steps with these prefixes and so many free positions."""
        try:
            (self.fast or self._plain()).bucket(prefixes, free)
        except Unfit as why:
            self._unfit(why)
            return False
        return True

    def prepare(self, ask: Ask) -> None:
        """Put in place what a step needs that is probably asked for next."""
        # What fails here fails again where the step is taken, which deals with it.
        if self.fast is not None:
            with suppress(Exception):
                self.fast.prepare(ask)

    def step(self, ask: Ask) -> Taken:
        """Take one step; ask `takes` before the first of them."""
        return self._run("step", lambda runtime: runtime.step(ask))

    def give_back(self) -> None:
        """Free graphs and rooms; they are made again when needed."""
        for runtime in (self.fast, self._plain_made):
            if runtime is not None:
                runtime.release()

    def _run(self, what: str, work: Callable[[Runtime], T]) -> T:
        if self.fast is not None:
            try:
                done = work(self.fast)
            except Unfit:
                raise
            except Exception as problem:  # noqa: BLE001 - whatever a driver or a compiler raises, the job goes on
                self._failed(what, problem)
            else:
                self.counts[f"{what}.fast"] += 1
                return done
        with named(self._plain().weights.device):
            done = work(self._plain())
        self.counts[f"{what}.plain"] += 1
        return done

    def _plain(self) -> Runtime:
        if self._plain_made is None:
            self._plain_made = self._make_plain()
        return self._plain_made

    def _failed(self, what: str, problem: Exception) -> None:
        assert self.fast is not None
        self._note(what, problem, "the plain passes go on")
        fast, self.fast = self.fast, None
        device = fast.weights.device
        # The traceback holds the tensors of the failed pass.
        problem.__traceback__ = None
        fast.release()
        give_back(device)

    def _note(self, what: str, problem: Exception, instead: str) -> None:
        self.counts[f"failed.{what}.{type(problem).__name__}"] += 1
        _log.warning("The accelerated %s failed (%s); %s.", what, type(problem).__name__, instead, exc_info=problem)

    def _unfit(self, why: Unfit) -> None:
        self.counts["unfit"] += 1
        _log.info("Left to the library's own passes: %s.", why)


def told_by(runtime: Runtime, logits_BLV: Tensor | None) -> Tensor | None:
    """What logits of a whole canvas tell the next step: the embedding that they expect at each position, B x L x H."""
    if logits_BLV is None:
        return None
    weights = runtime.weights
    p_BLV = logits_BLV.softmax(-1, dtype=torch.float32).to(weights.dtype)
    return (p_BLV @ weights.embedding) * weights.embed_scale


def attach(
    model: Any, kernels: Reference | None = None, *, graphs: bool = True, beside: bool = False
) -> Accelerated | None:
    """Give this model the accelerated path, where it is fit for it; on a GPU with Triton's kernels.

    `beside` runs shared MLP and experts on two streams. Returns nothing, and leaves the model as it is, where it is not
    fit.
    """
    try:
        chosen = kernels or best_kernels(next(model.parameters()).device)
        fast = Runtime(model, chosen, graphs=graphs, beside=beside)
    except (Unfit, AttributeError) as why:
        _log.info("This model is not accelerated: %s.", why)
        return None
    path = Accelerated(fast, lambda: Runtime(model, Reference(), graphs=False, beside=False))
    remember(model, path)
    return path


def detach(model: Any) -> None:
    """Take the accelerated path away again."""
    found = forget(model)
    if found is not None:
        found.give_back()


def best_kernels(device: torch.device) -> Reference:
    """Triton's kernels on a GPU where Triton can launch them; else PyTorch operations."""
    if device.type != "cuda" or _unready() is not None:
        return Reference()
    from inlay_model.accelerator.fused import Fused

    return Fused()


@cache
def _unready() -> str | None:
    """Why Triton cannot be used here, which is logged once, or nothing.

    It compiles its launcher where it runs: with a C compiler, Python's headers, the driver's library and a folder for
    it. Asked for while loading, when what failed may be quoted: no job has been seen yet.
    """
    if find_spec("triton") is None:
        why = "it is not installed"
    else:
        try:
            from triton.runtime.driver import driver

            _ = driver.active.utils
        except Exception as problem:  # noqa: BLE001 - it asserts, and passes on what compiler, linker and disk raise
            why = f"{type(problem).__name__}: {problem}"
        else:
            return None
    _log.warning("Triton cannot launch kernels (%s): those of PyTorch are used.", why)
    return why
