"""A hub on loopback that speaks as much of the Hugging Face Hub's API as fetching needs, and can fail in the middle."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Larger files are listed with a SHA-256, as large files are on the real one.
_LARGE = 1000


@dataclass
class Hub:
    """One repository `owner/name` at one commit.

    With `break_after` the hub goes down in the middle of a larger file, after so many bytes, until `down` is reset.
    """

    files: dict[str, bytes]
    break_after: int | None = None
    # What is really sent, where it is not what is listed.
    spoilt: dict[str, bytes] = field(default_factory=dict)
    endpoint: str = ""
    # Path and Range header of every download.
    sent: list[tuple[str, str | None]] = field(default_factory=list)
    down: bool = False

    def listing(self) -> list[dict[str, Any]]:
        """What the hub says of its files."""
        return [_entry(path, content) for path, content in self.files.items()]


@contextmanager
def hub(files: Mapping[str, bytes], *, break_after: int | None = None) -> Iterator[Hub]:
    """A running hub with these files."""
    state = Hub(dict(files), break_after)

    class Handler(BaseHTTPRequestHandler):
        """Two kinds of path: the listing of a commit, and its files."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """A listing or a file."""
            self._answer(body=True)

        def do_HEAD(self) -> None:
            """What is known of a file."""
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            if state.down:
                self.close_connection = True
                return
            path = unquote(urlsplit(self.path).path)
            if path == f"/api/models/owner/name/tree/{COMMIT}":
                self._send(200, json.dumps(state.listing()).encode(), {"Content-Type": "application/json"}, body=body)
                return
            found = re.fullmatch(rf"/owner/name/resolve/{COMMIT}/(.+)", path)
            if found is None or found[1] not in state.files:
                code = "RevisionNotFound" if "owner/name" in path else "RepoNotFound"
                self._send(404, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"}, body=body)
                return
            self._file(found[1], body=body)

        def _file(self, name: str, *, body: bool) -> None:
            listed = state.files[name]
            content = state.spoilt.get(name, listed)
            headers = {"ETag": f'"{_etag(listed)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            if body:
                state.sent.append((name, asked))
            if asked:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206 if asked else 200, content[start:], headers, body=body, name=name)

        def _send(
            self, status: int, content: bytes, headers: Mapping[str, str], *, body: bool, name: str | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if not body:
                return
            if name is not None and state.break_after and len(content) > state.break_after:
                breaks, state.break_after, state.down = state.break_after, None, True
                self.wfile.write(content[:breaks])
                self.close_connection = True
                return
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
    if len(content) > _LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) > _LARGE else _blob(content)


def _blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
