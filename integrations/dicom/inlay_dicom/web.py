"""DICOMweb: an archive that is searched by QIDO-RS, read by WADO-RS and written to by STOW-RS (PS3.18 10).

Every answer is bounded in size and in time as a whole: an archive that sends a byte now and then holds nobody for ever.
"""

import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from email.message import Message
from pathlib import Path
from typing import Any, Final

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from inlay_dicom.archive import (
    IMAGES_PER_STUDY,
    MOST_INSTANCES,
    MOST_STUDIES,
    STUDY_KEYS,
    ArchiveProblem,
    StudyFound,
    Wanted,
    studies_of,
)
from inlay_dicom.choose import in_order
from inlay_dicom.dataset import DEFAULT_LIMITS, header_of, number_of
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.store import ReceivedStore

# It tells of every request, with the UIDs that were asked for.
logging.getLogger("dicomweb_client").setLevel(logging.WARNING)
_PIECE: Final = 1 << 16
# As the archive stored it: what it would decode and encode again is not the same image to the byte.
_ANY_SYNTAX: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_REFUSALS: Final = frozenset({401, 403})
_CONFLICT: Final = 409
# PS3.7 C.5.8, "duplicate SOP instance": sent before, and only the answer was lost.
_DUPLICATE: Final = 0x0111
_NOTHING: Final = frozenset({204, 404, 410})


@dataclass(frozen=True, slots=True)
class WebServer:
    """Where an archive's DICOMweb is, and who we are there. Secrets are read from their files at every request.

    `timeout_seconds` is how long it may be silent, `deadline_seconds` how long one answer may take as a whole.
    """

    url: str
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    images: bool = True
    timeout_seconds: float = 10.0
    deadline_seconds: float = 120.0


class WebArchive:
    """`Archive` by DICOMweb, which fills `store`; `zone` is that of studies that name none."""

    def __init__(self, server: WebServer, store: ReceivedStore, zone: tzinfo = UTC) -> None:
        self._server = server
        self._store = store
        self._zone = zone
        self._session = _session(server)
        self._client = DICOMwebClient(server.url, session=self._session, permissive_uid=True)
        self._client._timeout = server.timeout_seconds  # noqa: SLF001 - it has no other way.
        # Whoever asks decides when to ask again; here each question is asked once.
        self._client.set_http_retry_params(retry=False)

    def studies(self, wanted: Wanted) -> list[StudyFound]:
        """QIDO-RS, studies."""
        keyword, value = wanted.matching()
        # Nothing found is an empty list or 204; 404 would mean that there is no QIDO-RS at this address.
        answer = self._asked(
            lambda: self._client.search_for_studies(
                search_filters={keyword: value}, fields=list(STUDY_KEYS), limit=MOST_STUDIES
            ),
            nothing=frozenset({204}),
        )
        return studies_of(_datasets(answer or []), wanted, self._zone)

    def bring(self, study_instance_uid: str) -> int:
        """WADO-RS: the headers of the study, and of its images those that come first for a draft."""
        answer = self._asked(lambda: self._client.retrieve_study_metadata(study_instance_uid))
        headers = [header_of(one, has_pixels="Rows" in one) for one in _datasets(answer or [])]
        if len(headers) > MOST_INSTANCES:
            raise ArchiveProblem("answer", f"The study has more than {MOST_INSTANCES} objects.")
        brought = 0
        for header in in_order(h for h in headers if h.study_instance_uid == study_instance_uid)[:IMAGES_PER_STUDY]:
            path = f"/studies/{study_instance_uid}/series/{header.series_instance_uid}"
            brought += self._retrieved(f"{path}/instances/{header.sop_instance_uid}", header.sop_instance_uid)
        return brought

    def send(self, dataset: Dataset) -> None:
        """STOW-RS of one object; an archive that has it already says so by success. Raises `ArchiveProblem`."""
        # The library writes a dataset as it is: only one that was read from a file has the beginning of a file.
        whole = pydicom.dcmread(io.BytesIO(_file(dataset)))
        answer = self._asked(lambda: self._stored(whole))
        if answer is None or any(number_of(one, "FailureReason") != _DUPLICATE for one in _failures(answer)):
            raise ArchiveProblem("rejected", "The archive did not take the object.")

    def _stored(self, whole: Dataset) -> Dataset:
        try:
            answer: Dataset = self._client.store_instances([whole])
        except requests.HTTPError as error:
            # Nothing was stored; the body says of each object why (PS3.18 10.5.3), for one that is there already, too.
            if error.response is None or error.response.status_code != _CONFLICT:
                raise
            answer = Dataset.from_json(error.response.json())
            if not _failures(answer):
                raise
        return answer

    def _retrieved(self, path: str, sop_instance_uid: str) -> int:
        response = self._asked(
            lambda: self._session.get(
                self._server.url.rstrip("/") + path,
                headers={"Accept": _ANY_SYNTAX},
                timeout=self._server.timeout_seconds,
            )
        )
        if response is None or response.status_code in _NOTHING:
            return 0
        _raise_for(response.status_code)
        kept = 0
        for part in parts(response.headers.get("Content-Type", ""), response.content):
            try:
                _, header = self._store.put(part)
            except InvalidDicom as problem:
                raise ArchiveProblem("answer", f"An image cannot be used ({problem.code}).") from None
            kept += header.sop_instance_uid == sop_instance_uid
        return kept

    def _asked(self, ask: Callable[[], Any], nothing: frozenset[int] = _NOTHING) -> Any:
        """What was answered, None for "there is none"; everything else is an `ArchiveProblem`."""
        try:
            return ask()
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in nothing:
                return None
            _raise_for(status)
            raise ArchiveProblem("away", f"The archive answered with status {status}.") from None
        except requests.exceptions.InvalidJSONError:
            raise ArchiveProblem("answer", "The answer is no JSON.") from None
        except requests.RequestException as error:
            # The text would quote the URL, and with it what was asked for.
            raise ArchiveProblem("away", f"The archive does not answer ({type(error).__name__}).") from None
        except (ArchiveProblem, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - an answer may hold anything, and the library raises accordingly.
            raise ArchiveProblem("answer", f"The answer cannot be read ({type(error).__name__}).") from None


def _failures(answer: Dataset) -> list[Dataset]:
    return list(answer.get("FailedSOPSequence") or ())


def _file(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def parts(content_type: str, body: bytes) -> Iterator[bytes]:
    """The parts of a multipart/related body (RFC 2387), without their headers. Raises `ArchiveProblem` answer."""
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() == "application/dicom":
        yield body  # Allowed for a single part in later editions of PS3.18.
        return
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
        raise ArchiveProblem("answer", "The answer is no multipart/related with a boundary.")
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(delimiter)
    # The first piece is the preamble; the last ones begin with "--", the end of the message.
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return
        head, blank, content = piece.partition(b"\r\n\r\n")
        if not blank:
            raise ArchiveProblem("answer", "A part of the answer has no end of its header.")
        del head
        yield content
    raise ArchiveProblem("answer", "The answer breaks off.")


# ── the connection ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Bounded(HTTPAdapter):
    """Reads whole answers, within a size and a time; the library's own time-out starts anew with every byte."""

    def __init__(self, deadline_s: float, most_bytes: int) -> None:
        super().__init__()
        self._deadline_s = deadline_s
        self._most_bytes = most_bytes

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """One exchange. Raises requests' exceptions."""
        ends = time.monotonic() + self._deadline_s
        response = super().send(request, **(options | {"stream": True}))
        try:
            content = b"".join(self._read(response, ends))
        except requests.RequestException:
            raise
        except Exception as error:  # noqa: BLE001 - urllib3's many errors; requests translates only some of them.
            raise requests.exceptions.ConnectionError(type(error).__name__) from None
        finally:
            response.close()
        response._content = content  # noqa: SLF001 - as requests itself keeps what it has read.
        response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
        return response

    def _read(self, response: requests.Response, ends: float) -> Iterator[bytes]:
        size = 0
        while piece := response.raw.read1(_PIECE, decode_content=True):
            size += len(piece)
            if size > self._most_bytes:
                raise requests.exceptions.ContentDecodingError("more than an answer may be")
            if time.monotonic() > ends:
                raise requests.exceptions.ReadTimeout("the answer takes too long")
            yield piece


class _Bearer(AuthBase):
    """A token from a file, read anew for each request: tokens are renewed by replacing the file."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {_secret(self._file)}"
        return request


def _session(server: WebServer) -> requests.Session:
    session = requests.Session()
    # Neither proxies nor passwords of whoever started the process: images do not leave by a way that nobody configured.
    session.trust_env = False
    session.max_redirects = 3
    if server.token_file:
        session.auth = _Bearer(server.token_file)
    elif server.user:
        session.auth = _basic(server)
    if server.ca:
        session.verify = server.ca
    if server.certificate:
        session.cert = (server.certificate, server.key) if server.key else server.certificate
    adapter = _Bounded(server.deadline_seconds, DEFAULT_LIMITS.file_bytes + (1 << 20))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _basic(server: WebServer) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """As `_Bearer`: the password is read for each request."""

    def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed: requests.PreparedRequest = HTTPBasicAuth(server.user, _secret(server.password_file))(request)
        return signed

    return authenticate


def _secret(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        raise ArchiveProblem("refused", "The file of the password or token cannot be read.") from None


def _raise_for(status: int) -> None:
    if status in _REFUSALS:
        raise ArchiveProblem("refused", f"The archive refuses us (status {status}).")
    if status >= 400:
        raise ArchiveProblem("away" if status >= 500 or status == 429 else "answer", f"The archive answered {status}.")


def _datasets(answer: list[Mapping[str, Any]]) -> list[Dataset]:
    """DICOM JSON (PS3.18 F) as datasets; pixels stay where they are."""
    try:
        return [Dataset.from_json(dict(one), bulk_data_uri_handler=lambda *_: b"") for one in answer]
    except Exception as error:  # noqa: BLE001 - as in `_asked`
        raise ArchiveProblem("answer", f"The answer is no DICOM JSON ({type(error).__name__}).") from None
