"""The reading room of tests: `inlay serve` as a process, a worker that writes what it is told, and real Chromium."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from inlay_core.application import drafting
from inlay_core.application.ports import DEFAULT_SITE, Claimed, Generated, StepProgress
from inlay_core.domain.errors import Stale
from inlay_core.domain.fragment import SECTION_NAMES
from inlay_core.domain.infill import Candidate, Choice, Dispute, Fill, OpenGap
from inlay_core.domain.job import JobKind
from inlay_core.domain.report import Report
from inlay_testkit.core import DRAFT, WORKER
from inlay_testkit.peers import find_program
from inlay_testkit.server import Server

STEPS = 6
"""Canvases per job."""

# How long a test waits for what must come: machines that many share are slow, and speed is not what tests assert.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)

Gap = tuple[str, int, OpenGap]
"""Section, item and what is asked."""


def new_words(_gap: Gap, number: int) -> tuple[str, ...]:
    """Three texts for a gap; the first is filled in."""
    return f"New text {number}. ", f"Second text {number}. ", f"Third text {number}. "


def nothing_disputed(_claimed: Claimed) -> Sequence[Dispute]:
    """The model agrees with every lock."""
    return ()


class Worker:
    """Takes one job after the other in a thread.

    While `may_take` is not set it takes none, while `may_settle` is not set no canvas is the last one, and while
    `may_end` is not set the last canvas has no result.
    """

    def __init__(self, server: Server, draft: Generated = DRAFT) -> None:
        self.server = server
        self.draft = draft
        self.words: Callable[[Gap, int], tuple[str, ...]] = new_words
        self.disputes: Callable[[Claimed], Sequence[Dispute]] = nothing_disputed
        # Of the first texts of each gap how probable they are, and what run records note.
        self.odds: tuple[float, ...] = ()
        self.notes: tuple[str, ...] = ()
        # Whose choices results are taken by.
        self.site = DEFAULT_SITE
        self.may_take = threading.Event()
        self.may_settle = threading.Event()
        self.may_end = threading.Event()
        for allowed in (self.may_take, self.may_settle, self.may_end):
            allowed.set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        for allowed in (self.may_take, self.may_settle, self.may_end):
            allowed.set()
        self._thread.join(20)

    def _work(self) -> None:
        services = self.server.site.services
        while not self._over.wait(0.03):
            self.may_take.wait()
            claimed = drafting.claim_next(services.uow(), services.clock, services.new_id, WORKER)
            if claimed is not None and not self._over.is_set():
                # Whose job somebody else has by now has no more to say about it.
                with suppress(Stale):
                    self._take(claimed)

    def _take(self, claimed: Claimed) -> None:
        services, job = self.server.site.services, claimed.job
        first = services.uow(), services.clock, services.new_id, WORKER, job.id
        drafting.start_generation(*first, fence=job.fence)
        generated, canvas = self._written(claimed)
        shown: list[StepProgress] = []
        for step in range(1, STEPS + 1):
            if step == STEPS:
                self.may_settle.wait()
            text, spans = denoised(canvas, step / STEPS)
            shown.append(StepProgress(job.id, step, STEPS, text, tuple(spans)))
            services.progress.publish(job.id, step, STEPS, text, spans)
            # Adapters show no more than ten canvases a second.
            self._over.wait(0.12)
        self.may_end.wait()
        drafting.apply_result(
            *first, fence=job.fence, generated=replace(generated, canvases=tuple(shown)), site=self.site
        )

    def _written(self, claimed: Claimed) -> tuple[Generated, list[tuple[str, bool]]]:
        """What the job gives, and its canvas as (text, whether it is free)."""
        canvas: list[tuple[str, bool]] = []
        if claimed.job.kind is JobKind.DRAFT:
            for name, text in self.draft.texts:
                canvas += [(f"{name.capitalize()}: ", False), (text + "\n", True)]
            return self.draft, canvas
        fills: list[Fill] = []
        choices: list[Choice] = []
        for part in sorted(claimed.sections, key=lambda one: SECTION_NAMES.index(one.name)):
            canvas.append((f"{part.name.capitalize()}: ", False))
            for number, item in enumerate(part.items):
                if not isinstance(item, OpenGap):
                    canvas.append((item.text, False))
                    continue
                texts = self.words((part.name, number, item), len(fills) + 1)
                fills.append(Fill(part.name, number, texts[0]))
                known = (*self.odds, *(None for _ in texts))
                offered = tuple(Candidate(one.strip(), -0.1, odds) for one, odds in zip(texts, known, strict=False))
                choices.append(Choice(part.name, number, offered))
                canvas.append((texts[0], True))
            canvas.append(("\n", False))
        disputes = tuple(self.disputes(claimed))
        context = {"style": "plain", "rewrite": claimed.job.request["rewrite"]}
        record = {"model": "test", "seed": 1, "steps_taken": STEPS, "context": context, "notes": list(self.notes)}
        return Generated(record, fills=tuple(fills), disputes=disputes, alternatives=tuple(choices)), canvas


def denoised(canvas: Sequence[tuple[str, bool]], share: float) -> tuple[str, list[tuple[int, int]]]:
    """The canvas with that share of each free text settled and the rest still noise, and the spans that are settled."""
    text, spans = "", []
    for words, free in canvas:
        settled = int(len(words) * share) if free else len(words)
        spans.append((len(text), len(text) + settled))
        text += words[:settled] + "".join("~" if one.isalpha() else one for one in words[settled:])
    return text, spans


def longest_task(trace: bytes) -> float:
    """CPU milliseconds of the longest task of a page's main thread, in a trace with the category `toplevel`."""
    events = json.loads(trace)["traceEvents"]
    pages = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [event for event in events if (event["pid"], event["tid"]) in pages and "RunTask" in event["name"]]
    return float(max(event["tdur"] for event in tasks if "tdur" in event)) / 1000


class Room:
    """Server, worker and browser. `person` opens a window of somebody with a role; its requests are kept."""

    def __init__(self, home: Path, browser: Browser, **settings: Any) -> None:
        self.server = Server(home, **settings)
        self.worker = Worker(self.server)
        self.browser = browser
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._contexts: list[BrowserContext] = []
        self._orders = 1000

    @property
    def number(self) -> str:
        """The number of the newest order."""
        return str(self._orders)

    @property
    def accession(self) -> str:
        """The accession number of the newest order."""
        return f"A{self._orders}"

    def refresh(self) -> None:
        """Forget what was seen, and have the worker do as it does by default."""
        self.requests.clear()
        self.problems.clear()
        self.worker.words, self.worker.disputes = new_words, nothing_disputed
        self.worker.odds = self.worker.notes = ()
        self.worker.site = DEFAULT_SITE
        for allowed in (self.worker.may_take, self.worker.may_settle, self.worker.may_end):
            allowed.set()

    def leave(self) -> None:
        """Close all windows."""
        while self._contexts:
            self._contexts.pop().close()

    def drafted(self, draft: Generated = DRAFT, patient: str = "", **tags: Any) -> str:
        """The id of a new report with its draft; `tags` are attributes of its image, `patient` an order of theirs."""
        self.worker.draft = draft
        self._orders += 1
        report = self.server.site.order(str(self._orders), wake=False, patient=patient, **tags)
        self.await_draft(report)
        return report.id

    def await_draft(self, report: Report) -> None:
        """Wait until the worker has drafted it."""
        while self.server.site.report(report).status != "drafted":
            threading.Event().wait(0.05)

    def report_of(self, order_id: str) -> Report:
        """The report that answers the order."""
        with self.server.site.services.reader() as uow:
            found = uow.reports.by_order(order_id)
        assert found is not None
        return found

    def person(self, name: str = "radiologist", *roles: str, **options: Any) -> Page:
        """A window of somebody who has signed in."""
        from inlay_api.auth import mint

        token = mint(self.server.site.settings, f"id:{name}", f"Dr. {name.title()}", list(roles or ("radiologist",)), 1)
        context = self.browser.new_context(
            base_url=self.server.url,
            extra_http_headers={"Authorization": f"Bearer {token}"},
            viewport={"width": 1500, "height": 920},
            **options,
        )
        context.set_default_timeout(PATIENCE_MS)
        self._contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda said: self._heard(said.type, said.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        return page

    def _heard(self, kind: str, text: str) -> None:
        # Chromium tells of every refused request; that somebody else was faster (412), or that a test took the network
        # away, is part of the job.
        expected = "status of 412" in text or "ERR_INTERNET_DISCONNECTED" in text
        if kind in ("error", "warning") and not expected:
            self.problems.append(text)

    def read(self, report_id: str, name: str = "radiologist", **options: Any) -> Page:
        """The report in a window, ready to be edited."""
        page = self.person(name, **options)
        page.goto(f"/reports/{report_id}")
        page.wait_for_selector(".reading[data-ready]")
        return page

    def close(self) -> None:
        """End everything."""
        self.leave()
        self.worker.close()
        self.server.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window; raises PeerMissing where it is not installed."""
    with sync_playwright() as driver:
        yield launched(driver)


def launched(driver: Playwright) -> Browser:
    """Chromium as Debian packs it. The sandbox needs rights that containers do not give."""
    program = find_program("chromium")
    return driver.chromium.launch(executable_path=str(program), args=["--no-sandbox", "--disable-dev-shm-usage"])
