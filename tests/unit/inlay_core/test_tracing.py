import threading
from datetime import UTC, datetime, timedelta

import pytest

from inlay_core.application import drafting, editing, signing
from inlay_core.application.intake import receive_messages
from inlay_core.application.ports import Arrival, Delivery, Destination, Received, Site
from inlay_core.application.tracing import NO_TRACER, Span, Tracer, current, traceparent_of, under
from inlay_core.bootstrap import tracer_of
from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.domain.infill import Gap, InfillRequest, InfillSection
from inlay_core.domain.job import Job, JobKind
from inlay_core.settings import Settings
from inlay_testkit.core import RADIOLOGIST, WORKER, Ward, ack, envelope, order_command
from inlay_testkit.memory import Memory
from inlay_testkit.tracing import Recorder

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_spans_of_a_thread_are_nested_and_others_see_nothing_of_them() -> None:
    """A span is below the one that its thread is in; another thread is in none."""
    recorder = Recorder()
    tracer = Tracer(recorder)
    elsewhere: list[str | None] = []
    with tracer.span("outer") as outer:
        with tracer.span("inner") as inner:
            assert current() == inner.traceparent
            thread = threading.Thread(target=lambda: elsewhere.append(current()))
            thread.start()
            thread.join()
        assert current() == outer.traceparent
    assert current() is None
    assert elsewhere == [None]
    inner_seen, outer_seen = recorder.spans
    assert (inner_seen.name, inner_seen.parent) == ("inner", outer_seen.traceparent)
    assert (outer_seen.name, outer_seen.parent) == ("outer", None)


def test_work_that_is_handed_on_goes_on_with_the_trace_that_it_is_given() -> None:
    """A parent that is named counts more than the thread's own; `under` makes one the thread's own."""
    recorder = Recorder()
    tracer = Tracer(recorder)
    with tracer.span("own"), tracer.span("given", parent=PARENT):
        pass
    with under(PARENT), tracer.span("under"):
        pass
    assert [span.parent for span in recorder.named("given", "under")] == [PARENT, PARENT]


def test_a_failure_is_told_by_its_code_and_never_by_its_text() -> None:
    """A span that an error leaves is failed by our code, or by the error's type."""
    recorder = Recorder()
    for error in (Invalid("bad-name", "Patricia is no name"), ValueError("Patricia")):
        with pytest.raises(type(error)), Tracer(recorder).span("work"):
            raise error
    assert [span.failure for span in recorder.spans] == ["bad-name", "ValueError"]


def test_attributes_that_are_on_no_list_are_dropped() -> None:
    """Where no type checker looks, a name that is not listed and a value that is not plain leave no trace."""
    recorder = Recorder()
    with Tracer(recorder).span("work", job_id="j") as span:
        span.set(patient="Patricia", state=object(), status=200)  # type: ignore[call-arg,arg-type]
    assert recorder.spans[0].attributes == {"inlay.job_id": "j", "http.response.status_code": 200}


def test_a_wait_is_told_by_its_two_moments_and_is_never_negative() -> None:
    """What is stored is told as it is; clocks that differ make no span that ends before it begins."""
    recorder, began = Recorder(), datetime(2026, 3, 2, 8, tzinfo=UTC)
    tracer = Tracer(recorder)
    tracer.past("wait", began, began + timedelta(seconds=2), parent=PARENT)
    tracer.past("wait", began, began - timedelta(seconds=2), parent=PARENT)
    first, second = recorder.spans
    assert (first.ended - first.began, second.ended - second.began) == (2_000_000_000, 0)
    assert first.began == int(began.timestamp()) * 1_000_000_000


def test_a_span_is_told_once() -> None:
    """Ending it again, or telling more of it, changes nothing."""
    recorder = Recorder()
    span = Tracer(recorder).begin("work")
    span.end()
    span.set(state="queued")
    span.end()
    assert [seen.attributes for seen in recorder.spans] == [{}]
    assert span.traceparent is None


def test_nothing_is_traced_without_a_backend() -> None:
    """Spans are one and the same empty thing, and the thread is in no trace."""
    with NO_TRACER.span("work", job_id="j") as span:
        assert current() is None
    assert isinstance(span, Span)
    assert span is NO_TRACER.begin("other", state="queued")
    assert (span.traceparent, NO_TRACER.is_on) == (None, False)


@pytest.mark.parametrize(
    ("header", "understood"),
    [
        (PARENT, PARENT),
        (f" {PARENT} ", PARENT),
        # A later version: what is behind the flags is not for us.
        (f"cc{PARENT[2:]}-what-comes", PARENT),
        ("", None),
        (f"ff{PARENT[2:]}", None),
        (f"00-{'0' * 32}-{'b' * 16}-01", None),
        (f"00-{'a' * 32}-{'0' * 16}-01", None),
        (PARENT.upper(), None),
        (PARENT[:-1], None),
        ("Patricia", None),
        (f"{PARENT}\n00", None),
    ],
)
def test_headers_are_read_as_the_standard_says(header: str, understood: str | None) -> None:
    """W3C Trace Context 3.2: what is not as it should be is ignored."""
    assert traceparent_of(header) == understood


def test_a_site_without_the_extra_is_told_so() -> None:
    """INLAY_TRACES without the libraries ends the start with what to install; without it nobody is asked."""

    def absent(_process: str, _version: str, _headers: str) -> Recorder:
        raise ModuleNotFoundError(name="opentelemetry")

    assert tracer_of(Settings(), "listen", absent) is NO_TRACER
    with pytest.raises(Unavailable, match="extra") as raised:
        tracer_of(Settings(traces=True), "listen", absent)
    assert raised.value.place == "INLAY_TRACES"


def test_a_process_is_named_to_its_backend() -> None:
    """`inlay listen` is the service inlay-listen, with the headers that the site gives."""
    asked: list[tuple[str, str]] = []

    def opened(process: str, _version: str, headers: str) -> Recorder:
        asked.append((process, headers))
        return Recorder()

    tracer = tracer_of(Settings(traces=True, traces_headers="x-tenant=radiology"), "listen", opened)
    tracer.close()
    assert (asked, tracer.is_on) == ([("inlay-listen", "x-tenant=radiology")], True)


OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


def items(ward: Ward) -> list[tuple[str, str | None]]:
    """What is to be told, and the trace that each belongs to."""
    with ward.uow as uow:
        pending = [uow.outbox.claim(to, ward.clock(), ward.clock(), 50) for to in ("celery", "oru")]
    return [(item.destination, item.traceparent) for some in pending for item in some]


def the_job(ward: Ward, report_id: str, kind: JobKind = JobKind.DRAFT) -> Job:
    """The job of that kind."""
    with ward.uow as uow:
        (job,) = [job for job in uow.jobs.of_report(report_id) if job.kind is kind]
    return job


@pytest.fixture
def ward() -> Ward:
    """A ward with a receiver of results."""
    return Ward(Memory()(), site=Site(destinations=(Destination.ORU,)))


def test_messages_that_are_stored_together_keep_their_own_traces(ward: Ward) -> None:
    """The job of each message, and its wake-up, belong to the trace that the message began."""
    arrivals = [
        Arrival(envelope(f"M{number}"), lambda number=number: [order_command(number)], ack, None, trace)  # type: ignore[misc]
        for number, trace in (("1", PARENT), ("2", OTHER), ("3", None))
    ]
    received = receive_messages(*ward.trio, arrivals)
    with ward.uow as uow:
        reports = [uow.reports.by_order(one.order_ids[0]) for one in received if isinstance(one, Received)]
    traces = [the_job(ward, report.id).traceparent for report in reports if report is not None]
    assert traces == [PARENT, OTHER, None]
    assert items(ward) == [("celery", PARENT), ("celery", OTHER), ("celery", None)]


def test_what_a_draft_causes_belongs_to_its_span_and_what_a_signature_causes_to_its_request(ward: Ward) -> None:
    """Results are below the span in which they were decided."""
    report = ward.order()
    with under(PARENT):
        drafted = ward.draft()
    with under(OTHER):
        editing.open_report(*ward.trio, RADIOLOGIST, report.id, expected_version=drafted.version)
        signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=drafted.version + 1, site=ward.site)
    with ward.uow as uow:
        seen = [
            item.traceparent
            for item in [*uow.outbox.in_state(Delivery.PENDING, 10)]
            if item.destination == Destination.ORU
        ]
    assert seen == [PARENT, OTHER]


def test_sweeps_announce_a_job_in_its_own_trace(ward: Ward) -> None:
    """Images that arrive, and jobs that were forgotten, go on with the trace of the order."""
    with under(PARENT):
        report = ward.order()
    claimed = drafting.claim_next(*ward.trio, WORKER)
    assert claimed is not None
    drafting.images_missing(*ward.trio, WORKER, claimed.job.id, fence=claimed.job.fence)
    drafting.images_arrived(*ward.trio, WORKER, claimed.job.id)
    drafting.wake_forgotten(*ward.trio, WORKER, older_than_seconds=-1)
    with ward.uow as uow:
        seen = [item.traceparent for item in uow.outbox.claim("celery", ward.clock(), ward.clock(), 1)]
        counted = uow.outbox.count()
    assert (seen, counted) == ([PARENT], {("celery", Delivery.PENDING): 3})
    assert the_job(ward, report.id).traceparent == PARENT


def test_an_infill_belongs_to_the_request_that_asked_for_it(ward: Ward) -> None:
    """A resubmission begins a trace of its own."""
    with under(PARENT):
        drafted = ward.drafted()
    request = InfillRequest((InfillSection("findings", (Gap(),)),))
    with under(OTHER):
        job = drafting.request_infill(
            *ward.trio, RADIOLOGIST, drafted.id, expected_version=drafted.version, request=request
        )
    assert the_job(ward, drafted.id, JobKind.INFILL).traceparent == job.traceparent == OTHER
    assert the_job(ward, drafted.id).traceparent == PARENT
