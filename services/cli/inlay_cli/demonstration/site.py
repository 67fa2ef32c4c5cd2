"""A hospital on one machine: `inlay up` as a child, with a home, ports and an images folder of its own."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay_cli.environment import child_environment
from inlay_cli.parsing import CommandError

# The supervisor gives its children ten seconds to end.
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1

# What of the caller's settings also holds for the demonstration. Databases and peers of a real site never do.
KEPT = ("INLAY_MODEL", "INLAY_MODEL_REVISION", "INLAY_DEVICE", "INLAY_STEPS", "INLAY_LOG_LEVEL")


@dataclass(frozen=True)
class Site:
    """Where the running system is."""

    home: Path
    http: tuple[str, int]
    mllp: tuple[str, int]
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """The page."""
        return f"http://{self.http[0]}:{self.http[1]}"

    @property
    def images(self) -> Path:
        """The watched folder."""
        return self.home / "images"

    @property
    def log(self) -> Path:
        """What the processes print."""
        return self.home / "demo.log"

    def inlay(self, *arguments: str) -> tuple[int, str]:
        """Run an `inlay` command in this site; its exit status and standard output."""
        command = [sys.executable, "-m", "inlay_cli", *arguments]
        done = subprocess.run(command, env=dict(self.environment), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def token(self, role: str, name: str) -> str:
        """A bearer token for someone who is played."""
        status, printed = self.inlay("token", "--role", role, "--name", name, "--id", f"demo:{role}")
        if status != 0:
            raise CommandError(f"no token could be made for the role {role}")
        return printed.strip()

    def verify_trail(self) -> dict[str, Any]:
        """What `inlay audit verify` says."""
        _, printed = self.inlay("audit", "verify", "--json")
        told: dict[str, Any] = json.loads(printed)
        return told


def plan(home: Path, oru_port: int, preferred: Sequence[tuple[str, int]]) -> Site:
    """A site in `home` on loopback: the preferred HTTP and MLLP addresses where they are free, other ports else."""
    web, mllp = (address if _is_free(address) else ("127.0.0.1", _free_port()) for address in preferred)
    home = home.absolute()
    settings = {
        "INLAY_HOME": str(home),
        "INLAY_HTTP_HOST": web[0],
        "INLAY_HTTP_PORT": str(web[1]),
        "INLAY_MLLP_HOST": mllp[0],
        "INLAY_MLLP_PORT": str(mllp[1]),
        "INLAY_DICOM_PORT": str(_free_port()),
        "INLAY_IMAGES_FOLDER": str(home / "images"),
        "INLAY_ORU_TARGET": f"127.0.0.1:{oru_port}",
    }
    return Site(home, web, mllp, child_environment(settings, keep=KEPT))


@contextmanager
def running(site: Site, patience: float) -> Iterator[subprocess.Popen[bytes]]:
    """The processes of the site, ready for orders; ended at the end of the block.

    Raises CommandError where they do not start, or are not ready after `patience` seconds.
    """
    site.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    site.images.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "inlay_cli", "--parent", str(os.getpid()), "up"]
    with site.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            env=dict(site.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_ready(site, process, patience)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def place(data: bytes, folder: Path, name: str) -> None:
    """Put a file into a watched folder: it appears there with all of its bytes, or not at all."""
    partial = folder.parent / f".{name}.part"
    partial.write_bytes(data)
    partial.replace(folder / name)


def _await_ready(site: Site, process: subprocess.Popen[bytes], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not (_serves(site.http) and _listens(site.mllp)):
        if process.poll() is not None:
            raise CommandError(f"the processes did not start:\n{_tail(site.log)}")
        if time.monotonic() > deadline:
            remedy = "a slow machine wants a longer --patience"
            raise CommandError(f"the processes were not ready within {patience:g} s; {remedy}\n{_tail(site.log)}")
        time.sleep(POLL_SECONDS)


def _serves(address: tuple[str, int]) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError:
        return False
    return True


def _is_free(address: tuple[str, int]) -> bool:
    """Port 0 stands for any other, and is never free by itself."""
    if address[1] == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
