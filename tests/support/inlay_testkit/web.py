"""The web application over a real installation, and callers with tokens of each role."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from inlay_api.app import create_app
from inlay_api.auth import mint
from inlay_core.application.ports import Generated
from inlay_core.domain.infill import Choice
from inlay_core.domain.job import Job, JobState
from inlay_testkit.core import DRAFT
from inlay_testkit.installation import Installation

API = "/api/v1"
ROLES = ("ris", "ehr", "radiologist", "admin", "auditor")


class Web:
    """An installation below `home` with the application on top; callers are named by their role."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.site = Installation(home, **settings)
        self.app = create_app(self.site.settings, self.site.services)
        self.client: FlaskClient = self.app.test_client()
        self._tokens: dict[str, str] = {}

    def token(self, role: str) -> str:
        """A token for that role."""
        if role not in self._tokens:
            self._tokens[role] = mint(self.site.settings, f"id:{role}", f"Name of {role}", [role], 1)
        return self._tokens[role]

    def call(
        self,
        method: str,
        path: str,
        role: str | None = "radiologist",
        *,
        body: Any = None,
        match: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> TestResponse:
        """One request below /api/v1, with a token of the role and a JSON body."""
        sent = dict(headers or {})
        if role is not None:
            sent.setdefault("Authorization", f"Bearer {self.token(role)}")
        if match is not None:
            sent["If-Match"] = match
        if raw is not None:
            return self.client.open(API + path, method=method, headers=sent, data=raw, content_type="application/json")
        return self.client.open(API + path, method=method, headers=sent, json=body)

    def get(self, path: str, role: str | None = "radiologist", **headers: str) -> TestResponse:
        """A reading; `If_None_Match="..."` becomes that header."""
        return self.call("GET", path, role, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def drafted(self, number: str = "1", generated: Generated = DRAFT) -> dict[str, Any]:
        """A report with its draft, as a radiologist reads it."""
        report = self.site.order(number, wake=False)
        self.site.ward.draft(generated)
        return self.report(report.id)

    def report(self, report_id: str) -> dict[str, Any]:
        """The report as a radiologist reads it now."""
        answer = self.get(f"/reports/{report_id}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.get_json()
        return body

    def fill(self, *texts: str, choices: tuple[Choice, ...] = ()) -> Job:
        """Have the worker take the next infill to its end, with one text per gap in order."""
        from inlay_core.application import drafting
        from inlay_core.domain.infill import Fill, OpenGap
        from inlay_testkit.core import WORKER

        ward = self.site.ward
        claimed = drafting.claim_next(*ward.trio, WORKER)
        assert claimed is not None
        places = [
            (part.name, number)
            for part in claimed.sections
            for number, item in enumerate(part.items)
            if isinstance(item, OpenGap)
        ]
        fills = tuple(Fill(name, number, text) for (name, number), text in zip(places, texts, strict=True))
        fence = claimed.job.fence
        drafting.start_generation(*ward.trio, WORKER, claimed.job.id, fence=fence)
        applied = drafting.apply_result(
            *ward.trio,
            WORKER,
            claimed.job.id,
            fence=fence,
            generated=Generated({"seed": 7}, fills=fills, alternatives=choices),
        )
        assert applied.job.state is JobState.SUCCEEDED
        return applied.job
