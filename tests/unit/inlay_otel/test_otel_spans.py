import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.util.re import parse_env_headers

from inlay_core.application.tracing import Tracer
from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_otel import open_spans
from inlay_testkit.otlp import Collector, collecting

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names."""
    with collecting() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.url)
        yield started


def test_spans_arrive_as_otlp_says(collector: Collector) -> None:
    """Names, kinds, times, attributes, failures and nesting are those of the spans."""
    tracer = Tracer(open_spans("inlay-test", "1.2"))
    with tracer.span("outer", kind="server", parent=PARENT, status=200), tracer.span("inner", job_id="j") as inner:
        inner.fail("too-late")
    tracer.close()
    (outer_seen,), (inner_seen,) = collector.named("outer"), collector.named("inner")
    assert (outer_seen.service, outer_seen.kind, outer_seen.attributes) == (
        "inlay-test",
        "server",
        {"http.response.status_code": 200},
    )
    assert (outer_seen.trace, outer_seen.parent) == ("a" * 32, "b" * 16)
    assert (inner_seen.trace, inner_seen.parent) == (outer_seen.trace, outer_seen.id)
    assert inner_seen.attributes == {"inlay.job_id": "j", "error.type": "too-late"}
    assert (inner_seen.failed, outer_seen.failed) == (True, False)
    assert outer_seen.began <= inner_seen.began <= inner_seen.ended <= outer_seen.ended


def test_what_the_environment_says_holds(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the service, headers, compression and the sampler come from OTEL_* variables."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "radiology")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=hospital")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    tracer = Tracer(open_spans("inlay-test", "1.2"))
    with tracer.span("work"):
        pass
    tracer.close()
    assert [span.service for span in collector.spans] == ["radiology"]
    assert (collector.headers[0]["x-tenant"], collector.headers[0]["content-encoding"]) == ("hospital", "gzip")


def test_headers_of_ours_go_beside_those_of_the_environment(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both reach the collector; of one name, ours does. A value is percent-encoded, or stands as it is."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=hospital,x-other=theirs")
    tracer = Tracer(open_spans("inlay-test", "1.2", "authorization=Bearer%20s3cr3t==, X-Tenant=the radiology"))
    with tracer.span("work"):
        pass
    tracer.close()
    sent = collector.headers[0]
    assert (sent["authorization"], sent["x-tenant"], sent["x-other"]) == ("Bearer s3cr3t==", "the radiology", "theirs")


@given(st.text(st.sampled_from('ab-%20A =,;"\\\t\u00e9:/{}()~')))
def test_what_the_settings_let_through_is_read_without_a_word(text: str) -> None:
    """OpenTelemetry would log a header that it does not take, and with it the token."""
    try:
        Settings.from_env({"INLAY_TRACES_HEADERS": text})
    except Invalid:
        return
    with warnings_of("opentelemetry.util.re") as logged:
        found = parse_env_headers(text, liberal=True)
    assert logged == []
    names = {part.partition("=")[0].strip().lower() for part in text.split(",") if part}
    assert set(found) == names
    assert all(value.isprintable() for value in found.values())


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """What a library logs meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger(name).removeHandler(handler)


def test_a_trace_that_is_not_sampled_goes_on_unsampled(collector: Collector) -> None:
    """Whoever began a trace decides: nothing of it is sent, and those after us hear the same."""
    tracer = Tracer(open_spans("inlay-test", "1.2"))
    with tracer.span("work", parent=f"{PARENT[:-2]}00") as span:
        assert span.traceparent is not None
        assert span.traceparent.startswith(f"00-{'a' * 32}-")
        assert span.traceparent.endswith("-00")
    tracer.close()
    assert collector.spans == []


def test_the_sdk_can_be_switched_off(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED: no span, and no trace that others are given."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = Tracer(open_spans("inlay-test", "1.2"))
    with tracer.span("work") as span:
        assert span.traceparent is None
    tracer.close()
    assert collector.spans == []


ENDS = """
from inlay_core.application.tracing import Tracer
from inlay_otel import open_spans
tracer = Tracer(open_spans("inlay-test", "1.2"))
with tracer.span("work"):
    pass
"""


def test_a_process_that_ends_has_sent_its_spans(collector: Collector) -> None:
    """Also where nobody closed the tracer, as under gunicorn."""
    done = subprocess.run([sys.executable, "-c", ENDS], env={**os.environ}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [span.name for span in collector.spans] == ["work"]


def test_a_collector_that_is_silent_keeps_no_process_from_ending() -> None:
    """A process ends within its supervisors' patience, with its spans lost."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", ENDS],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url},
            capture_output=True,
            text=True,
            check=False,
            timeout=25,
        )
    # The SDK alone would wait for thirty seconds; the timeout above is the bound.
    assert done.returncode == 0, done.stderr
