"""Cases spread over processes: each loads its own models, and results come in no particular order."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Case = TypeVar("Case")
Result = TypeVar("Result")
# A job loads what it needs and then gives one result per case; it must be picklable, as a partial of a function is.
Job = Callable[[Sequence[Case]], Iterator[Result]]


def spread(job: Job[Case, Result], cases: Sequence[Case], processes: int) -> Iterator[Result]:
    """The results of all cases; an error in any process is raised here.

    One process means this one, with all its threads; of several each has one thread.
    """
    if processes <= 1:
        yield from job(cases)
        return
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[object] = spawn.Queue()
    workers = [
        spawn.Process(target=_work, args=(job, cases[number::processes], results), daemon=True)
        for number in range(min(processes, len(cases)))
    ]
    for worker in workers:
        worker.start()
    for _ in cases:
        result = results.get()
        if isinstance(result, Exception):
            raise result
        yield result  # type: ignore[misc] # the queue is not typed; the job's own results come back


def _work(job: Job[Case, Result], cases: Sequence[Case], results: "multiprocessing.Queue[object]") -> None:
    import torch

    torch.set_num_threads(1)
    try:
        for result in job(cases):
            results.put(result)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it, or it would wait for ever
        results.put(error)
