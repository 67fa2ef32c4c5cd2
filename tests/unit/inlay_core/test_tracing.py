import threading
from datetime import UTC, datetime, timedelta

import pytest

from inlay_core.application.tracing import NO_TRACER, Span, Tracer, current, traceparent_of, under
from inlay_core.bootstrap import tracer_of
from inlay_core.domain.errors import Invalid, Unavailable
from inlay_core.settings import Settings
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

    def absent(_process: str, _version: str) -> Recorder:
        raise ModuleNotFoundError(name="opentelemetry")

    assert tracer_of(Settings(), "listen", absent) is NO_TRACER
    with pytest.raises(Unavailable, match="extra") as raised:
        tracer_of(Settings(traces=True), "listen", absent)
    assert raised.value.place == "INLAY_TRACES"


def test_a_process_is_named_to_its_backend() -> None:
    """`inlay listen` is the service inlay-listen."""
    asked: list[str] = []

    def opened(process: str, _version: str) -> Recorder:
        asked.append(process)
        return Recorder()

    tracer = tracer_of(Settings(traces=True), "listen", opened)
    tracer.close()
    assert (asked, tracer.is_on) == (["inlay-listen"], True)
