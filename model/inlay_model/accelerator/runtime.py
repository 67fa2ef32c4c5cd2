"""The accelerated model: encodes prompts, reads canvases, takes denoising steps, each by replaying one captured graph.

A runtime belongs to one model on one device and is not for several threads at once. It raises what the device raises
and `Unfit` where a request has no bucket; `accelerated.Accelerated` decides what then happens.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from inlay_model.accelerator.ask import Ask
from inlay_model.accelerator.buckets import Bucket, bucket_for
from inlay_model.accelerator.eyes import Eyes
from inlay_model.accelerator.graphs import Capturer
from inlay_model.accelerator.passes import (
    Beside,
    Machine,
    Taken,
    capped,
    decode_pass,
    logits_pass,
    step_pass,
)
from inlay_model.accelerator.press import Press
from inlay_model.accelerator.reference import Reference
from inlay_model.accelerator.slate import Slate
from inlay_model.accelerator.weights import weights_of
from inlay_model.prefix import Prefix

T = TypeVar("T")


class Runtime:
    """Captured passes over one model, by bucket; captured when first needed."""

    def __init__(self, model: Any, kernels: Reference, *, graphs: bool = True, beside: bool = True) -> None:
        self.weights = weights_of(model)
        self.machine = Machine(self.weights, kernels, Beside(self.weights.device, apart=beside))
        self.capture = Capturer(self.weights.device, enabled=graphs)
        self.canvas = int(model.config.canvas_length)
        self._model = model
        self._rotary = model.model.decoder.rotary_emb
        self.press = Press(self.machine, model, self.capture)
        self.look = Eyes(model, self.capture)
        self._slates: dict[tuple[int, int], Slate] = {}
        self._steps: dict[Bucket, Callable[[], Taken]] = {}
        self._reads: dict[Bucket, Callable[[], Tensor]] = {}
        # The step that all is in place for.
        self._prepared: Ask | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the rooms for prefixes."""
        return sum(slate.nbytes for slate in self._slates.values())

    def encode(
        self,
        ids: tuple[int, ...],
        mm_token_type_ids: tuple[int, ...],
        features_NH: Tensor | None,
        after: Prefix | None = None,
    ) -> Prefix:
        """As `inlay_model.prefix.encode`."""
        return self.press.encode(ids, mm_token_type_ids, features_NH, after)

    def read(
        self, prefixes: Sequence[Prefix], canvas_BL: Tensor, wanted_BL: Tensor, told_BLH: Tensor | None = None
    ) -> Tensor:
        """Logits (float32, N x V) at the wanted positions, row by row, each row on its own prefix."""
        count = int(wanted_BL.sum())
        bucket = self.bucket(prefixes, count)
        slate = self._slate(bucket)
        self._prepared = None
        slate.place(prefixes)
        slate.show(canvas_BL, told_BLH)
        slate.want(wanted_BL)
        return self._captured(self._reads, self._read, bucket)()[:count].clone()

    def prepare(self, ask: Ask) -> None:
        """Put in place what a step needs: queued behind what the device is at, so that it need not be waited for."""
        slate = self._slate(self.bucket(ask.prefixes, len(ask.uniform_N)))
        self._prepared = None
        slate.place(ask.prefixes)
        slate.show(ask.canvas_BL, ask.told_BLH)
        slate.want(ask.locked_BL, value=False)
        slate.order(ask)
        self._prepared = ask

    def step(self, ask: Ask) -> Taken:
        """Take one step with a batch; free are the positions that are not locked."""
        bucket = self.bucket(ask.prefixes, len(ask.uniform_N))
        if self._prepared is not ask:
            self.prepare(ask)
        self._prepared = None
        taken, rows = self._captured(self._steps, self._step, bucket)(), len(ask.canvas_BL)
        return Taken(
            canvas_BL=taken.canvas_BL[:rows].clone(),
            argmax_BL=taken.argmax_BL[:rows].clone(),
            accepted_BL=taken.accepted_BL[:rows].clone(),
            entropy_BL=taken.entropy_BL[:rows].clone(),
            outlook_B3=taken.outlook_B3[:rows].clone(),
            told_BLH=taken.told_BLH[:rows].clone(),
        )

    def release(self) -> None:
        """Give back graphs and rooms; what is needed again is captured again."""
        self._steps.clear()
        self._reads.clear()
        self._slates.clear()
        self._prepared = None
        self.capture.forget()
        self.press = Press(self.machine, self._model, self.capture)
        self.look = Eyes(self._model, self.capture)
        if self.weights.device.type == "cuda":
            torch.cuda.synchronize(self.weights.device)
            torch.cuda.empty_cache()

    def bucket(self, prefixes: Sequence[Prefix], free: int) -> Bucket:
        """The bucket for these prefixes and so many positions; raises `Unfit` where there is none."""
        return bucket_for(len(prefixes), max(prefix.length for prefix in prefixes), free, self.canvas)

    def _captured(
        self, kept: dict[Bucket, Callable[[], T]], work: Callable[[Slate, int], T], bucket: Bucket
    ) -> Callable[[], T]:
        if bucket not in kept:
            kept[bucket] = self.capture(partial(work, self._slate(bucket), bucket.free))
        return kept[bucket]

    def _slate(self, bucket: Bucket) -> Slate:
        key = (bucket.rows, bucket.slots)
        if key not in self._slates:
            self._slates[key] = Slate(self.weights, self._rotary, *key, self.canvas)
        return self._slates[key]

    def _read(self, slate: Slate, count: int) -> Tensor:
        free, _ = slate.narrowed(count)
        normed_TH = decode_pass(self.machine, slate.canvas_BL, slate.told_BLH, slate.rooms, slate.places)
        return capped(self.machine, logits_pass(self.machine, normed_TH, free))

    def _step(self, slate: Slate, count: int) -> Taken:
        free, rule = slate.narrowed(count)
        canvas_BL = torch.where(rule.locked_BL, rule.ids_BL, slate.canvas_BL)
        normed_TH = decode_pass(self.machine, canvas_BL, slate.told_BLH, slate.rooms, slate.places)
        return step_pass(self.machine, logits_pass(self.machine, normed_TH, free), free, rule)
