"""A collector of traces: it takes OTLP over HTTP, reads the protobuf, and keeps every span."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

_PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Seen:
    """A span as it arrived; `service` is who sent it, ids are hexadecimal, times are nanoseconds since 1970."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, str | int | float | bool]
    failed: bool
    events: int


@dataclass
class Collector:
    """What came in: spans as a collector reads them, and the bytes as they were sent."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def named(self, name: str) -> list[Seen]:
        """Spans of that name, the earliest first."""
        return sorted((span for span in [*self.spans] if span.name == name), key=lambda span: span.began)

    def of_trace(self, trace: str) -> list[Seen]:
        """Spans of a trace, the earliest first."""
        return sorted((span for span in [*self.spans] if span.trace == trace), key=lambda span: span.began)

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Read a request. Raises DecodeError for what is no OTLP."""
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        self.headers.append(headers)
        for group in request.resource_spans:
            service = str(_plain(group.resource.attributes)["service.name"])
            self.spans += [_seen(service, span) for scope in group.scope_spans for span in scope.spans]


def _seen(service: str, span: trace_pb2.Span) -> Seen:
    return Seen(
        service,
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _plain(span.attributes),
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        len(span.events),
    )


def _plain(pairs: Sequence[KeyValue]) -> dict[str, str | int | float | bool]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status = HTTPStatus.OK
            if self.path != "/v1/traces" or self.headers["Content-Type"] != _PROTOBUF:
                status = HTTPStatus.BAD_REQUEST
            else:
                try:
                    collector.take(body, {name.lower(): text for name, text in self.headers.items()})
                except DecodeError:
                    status = HTTPStatus.BAD_REQUEST
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", _PROTOBUF)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
