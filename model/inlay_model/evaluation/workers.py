"""Cases spread over processes: each loads its own models, and results come in no particular order.

Every process has a pipe of its own, so one that dies (killed for its memory, say) is noticed at once and spoils no
other's results.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from inlay_model.errors import ModelError

Case = TypeVar("Case")
Result = TypeVar("Result")
# A job loads what it needs and then gives one result per case; it must be picklable, as a partial of a function is.
Job = Callable[[Sequence[Case]], Iterator[Result]]


class ProcessDied(ModelError):
    """A process of an evaluation ended without a word; the message says how, and what mostly helps."""

    code = "process-died"


def spread(job: Job[Case, Result], cases: Sequence[Case], processes: int) -> Iterator[Result]:
    """The results of all cases; an error in any process is raised here, and `ProcessDied` where one just ends.

    One process means this one, with all its threads; of several each has one thread.
    """
    if processes <= 1 or len(cases) <= 1:
        yield from job(cases)
        return
    spawn = multiprocessing.get_context("spawn")
    workers: dict[Connection, Any] = {}
    try:
        for number in range(min(processes, len(cases))):
            reader, writer = spawn.Pipe(duplex=False)
            worker = spawn.Process(target=_work, args=(job, cases[number::processes], writer), daemon=True)
            worker.start()
            # Only the process holds the writing end now: when it ends, the reading end says so.
            writer.close()
            workers[reader] = worker
        yield from _results(workers)
    finally:
        for worker in workers.values():
            worker.terminate()


def _results(workers: dict[Connection, Any]) -> Iterator[Any]:
    open_ends = set(workers)
    while open_ends:
        for reader in wait(list(open_ends)):
            assert isinstance(reader, Connection)
            try:
                kind, result = reader.recv()
            except EOFError:
                workers[reader].join()
                raise _died(workers[reader].exitcode) from None
            if kind == "error":
                raise result
            if kind == "done":
                open_ends.remove(reader)
            else:
                yield result


def _died(exit_code: int) -> ProcessDied:
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with status {exit_code}"
    return ProcessDied(f"A process {how}. If it is short of memory, fewer help: --processes 1.")


def _work(job: Job[Case, Result], cases: Sequence[Case], results: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        for result in job(cases):
            results.send(("result", result))
        results.send(("done", None))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        results.send(("error", error))
