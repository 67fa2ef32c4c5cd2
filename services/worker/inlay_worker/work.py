"""The work itself: claim jobs until there are none, and bring each to an end that the database knows.

A job that fails never ends the worker; a worker that loses its lease, or is told to end, leaves the job to others.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from inlay_core.application.drafting import (
    apply_result,
    claim_next,
    fail_job,
    images_missing,
    start_generation,
    stop_job,
)
from inlay_core.application.ports import Applied, Claimed, Generated, NewUnitOfWork, Progress, Site, StepProgress
from inlay_core.application.tracing import NO_TRACER, Span, Tracer, failure_of, under
from inlay_core.domain.errors import DomainError, Stale, Unavailable
from inlay_core.domain.identity import system
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.infill import KeptText
from inlay_core.domain.job import Job, JobKind, JobState
from inlay_core.logs import get_logger
from inlay_model import Cancelled, Stage, StepEvent
from inlay_model.streaming import Stream
from inlay_worker.failures import is_unexpected, reason_of
from inlay_worker.generation import Asked, Generation, OnStep
from inlay_worker.images import Studies, Study
from inlay_worker.lease import Lease

_log = get_logger(__name__)

WORKER: Final = system("worker")
# Celery gets its turn (signals, pings, the broker's connection) at least this often on a busy day. Far below Redis'
# visibility timeout of an hour, after which the wake-up would be handed to a second worker.
LONGEST_TURN_SECONDS: Final = 600.0
# After so many jobs in a row ended in errors nobody foresaw, the process itself is suspect (a lost CUDA context fails
# everything from then on). It ends, and whoever supervises it starts a fresh one.
MOST_FAULTS_IN_A_ROW: Final = 3
# Further jobs of the last so many reports are taken here first. The demonstration model keeps as many encoded; the 26B
# shape about six of them in the 512 MiB of INLAY_PREFIX_CACHE_MIB, and what it saw in the images of about forty.
REPORTS_REMEMBERED: Final = 64
# A run shows some tens; this bounds what one with many rounds keeps.
MOST_CANVASES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended here, perhaps to be done again: seconds by stage, and what became of an infill's locks.

    `locks` were sent with it, `kept` of them stand in the report byte for byte, and the model made `disputes`.
    """

    job: Job
    stages: Mapping[str, float]
    locks: int = 0
    kept: int = 0
    disputes: int = 0


def _unheard(_ended: Ended) -> None:
    """Nobody wants to know."""


class WorkerSuspect(RuntimeError):
    """Too many unexpected failures in a row: the process should be replaced."""


@dataclass(slots=True)
class _Run:
    """A claimed job under way: its lease, what it holds until it ends, and when it began."""

    claimed: Claimed
    lease: Lease
    held: ExitStack
    telling: ExitStack
    began: float
    study: Study | None = None
    ended: bool = False
    # Seconds by stage, as far as it came; `moment` is when the present stage began.
    stages: dict[str, float] = field(default_factory=dict)
    moment: float = 0.0
    # What was told of it, to be played again; the newest is also there where there were too many.
    canvases: list[StepProgress] = field(default_factory=list)
    newest: StepProgress | None = None
    locks: int = 0
    kept: int = 0
    disputes: int = 0
    span: Span = field(default_factory=Span)

    @property
    def job(self) -> Job:
        """The job as it was claimed."""
        return self.claimed.job


@dataclass(slots=True)
class Worker:
    """Everything a worker works with. One thread calls it; `stopping` may be set from anywhere.

    `together` is how many waiting jobs it may take at once: they share the passes of the model, and each keeps its own
    lease, fence, cancellation and end. `busy` is true while it looks for jobs or does one, `looked` is when it last
    ended that; `doing` is how many it does. `stream` makes of a listener one that is told beside the work. `ended`
    hears of each job's end.
    """

    uow: NewUnitOfWork
    reader: NewUnitOfWork
    clock: Clock
    new_id: NewId
    site: Site
    progress: Progress
    studies: Studies
    generation: Generation
    together: int = 1
    stream: Callable[[OnStep], AbstractContextManager[OnStep]] = Stream
    ended: Callable[[Ended], None] = _unheard
    tracer: Tracer = NO_TRACER
    stopping: threading.Event = field(default_factory=threading.Event)
    timer: Callable[[], float] = time.monotonic
    busy: bool = False
    doing: int = 0
    looked: float = 0.0
    _held: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _faults: int = 0

    def __post_init__(self) -> None:
        self.looked = self.timer()

    def work_off(self) -> int:
        """Do jobs until there are none, the worker is stopping, or its turn is over. Return how many were claimed.

        Raises WorkerSuspect after several unexpected failures in a row.
        """
        self.busy = True
        try:
            return self._work_off()
        finally:
            self.looked = self.timer()
            self.busy = False

    def _work_off(self) -> int:
        claimed_jobs = 0
        turn_ends = self.timer() + LONGEST_TURN_SECONDS
        while not self.stopping.is_set() and self.timer() < turn_ends:
            claimed = self._claim_some()
            if not claimed:
                break
            claimed_jobs += len(claimed)
            self.doing = len(claimed)
            try:
                self._do(claimed)
            finally:
                self.doing = 0
            if self._faults >= MOST_FAULTS_IN_A_ROW:
                raise WorkerSuspect
        return claimed_jobs

    def _claim_some(self) -> list[Claimed]:
        """The most urgent jobs, as many as may be done together; none is waited for."""
        some: list[Claimed] = []
        while len(some) < self.together and not self.stopping.is_set() and (claimed := self._claim()) is not None:
            some.append(claimed)
        return some

    def _claim(self) -> Claimed | None:
        try:
            return claim_next(
                self.uow(),
                self.clock,
                self.new_id,
                WORKER,
                site=self.site,
                held_reports=tuple(self._held),
                writer=self.generation.writer,
            )
        except DomainError as error:
            # The database is away. The next wake-up, or the sweeper's, asks again.
            _log.warning("work.cannot_claim", exc_info=error)
            return None

    def _do(self, claimed: Sequence[Claimed]) -> None:
        """Bring these jobs to an end, each of its own. Only a programming error of the core would leave here."""
        with ExitStack() as held:
            runs = [self._begun(one, held.enter_context(ExitStack())) for one in claimed]
            asked: list[tuple[_Run, Asked]] = []
            for run in runs:
                self._settle(run, lambda run=run: self._prepared(run, asked))  # type: ignore[misc]
            if not asked:
                return
            for run, _ in asked:
                run.moment = self.timer()
            try:
                self.generation.generate(
                    [one for _, one in asked], lambda place, answer: self._answered(asked[place][0], answer)
                )
            except Exception as error:  # noqa: BLE001 - what failed for all of them at once is each one's failure.
                for run, _ in asked:
                    if not run.ended:
                        self._answered(run, error)

    def _begun(self, claimed: Claimed, held: ExitStack) -> _Run:
        job = claimed.job
        _log.info("job.claimed", job_id=job.id, kind=str(job.kind), fence=job.fence, attempts=job.attempts)
        lease = Lease(
            job,
            uow=self.uow,
            reader=self.reader,
            clock=self.clock,
            site=self.site,
            writer=self.generation.writer,
            stopping=self.stopping.is_set,
            timer=self.timer,
        )
        run = _Run(claimed, held.enter_context(lease), held, held.enter_context(ExitStack()), self.timer())
        now = self.clock()
        # A job that comes again (its images were missing, its worker died) waited for this since then only.
        if job.fence == 1:
            run.stages["queue"] = (now - job.created_at).total_seconds()
        run.span = self._span_of(job, now)
        return run

    def _span_of(self, job: Job, now: datetime) -> Span:
        """The span of a job's stay here, in the trace that the job belongs to, with its wait before it."""
        span = self.tracer.begin(
            f"job {job.kind}",
            kind="consumer",
            parent=job.traceparent,
            began=now,
            job_id=job.id,
            report_id=job.report_id,
            job_kind=str(job.kind),
            priority=str(job.priority),
            attempts=job.attempts,
        )
        # One that comes again waited since it was announced again.
        since = (job.woken_at or job.created_at) if job.fence > 1 else job.created_at
        self.tracer.past("job queue", since, now, parent=job.traceparent, job_id=job.id, priority=str(job.priority))
        return span

    def _prepared(self, run: _Run, asked: list[tuple[_Run, Asked]]) -> Job | None:
        """Add what the model is to be asked to the list; the job where it ended before that."""
        job = run.job
        began = self.timer()
        with self.tracer.span("images fetch") as span:
            study = self._study(run.claimed)
            span.set(images=len(study.pictures) if study else 0)
        run.stages["images"] = self.timer() - began
        if study is None and job.kind is JobKind.DRAFT:
            return images_missing(self.uow(), self.clock, self.new_id, WORKER, job.id, fence=job.fence)
        self.generation.check(job, study)
        started = start_generation(
            self.uow(),
            self.clock,
            self.new_id,
            WORKER,
            job.id,
            fence=job.fence,
            studied_at=study.studied_at if study else None,
            shown=study.shown if study else (),
            site=self.site,
        )
        if started.state is not JobState.RUNNING:
            self.studies.forget(study)
            return started
        run.study = study
        on_step = run.telling.enter_context(self.stream(self._publisher(run)))
        on_stage = partial(self._stage, run)
        asked.append((run, Asked(run.claimed, study, on_step, run.lease.should_stop, on_stage)))
        return None

    def _stage(self, run: _Run, stage: Stage) -> None:
        """A stage of the model's work on a job has just ended."""
        run.stages[stage.name] = run.stages.get(stage.name, 0.0) + stage.seconds
        now = self.clock()
        self.tracer.past(
            f"model {stage.name}",
            now - timedelta(seconds=stage.seconds),
            now,
            parent=run.span.traceparent,
            steps=stage.steps,
            known=stage.known,
        )

    def _answered(self, run: _Run, answer: Generated | Exception) -> None:
        run.stages["model"] = self.timer() - run.moment
        # The last canvas is told before the report changes, not after.
        run.telling.close()
        if isinstance(answer, Generated):
            self._tell_last(run)
        self._settle(run, lambda: self._applied(run, answer))

    def _applied(self, run: _Run, answer: Generated | Exception) -> Job:
        if isinstance(answer, Exception):
            raise answer
        job = run.job
        self._remember(job, run.study)
        began = self.timer()
        with self.tracer.span("report store"):
            applied = apply_result(
                self.uow(),
                self.clock,
                self.new_id,
                WORKER,
                job.id,
                fence=job.fence,
                generated=replace(answer, canvases=tuple(run.canvases)),
                site=self.site,
            )
        run.stages["store"] = self.timer() - began
        if applied.report is not None:
            run.locks, run.kept = locks_of(run.claimed, applied)
            run.disputes = len(answer.disputes)
        return applied.job

    def _settle(self, run: _Run, act: Callable[[], Job | None]) -> None:
        """Do the next thing for a job; where that ends it, let go of what it holds."""
        job = run.job
        try:
            with under(run.span.traceparent):
                ended = self._ended(run, act)
        except Stale as error:
            run.span.fail(failure_of(error))
            _log.warning("job.lost", job_id=job.id, fence=job.fence)
        except DomainError as error:
            # The end could not be written; the lease runs out, and the job is done again.
            _log.warning("job.not_written", job_id=job.id, exc_info=error)
        else:
            if ended is None:
                return
            _log.info(
                "job.ended",
                job_id=job.id,
                state=str(ended.state),
                reason=ended.reason.code if ended.reason else None,
                seconds=round(self.timer() - run.began, 3),
            )
            stages = {**run.stages, "all": self.timer() - run.began}
            self.ended(Ended(ended, stages, run.locks, run.kept, run.disputes))
            _tell_end(run.span, ended)
        run.span.end()
        run.ended = True
        run.held.close()

    def _ended(self, run: _Run, act: Callable[[], Job | None]) -> Job | None:
        job = run.job
        try:
            ended = act()
        except Cancelled:
            if run.lease.lost:
                raise Stale("fence-moved", "The lease was lost while the model worked.", "job.fence") from None
            _log.info("job.stopped", job_id=job.id, reason=run.lease.stop_reason)
            return stop_job(self.uow(), self.clock, self.new_id, WORKER, job.id, fence=job.fence)
        except Stale:
            raise
        except Exception as error:  # noqa: BLE001 - one failing job must not end the worker, whatever it raises.
            return self._failed(job, error)
        if ended is not None:
            self._faults = 0
        return ended

    def _study(self, claimed: Claimed) -> Study | None:
        try:
            return self.studies.fetch(claimed.images)
        except Unavailable as error:
            if claimed.job.kind is not JobKind.DRAFT:
                raise
            # A PACS that is away for an hour must not use up the attempts: the draft waits as if nothing had come yet.
            _log.warning("images.unavailable", job_id=claimed.job.id, exc_info=error)
            return None

    def _publisher(self, run: _Run) -> Callable[[StepEvent], None]:
        job = run.job

        def publish(event: StepEvent) -> None:
            try:
                moment = int(self.clock().timestamp() * 1000)
                shown = StepProgress(job.id, event.step, event.steps, event.text, tuple(event.accepted), moment)
                run.newest = shown
                if len(run.canvases) < MOST_CANVASES:
                    run.canvases.append(shown)
                self.progress.publish(job.id, event.step, event.steps, event.text, event.accepted)
            except Exception as error:
                _log.warning("progress.not_told", job_id=job.id, exc_info=error)
                raise

        return publish

    def _tell_last(self, run: _Run) -> None:
        """A model that stopped early took all the steps that there are: whoever watches looks for the result now."""
        newest = run.newest
        if newest is None or newest.step >= newest.steps:
            return
        try:
            self.progress.publish(run.job.id, newest.step, newest.step, newest.text, newest.accepted)
        except Exception as error:  # noqa: BLE001 - it costs the watcher a moment, and not the job.
            _log.warning("progress.not_told", job_id=run.job.id, exc_info=error)

    def _remember(self, job: Job, study: Study | None) -> None:
        """The model keeps the study encoded: further jobs about this report are cheaper here than elsewhere."""
        if study is None:
            return
        self._held[job.report_id] = None
        self._held.move_to_end(job.report_id)
        while len(self._held) > REPORTS_REMEMBERED:
            self._held.popitem(last=False)

    def _failed(self, job: Job, error: Exception) -> Job:
        reason, retry = reason_of(error)
        self._faults = self._faults + 1 if is_unexpected(error) else 0
        _log.warning("job.failed", job_id=job.id, reason=reason.code, attempts=job.attempts, exc_info=error)
        return fail_job(
            self.uow(),
            self.clock,
            self.new_id,
            WORKER,
            job.id,
            fence=job.fence,
            reason=reason,
            retry=retry,
            site=self.site,
        )


def locks_of(claimed: Claimed, applied: Applied) -> tuple[int, int]:
    """How many locks were sent with an infill, and how many of them the report now says byte for byte."""
    sent = {
        (part.name, number): hashlib.sha256(item.text.encode()).hexdigest()
        for part in claimed.sections
        if not part.context
        for number, item in enumerate(part.items)
        if isinstance(item, KeptText)
    }
    kept = sum(sent.get((digest.section, digest.item)) == digest.sha256 for digest in applied.digests)
    return len(sent), kept


def _tell_end(span: Span, ended: Job) -> None:
    """How a job's stay here ended; one that goes back to the queue has failed with its reason, or was handed back."""
    span.set(state=str(ended.state))
    record = ended.run_record or {}
    if isinstance(steps := record.get("steps_taken"), int):
        span.set(steps=steps)
    if ended.reason is not None and ended.state in (JobState.FAILED, JobState.QUEUED):
        span.fail(ended.reason.code)
