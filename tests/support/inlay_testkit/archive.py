"""Archives for tests, in this process: a DICOMweb server and a Query/Retrieve SCP over datasets in memory."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from inlay_dicom.scu import FIND, MOVE
from inlay_testkit.dicom import file_bytes

Answer = tuple[int, str, bytes]
_NOTHING: Answer = (404, "text/plain", b"")


@dataclass(slots=True)
class Held:
    """What an archive holds, and what it was asked."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    # Set by a test: what is answered instead (None: nothing special).
    instead: Callable[[str], Answer | None] = lambda _path: None
    headers: list[dict[str, str]] = field(default_factory=list)
    # Seconds between two bytes of an answer's body.
    drip_s: float = 0.0

    def put(self, *datasets: Dataset) -> None:
        """Images arrive in the archive."""
        self.datasets |= {str(one.SOPInstanceUID): one for one in datasets}

    def studies(self, keyword: str, value: str) -> list[Dataset]:
        """One dataset per study that matches; an empty value matches all."""
        fitting = [one for one in self.datasets.values() if value in ("", str(one.get(keyword, "")))]
        return list({str(one.StudyInstanceUID): one for one in fitting}.values())

    def of_study(self, uid: str) -> list[Dataset]:
        """The instances of a study."""
        return [one for one in self.datasets.values() if one.StudyInstanceUID == uid]


# ── DICOMweb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Handler(BaseHTTPRequestHandler):
    held: Held

    def do_GET(self) -> None:
        self._answer(self._found())

    def do_POST(self) -> None:
        self.held.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.held.instead(self.path) or (200, "application/dicom+json", b"{}"))

    def _found(self) -> Answer:
        url = urlsplit(self.path)
        self.held.asked.append(url.path)
        self.held.headers.append(dict(self.headers))
        special = self.held.instead(self.path)
        if special is not None:
            return special
        match url.path.strip("/").split("/"):
            case ["studies"]:
                return self._search({key: values[0] for key, values in parse_qs(url.query).items()})
            case ["studies", uid, "metadata"]:
                found = [_json(one) for one in self.held.of_study(uid)]
                return (
                    (200, "application/dicom+json", json.dumps(found).encode()) if found else (404, "text/plain", b"")
                )
            case ["studies", _, "series", _, "instances", uid] if uid in self.held.datasets:
                return multipart(file_bytes(self.held.datasets[uid]))
        return _NOTHING

    def _search(self, query: dict[str, str]) -> Answer:
        keyword = next(key for key in query if key in ("AccessionNumber", "PatientID", "StudyInstanceUID"))
        found = self.held.studies(keyword, query[keyword])
        return 200, "application/dicom+json", json.dumps([_json(one) for one in found]).encode()

    def _answer(self, answer: Answer) -> None:
        status, content_type, body = answer
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for at in range(0, len(body), 1 if self.held.drip_s else len(body)):
                self.wfile.write(body[at : at + 1] if self.held.drip_s else body)
                time.sleep(self.held.drip_s)
        except OSError:
            return  # The client has had enough.

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass


def _json(dataset: Dataset) -> dict[str, Any]:
    plain = Dataset()
    plain.update({tag: element for tag, element in dataset.items() if tag.group != 0x7FE0})
    found: dict[str, Any] = plain.to_json_dict()
    return found


def multipart(*files: bytes, boundary: str = "b0undary") -> Answer:
    """A WADO-RS answer of these files."""
    mark = f"--{boundary}".encode()
    body = b"".join(mark + b"\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files)
    return 200, f'multipart/related; type="application/dicom"; boundary={boundary}', body + mark + b"--\r\n"


@contextmanager
def web_archive(held: Held, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A DICOMweb server; yields its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"held": held}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # Clients hang up on purpose.
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ── DIMSE ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def dimse_archive(held: Held, destinations: dict[str, int]) -> Iterator[int]:
    """A Query/Retrieve SCP called PACS that sends to AE titles at loopback ports; yields its port."""

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        held.asked.append(f"find {query.QueryRetrieveLevel}")
        if query.QueryRetrieveLevel == "STUDY":
            keyword = next(k for k in ("AccessionNumber", "PatientID", "StudyInstanceUID") if query.get(k))
            found = held.studies(keyword, str(query[keyword].value))
        else:
            found = list({str(one.SeriesInstanceUID): one for one in held.of_study(query.StudyInstanceUID)}.values())
        for one in found:
            answer = Dataset()
            answer.update({tag: element for tag, element in one.items() if tag.group in (0x0008, 0x0010, 0x0020)})
            yield 0xFF00, answer

    def move(event: Any) -> Iterator[Any]:
        query = event.identifier
        held.asked.append("move")
        if str(event.move_destination) not in destinations:
            yield None, None
            return
        found = [
            one for one in held.of_study(query.StudyInstanceUID) if one.SeriesInstanceUID == query.SeriesInstanceUID
        ]
        contexts = AE()
        for one in found:
            contexts.add_requested_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID)
        yield "127.0.0.1", destinations[str(event.move_destination)], {"contexts": contexts.requested_contexts}
        yield len(found)
        for one in found:
            yield 0xFF00, one

    def store(event: Any) -> int:
        held.received.append(event.encoded_dataset())
        return 0

    ae = AE(ae_title="PACS")
    ae.add_supported_context(FIND)
    ae.add_supported_context(MOVE)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax))
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move), (evt.EVT_C_STORE, store)]
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
