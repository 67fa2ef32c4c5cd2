"""Several requests at once: each is a piece of work of its own, and the passes that they need are done together.

A request is told nothing of its neighbours: it keeps its generator, its sampler and its end, may be cancelled and may
fail by itself. Where a shared pass fails, each of its views is read by itself, and only the one at fault ends.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from inlay_model.passes import Passes, Stepper, Underway, View, takes_step
from inlay_model.prefix import Decoder, Prefix
from inlay_model.rows import below_each_other

T = TypeVar("T")

# A draft needs one decoder; a gap two or three (its anchors, its looks, its text). What is older is built again.
_DECODERS_KEPT = 4


class RowReader(Protocol):
    """A reader of rows that may be in their first step while others are not; `inlay_model.prefix.Decoder` is one."""

    def __call__(
        self,
        canvas_BL: torch.Tensor,
        wanted_BL: torch.Tensor,
        conditioning_BLV: torch.Tensor | None = None,
        conditioned_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits N x V at the wanted positions."""


MakeReader = Callable[[Any, Sequence[Prefix]], RowReader]


@dataclass(slots=True)
class Tally:
    """What a piece of work has used: its passes, and with how many pieces (itself included) it shared one at most."""

    passes: int = 0
    shared: int = 1


class Readers:
    """Reads views on whatever prefixes they name; the readers of the last few sets of prefixes are kept."""

    def __init__(self, model: Any, make: MakeReader = Decoder) -> None:
        self._model = model
        self._make = make
        self._kept: OrderedDict[tuple[int, ...], tuple[tuple[Prefix, ...], RowReader]] = OrderedDict()

    def __call__(self, views: Sequence[View]) -> list[torch.Tensor]:
        """The logits of each view, all of them read in one pass."""
        strides = [view.stride for view in views if view.stride is not None and self.are_steps(view)]
        if len(strides) == len(views):
            reader = self._reader(_prefixes(views))
            assert isinstance(reader, Stepper)
            return [reader.step(strides)] * len(views)
        view, conditioned_B = merged(views)
        reader = self._reader(view.prefixes)
        logits_NV = reader(view.canvas_BL, view.wanted_BL, view.conditioning_BLV, conditioned_B)
        if len(views) == 1:
            return [logits_NV]
        return list(logits_NV.split([int(view.wanted_BL.sum()) for view in views]))

    def prepare(self, views: Sequence[View | None]) -> None:
        """Have ready what these views need, if they are what a pass now under way is followed by."""
        following = [view for view in views if view is not None]
        strides = [view.stride for view in following if view.stride is not None]
        if views and len(strides) == len(views):
            reader = self._reader(_prefixes(following))
            assert isinstance(reader, Stepper)
            reader.prepare(strides)

    def are_steps(self, view: View) -> bool:
        """Whether this view is answered by a step that the model takes itself; others must not be read with it."""
        return takes_step(view, self._make(self._model, view.prefixes))

    def forget(self) -> None:
        """Give the memory of all readers back, to the device too."""
        self._kept.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _reader(self, prefixes: tuple[Prefix, ...]) -> RowReader:
        # The prefixes are kept beside their reader, so that their identities stay theirs.
        key = tuple(id(prefix) for prefix in prefixes)
        if key not in self._kept:
            self._kept[key] = prefixes, self._make(self._model, prefixes)
        self._kept.move_to_end(key)
        while len(self._kept) > _DECODERS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key][1]


def merged(views: Sequence[View]) -> tuple[View, torch.Tensor | None]:
    """These views as one, and per row whether it has conditioning; None where all rows have, or none has."""
    if len(views) == 1:
        return views[0], None
    told = [view.conditioning_BLV is not None for view in views]
    conditioning_BLV, conditioned_B = None, None
    if any(told):
        given = next(view.conditioning_BLV for view in views if view.conditioning_BLV is not None)
        rows = [
            given.new_zeros(view.rows, *given.shape[1:]) if view.conditioning_BLV is None else view.conditioning_BLV
            for view in views
        ]
        conditioning_BLV = torch.cat(rows)
    if any(told) and not all(told):
        by_row = [known for view, known in zip(views, told, strict=True) for _ in range(view.rows)]
        conditioned_B = torch.tensor(by_row, device=views[0].canvas_BL.device)
    canvas_BL = below_each_other([view.canvas_BL for view in views])
    wanted_BL = below_each_other([view.wanted_BL for view in views])
    return View(canvas_BL, wanted_BL, conditioning_BLV, _prefixes(views)), conditioned_B


def _prefixes(views: Sequence[View]) -> tuple[Prefix, ...]:
    return tuple(prefix for view in views for prefix in view.prefixes)


def together(
    works: Sequence[tuple[Passes[T], Tally]],
    readers: Readers,
    most_rows: int,
    finished: Callable[[int, T | Exception], None] | None = None,
) -> list[T | Exception]:
    """The results of all pieces of work, in their order; an exception stands where one failed.

    A pass has at most `most_rows` canvases, or those of one view where that has more. `finished` hears of every result,
    by the place of its work, as soon as there is one, while others go on.
    """
    results: dict[int, T | Exception] = {}
    waiting: dict[int, View] = {}
    # Whose answer is under way, and what they ask for next.
    behind: dict[int, View | None] = {}

    def end(number: int, result: T | Exception) -> None:
        results[number] = result
        if finished is not None:
            finished(number, result)

    def go_on(number: int, answer: torch.Tensor | Exception | None) -> None:
        work, _ = works[number]
        try:
            if isinstance(answer, Exception):
                asked = work.throw(answer)
            else:
                asked = next(work) if answer is None else work.send(answer)
        except StopIteration as ended:
            end(number, ended.value)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this piece's alone
            end(number, error)
        else:
            if isinstance(asked, Underway):
                behind[number] = asked.following
            else:
                waiting[number] = asked

    def catch_up() -> None:
        readers.prepare(list(behind.values()))
        while behind:
            number = next(iter(behind))
            del behind[number]
            go_on(number, None)

    for number in range(len(works)):
        go_on(number, None)
    catch_up()
    while waiting:
        for group in _groups(waiting, most_rows, readers.are_steps):
            views = [waiting.pop(number) for number in group]
            for _, tally in (works[number] for number in group):
                tally.passes += 1
                tally.shared = max(tally.shared, len(group))
            for number, answer in zip(group, _answers(views, readers), strict=True):
                go_on(number, answer)
            catch_up()
    return [results[number] for number in range(len(works))]


def _groups(waiting: dict[int, View], most_rows: int, kind: Callable[[View], bool]) -> list[list[int]]:
    """Numbers of views that are read in one pass: each goes into the first pass of its kind that has room for it."""
    groups: list[list[int]] = []
    taken: list[tuple[bool, int]] = []
    for number, view in sorted(waiting.items()):
        its = kind(view)
        fits = (at for at, (kept, rows) in enumerate(taken) if kept == its and rows + view.rows <= most_rows)
        found = next(fits, len(groups))
        if found == len(groups):
            groups.append([])
            taken.append((its, 0))
        groups[found].append(number)
        taken[found] = its, taken[found][1] + view.rows
    return groups


def _answers(views: Sequence[View], readers: Readers) -> list[torch.Tensor | Exception]:
    try:
        return list(readers(views))
    except Exception as error:  # noqa: BLE001 - the view at fault is found by reading each by itself
        readers.forget()
        if len(views) == 1:
            return [error]
    return [answer for view in views for answer in _answers([view], readers)]
