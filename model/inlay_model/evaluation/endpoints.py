"""Any OpenAI-compatible chat endpoint, as a judge or as a candidate: one request, bounded, its answer kept on disk.

A key comes from a file or from the environment by its name, stands in no message, no cache and no log, and is sent to
the host that was named only: redirects are refused, and so is http to any host but this one unless it is allowed.
"""

import hashlib
import http.client
import json
import os
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn

from inlay_model.errors import ModelError

_MOST_BYTES = 4 * 2**20
_TRIES = 4
_TRY_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
# Each field of an endpoint and what it holds.
_KNOWN: Mapping[str, type | UnionType] = {
    "name": str,
    "url": str,
    "model": str,
    "key_env": str,
    "key_file": str,
    "timeout_s": int | float,
    "allow_http": bool,
    "body": dict,
}

Messages = Sequence[Mapping[str, Any]]


class EndpointProblem(ModelError):
    """An endpoint that cannot be used or gave no answer; the message names the endpoint, never key or text."""

    code = "endpoint-problem"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask and whom: `url` is the base up to and with `/v1`, `body` further fields of the request."""

    name: str
    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    allow_http: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            _ = parts.port
        except ValueError as problem:
            what = f"The endpoint {self.name} has no address in url"
            raise EndpointProblem(f"{what}, which is written as https://HOST/v1.") from problem
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and (self.allow_http or parts.hostname in _HERE))
        if not is_safe or not parts.hostname:
            raise EndpointProblem(
                f"The endpoint {self.name} needs an https address (allow_http = true permits http in your own network)."
            )


def read_endpoints(file: Path, environment: Mapping[str, str] | None = None) -> dict[str, list[Endpoint]]:
    """The endpoints of a TOML file, by role (`judge`, `candidate`), in the file's order.

    Each is a table with name, url, model and where its key is: `key_env` names a variable, `key_file` a file (relative
    to the TOML file). Raises `EndpointProblem` for what is missing or unknown.
    """
    given = os.environ if environment is None else environment
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as problem:
        raise EndpointProblem(f"{file} is no readable TOML file.") from problem
    unknown = set(said) - {"judge", "candidate"}
    if unknown:
        raise EndpointProblem(
            f"{file.name}: unknown tables {', '.join(sorted(unknown))}; judge and candidate are known."
        )
    for role, tables in said.items():
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise EndpointProblem(f"{file.name}: each {role} is a table of its own, headed [[{role}]].")
    return {role: [_endpoint(table, file, given) for table in said.get(role, ())] for role in ("judge", "candidate")}


def _endpoint(table: Mapping[str, Any], file: Path, environment: Mapping[str, str]) -> Endpoint:
    name = str(table.get("name", table.get("model", "?")))
    odd = (table.keys() - _KNOWN.keys()) | ({"url", "model"} - set(table))
    if odd:
        raise EndpointProblem(f"{file.name}, {name}: missing or unknown fields: {', '.join(sorted(odd))}.")
    wrong = sorted(name for name, value in table.items() if not isinstance(value, _KNOWN[name]))
    if wrong:
        raise EndpointProblem(f"{file.name}, {name}: {', '.join(wrong)} has a value of the wrong type.")
    key = None
    if "key_env" in table:
        key = environment.get(table["key_env"])
        if not key:
            raise EndpointProblem(f"{file.name}, {name}: the variable {table['key_env']} is not set.")
    elif "key_file" in table:
        try:
            key = (file.parent / table["key_file"]).expanduser().read_text(encoding="utf-8").strip()
        except OSError as problem:
            raise EndpointProblem(f"{file.name}, {name}: the key file cannot be read.") from problem
    return Endpoint(
        name=name,
        url=str(table["url"]).rstrip("/"),
        model=str(table["model"]),
        key=key,
        timeout_s=float(table.get("timeout_s", 120)),
        allow_http=bool(table.get("allow_http", False)),
        body=dict(table.get("body", {})),
    )


class Kept:
    """Answers on disk by the digest of everything that was asked; one file each, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, request: Mapping[str, Any]) -> str | None:
        """The answer to an equal request, or None; a damaged file counts as none."""
        try:
            said = json.loads(self._file(request).read_text(encoding="utf-8"))
            return str(said["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, request: Mapping[str, Any], answer: str) -> None:
        """Keep an answer; written beside and renamed, so that there are no halves."""
        file = self._file(request)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        half = file.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump({"model": request["model"], "answer": answer}, out)
        half.replace(file)

    def _file(self, request: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"


class Chat:
    """One endpoint with its cache. Threads may share it."""

    def __init__(
        self, endpoint: Endpoint, kept: Kept | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoint = endpoint
        self._kept = kept
        self._sleep = sleep
        self._open = urllib.request.build_opener(_NoRedirect()).open

    def ask(self, messages: Messages) -> str:
        """The answer to these messages: from disk where the same was asked before, else from the endpoint.

        Raises `EndpointProblem` where it gives none after a few tries.
        """
        body = {"model": self.endpoint.model, "messages": list(messages), "temperature": 0, **self.endpoint.body}
        # The address is part of the question: a model's name means something else elsewhere.
        request = {"url": self.endpoint.url, **body}
        kept = self._kept.get(request) if self._kept else None
        if kept is not None:
            return kept
        answer = self._content(self._post(json.dumps(body).encode()))
        if self._kept:
            self._kept.put(request, answer)
        return answer

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        url = f"{self.endpoint.url}/chat/completions"
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            request = urllib.request.Request(url, body, headers)  # noqa: S310 - the scheme was checked
            try:
                with self._open(request, timeout=self.endpoint.timeout_s) as answer:
                    found: bytes = answer.read(_MOST_BYTES + 1)
            except urllib.error.HTTPError as problem:
                problem.close()
                if last or problem.code not in _TRY_AGAIN:
                    self._refuse(f"HTTP status {problem.code}")
            except (OSError, http.client.HTTPException) as problem:
                if last:
                    self._refuse(type(problem).__name__)
            else:
                if len(found) > _MOST_BYTES:
                    self._refuse("the answer is too long")
                return found
            self._sleep(2.0**attempt)
        raise AssertionError("The last try returns or raises.")

    def _content(self, answer: bytes) -> str:
        try:
            said = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            self._refuse("the answer has not the form of a chat completion")
        if not isinstance(said, str):
            self._refuse("the answer holds no text")
        return said

    def _refuse(self, why: str) -> NoReturn:
        # `from None`: the original error may carry the request with its key.
        raise EndpointProblem(f"The endpoint {self.endpoint.name} gave no answer: {why}.") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another host."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        """Never follow."""
