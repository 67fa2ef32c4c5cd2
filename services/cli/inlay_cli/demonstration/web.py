"""A small HTTP client of the standard library: JSON in and out, ETags, and server-sent events as they arrive."""

import http.client
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 30.0


class Refusal(Exception):
    """The server answered with an error; the message is its status and its own words."""


@dataclass(frozen=True)
class Answer:
    """A successful answer. `etag` is the version to send back with If-Match, quotes included."""

    status: int
    body: Any
    etag: str | None


@dataclass(frozen=True)
class Caller:
    """Someone with a bearer token and the address of the server."""

    host: str
    port: int
    token: str

    def get(self, path: str) -> Answer:
        """GET; raises Refusal for anything that is no success."""
        return self._call("GET", path, None, {})

    def post(self, path: str, body: Any, if_match: str | None = None) -> Answer:
        """POST a JSON body."""
        return self._call("POST", path, body, _condition(if_match))

    def put(self, path: str, body: Any, if_match: str | None = None) -> Answer:
        """PUT a JSON body."""
        return self._call("PUT", path, body, _condition(if_match))

    def events(self, path: str, patience: float) -> Iterator[tuple[str, Any]]:
        """The (name, data) pairs of a stream of server-sent events, until the server ends it; else TimeoutError."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        try:
            connection.request("GET", path, headers=self._headers() | {"Accept": "text/event-stream"})
            response = connection.getresponse()
            _refuse_unless_success(response, path)
            yield from parse_events(_until(response, time.monotonic() + patience))
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        payload = None if body is None else json.dumps(body).encode()
        content = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, payload, self._headers() | content | dict(headers))
            response = connection.getresponse()
            text = _refuse_unless_success(response, path)
        finally:
            connection.close()
        return Answer(response.status, json.loads(text) if text else None, response.getheader("ETag"))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def _until(lines: Iterable[bytes], deadline: float) -> Iterator[bytes]:
    """The lines, with an end to patience: comments keep a stream alive on which nothing happens."""
    for line in lines:
        if time.monotonic() > deadline:
            raise TimeoutError("nothing came to an end in time")
        yield line


def parse_events(lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Server-sent events (HTML standard, 9.2.6) with JSON data; comments and retry hints are passed over."""
    name, data = "message", ""
    for raw in lines:
        line = raw.decode().rstrip("\r\n")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield name, json.loads(data)
            name, data = "message", ""
        elif field == "event":
            name = value
        elif field == "data":
            data += value


def _condition(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}


def _refuse_unless_success(response: http.client.HTTPResponse, path: str) -> bytes:
    if 200 <= response.status < 300:
        return b"" if response.getheader("Content-Type", "").startswith("text/event-stream") else response.read()
    raise Refusal(
        f"{path.partition('?')[0]} answered {response.status}: {response.read(2000).decode(errors='replace')}"
    )
