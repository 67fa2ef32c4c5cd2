"""Spans on the OpenTelemetry SDK, which reads the OTEL_* variables itself: endpoint, headers, sampler, batches.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.re import parse_env_headers

Value = str | int | float | bool

# A process that ends waits so long for a collector, less than the ten seconds that supervisors give. The SDK would wait
# for thirty.
_PATIENCE_SECONDS: Final = 3.0


def provider_of(process: str, version: str, headers: str = "") -> TracerProvider:
    """A provider that sends in the background; what does not fit into its queue is lost, and nobody waits for it."""
    ours = Resource({"service.name": process, "service.version": version, "service.namespace": "inlay"})
    # What the environment says of the service counts more than what we say.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(headers=parse_env_headers(headers, liberal=True))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Spans:
    """Begins spans of a provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("inlay")
        self._closing = threading.Event()
        # Beforehand, because an interpreter that ends starts no thread.
        self._closer = threading.Thread(target=self._close, args=(provider,), name="traces", daemon=True)
        self._closer.start()
        atexit.register(self.close)

    def begin(self, name: str, kind: str, parent: str | None, at: int) -> OpenedSpan:
        """A span that began at that moment (nanoseconds since 1970), below that traceparent or at a trace's root."""
        context = Context() if parent is None else set_span_in_context(NonRecordingSpan(_context_of(parent)), Context())
        return OpenedSpan(self._tracer.start_span(name, context, SpanKind[kind.upper()], start_time=at))

    def close(self) -> None:
        """Send what is left, and end; a collector that does not answer is not waited for long."""
        self._closing.set()
        self._closer.join(_PATIENCE_SECONDS)

    def _close(self, provider: TracerProvider) -> None:
        self._closing.wait()
        provider.shutdown()


class OpenedSpan:
    """A span under way."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        """The span as a W3C header; None where the SDK is switched off (OTEL_SDK_DISABLED)."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, attributes: Mapping[str, Value], failure: str | None, at: int) -> None:
        """It ended at that moment, with a code where it failed."""
        self._span.set_attributes(attributes)
        if failure is not None:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(at)


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    # Only the bit "sampled" is ours to know.
    sampled = TraceFlags(int(flags, 16) & TraceFlags.SAMPLED)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)
