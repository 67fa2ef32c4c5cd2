"""Orthanc, a real PACS, and dcmtk's programs, as peers of tests."""

import base64
import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay_testkit.peers import find_program, free_port, running

USER, PASSWORD = "inlay", "orthanc-password"
_PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A running Orthanc: its HTTP and DICOM ports on loopback. Its AE title is ORTHANC, it needs `USER`."""

    http: int
    dicom: int

    @property
    def dicomweb(self) -> str:
        """The base URL of its DICOMweb services."""
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def rest(self, path: str, body: bytes | None = None) -> Any:
        """An answer of its own REST API."""
        return json.loads(self.raw(path, body))

    def raw(self, path: str, body: bytes | None = None) -> bytes:
        """The bytes of an answer of its own REST API."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=body)
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return bytes(answer.read())

    def put(self, *files: bytes) -> None:
        """Images arrive in the archive."""
        for file in files:
            assert self.rest("/instances", file)["Status"] in ("Success", "AlreadyStored")

    def find(self, level: str, **query: str) -> list[Any]:
        """Its resources of a level (Study, Instance) that fit, as it describes them."""
        body = {"Level": level, "Query": query, "Expand": True}
        found: list[Any] = self.rest("/tools/find", json.dumps(body).encode())
        return found

    def clear(self) -> None:
        """Forget everything."""
        for study in self.rest("/studies"):
            request = urllib.request.Request(f"http://127.0.0.1:{self.http}/studies/{study}", method="DELETE")
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {login}")
            urllib.request.urlopen(request, timeout=60).close()  # noqa: S310 - loopback


@contextmanager
def orthanc_server(modalities: Mapping[str, tuple[str, int]]) -> Iterator[Orthanc]:
    """An empty Orthanc that knows these AE titles by (title, loopback port)."""
    pacs = Orthanc(free_port(), free_port())
    with tempfile.TemporaryDirectory(prefix="inlay-orthanc-") as folder:
        config = Path(folder) / "orthanc.json"
        settings = {
            "Name": "test",
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "HttpPort": pacs.http,
            "DicomPort": pacs.dicom,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(_PLUGINS)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "DicomModalities": {name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()},
            "DicomAlwaysAllowStore": True,
        }
        config.write_text(json.dumps(settings))
        command = [str(find_program("Orthanc")), str(config)]
        with running(command, Path(folder) / "log", lambda: _answers(pacs)):
            yield pacs


def _answers(pacs: Orthanc) -> bool:
    try:
        return bool(pacs.rest("/system"))
    except OSError:
        return False


def dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of dcmtk's programs to its end."""
    command = [str(find_program(program)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
