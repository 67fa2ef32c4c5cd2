"""The hospital's FHIR server, as the write-back meets it: in the test's own process, or on loopback."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey

BASE = "https://ehr.test/fhir"
TOKEN_URL = "https://ehr.test/token"
KEY = ECKey.generate_key("P-384", {"kid": "inlay-1"}, private=True)


class Ehr:
    """A small FHIR server that keeps reports, obeys conditions, and can fail before or after it has stored.

    It lets nobody in without one of its tokens, unless `asks_token` is false.
    """

    def __init__(self, *, patient_known: bool = True, asks_token: bool = True) -> None:
        self.reports: dict[str, dict[str, Any]] = {}
        self.provenances: list[dict[str, Any]] = []
        self.bundles: list[dict[str, Any]] = []
        self.tokens: list[dict[str, Any]] = []
        self.patient_known = patient_known
        self.asks_token = asks_token
        self.fail_before: int | None = None
        self.lose_answer = False
        self.refuse_token = False

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to one request."""
        if str(request.url) == TOKEN_URL:
            return self._token(request)
        if self.fail_before is not None:
            return httpx2.Response(self.fail_before)
        is_good = request.headers.get("Authorization") == f"Bearer token-{len(self.tokens)}"
        if self.asks_token and (not is_good or self.refuse_token):
            self.refuse_token = False
            return httpx2.Response(401)
        if request.method == "GET":
            wanted = request.url.params["identifier"].partition("|")[2]
            found = [r for r in self.reports.values() if any(i["value"] == wanted for i in r["identifier"])]
            body = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": r} for r in found]}
            return httpx2.Response(200, json=body)
        return self._transaction(json.loads(request.content))

    def _token(self, request: httpx2.Request) -> httpx2.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        claims = jwt.decode(form["client_assertion"], KEY, algorithms=["ES384"]).claims
        self.tokens.append(dict(claims) | {"scope": form["scope"]})
        body = {"access_token": f"token-{len(self.tokens)}", "expires_in": 300, "token_type": "bearer"}
        return httpx2.Response(200, json=body)

    def _transaction(self, bundle: dict[str, Any]) -> httpx2.Response:
        self.bundles.append(bundle)
        report, provenance = bundle["entry"]
        if not self.patient_known:
            return httpx2.Response(412)
        if report["request"]["method"] == "POST":
            condition = report["request"]["ifNoneExist"].partition("%7C")[2]
            if any(i["value"] == condition for r in self.reports.values() for i in r["identifier"]):
                entry = [{"response": {"status": "200 OK"}}, {"response": {"status": "201"}}]
                return httpx2.Response(200, json={"resourceType": "Bundle", "entry": entry})
            identity, version = f"there-{len(self.reports) + 1}", 1
        else:
            identity = report["request"]["url"].partition("/")[2]
            stored = self.reports[identity]
            if report["request"]["ifMatch"] != f'W/"{stored["meta"]["versionId"]}"':
                return httpx2.Response(412)
            version = int(stored["meta"]["versionId"]) + 1
        resource = report["resource"]
        self.reports[identity] = resource | {
            "id": identity,
            "meta": resource["meta"] | {"versionId": str(version)},
        }
        self.provenances.append(provenance["resource"])
        if self.lose_answer:
            self.lose_answer = False
            raise httpx2.ReadTimeout("lost")
        return httpx2.Response(200, json={"resourceType": "Bundle", "type": "transaction-response"})


@contextmanager
def serving_ehr(ehr: Ehr) -> Iterator[str]:
    """Its base URL, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """A search."""
            self._answer()

        def do_POST(self) -> None:
            """A transaction."""
            self._answer()

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            asked = httpx2.Request(self.command, f"{url}{self.path}", headers=dict(self.headers), content=content)
            answer = ehr.handle(asked)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/fhir+json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"{url}/fhir"
        finally:
            server.shutdown()
            thread.join()
