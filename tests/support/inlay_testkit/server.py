"""`inlay serve` as a process over an installation of its own, for tests that need a real port."""

import http.client
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from inlay_api.auth import mint
from inlay_core.application import drafting
from inlay_core.domain.job import Job
from inlay_testkit.core import WORKER
from inlay_testkit.installation import Installation
from inlay_testkit.peers import free_port

# A machine that many share may take long to start a process.
READY_SECONDS = 60.0


class Server:
    """A running server. `settings` are those of the installation; the process has the same ones."""

    def __init__(self, home: Path, port: int | None = None, **settings: Any) -> None:
        self.port = port or free_port()
        self.site = Installation(home, http_port=self.port, **settings)
        self._opened = ExitStack()
        ours = {"INLAY_HOME": str(home), "INLAY_HTTP_PORT": str(self.port), "INLAY_RATE_LIMITS": "off"}
        ours |= {f"INLAY_{name.upper()}": str(value) for name, value in settings.items()}
        env = {name: text for name, text in os.environ.items() if not name.startswith("INLAY_")} | ours
        # Into a file: a pipe that nobody reads while requests come would stop the server when it is full.
        self._log = home / "serve.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "inlay_cli", "serve"], env=env, stderr=log)
        self.token = self.token_of("radiologist") if self.site.settings.auth == "embedded" else ""
        self._await_ready()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def token_of(self, *roles: str) -> str:
        """A token for somebody with these roles."""
        return mint(self.site.settings, f"id:{roles[0]}", f"Name of {roles[0]}", list(roles), 1)

    def open(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """The answer to a GET, its body not yet read."""
        connection = self.connection()
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}", **headers})
        answer = connection.getresponse()
        self._opened.callback(answer.close)
        return answer

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is closed with the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self._opened.callback(connection.close)
        return connection

    def claimed(self) -> Job:
        """A new order whose draft a worker has begun."""
        self.site.order("1", wake=False)
        claimed = drafting.claim_next(*self.site.ward.trio, WORKER)
        assert claimed is not None
        return drafting.start_generation(*self.site.ward.trio, WORKER, claimed.job.id, fence=claimed.job.fence)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.open("/readyz").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        self.close()
        raise AssertionError("the server did not get ready")

    def close(self) -> bytes:
        """End it with SIGTERM; return what it logged."""
        self._opened.close()
        self.process.terminate()
        self.process.wait(timeout=60)
        self.site.services.close()
        return self._log.read_bytes()
