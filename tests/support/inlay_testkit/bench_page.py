"""What the page adds to the engine, and how smooth it stays: `python -m inlay_testkit.bench_page --json`.

Real parts and one clock: `inlay demo` with its model on one half of the cores, and Chromium on the other, because in a
hospital they are two machines. Per fill: from the key press to the first canvas on screen, less the engine's own time
(from the moment its job begins to be generated to the moment the worker tells of the first canvas). Long tasks are
counted while canvases come and somebody types.
"""

import argparse
import gzip
import json
import os
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

import inlay_api
from inlay_testkit.browser import chromium
from inlay_testkit.demonstrated import await_the_draft, demonstrated, logged_in, open_the_draft

FIRST_LOAD = ("reading.js", "theme.js", "session.js", "inlay.css", "pages.css", "inlay.svg")
WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: false });
window.drawn = null;
const target = document.querySelector("#text");
new MutationObserver(() => {
  if (window.drawn === null && document.querySelector(".stream:not(:empty)")) {
    // The frame after the change is the one that shows it.
    window.drawn = 0;
    const shown = () => (window.drawn = performance.timeOrigin + performance.now());
    requestAnimationFrame(() => requestAnimationFrame(shown));
  }
}).observe(target, { subtree: true, childList: true });
"""
PRESSED = "performance.timeOrigin + performance.getEntriesByName('inlay-fill').at(-1).startTime"


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m inlay_testkit.bench_page", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="fills (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args()
    servers, browsers = _halves()
    with tempfile.TemporaryDirectory() as home:
        _keep_to(servers)
        with demonstrated(Path(home)) as address:
            _keep_to(browsers)
            with chromium() as browser:
                figures = measured(logged_in(browser, address), options.rounds)
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, figure in figures.items():
            print(f"{name:40} {figure}")


def _halves() -> tuple[set[int], set[int]]:
    """The cores of this process in two halves; the same ones twice where there is one, or none can be chosen."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    half = (len(cores) + 1) // 2
    return set(cores[:half]), set(cores[half:] or cores)


def _keep_to(cores: set[int]) -> None:
    """What this process starts from now on runs on these cores."""
    if cores:
        os.sched_setaffinity(0, cores)


def measured(page: Page, rounds: int) -> dict[str, Any]:
    """The figures of this many fills, and of as many that are typed into while their canvases come."""
    await_the_draft(page)
    open_the_draft(page)
    pieces = page.locator('[data-section="findings"] .piece')
    pieces.first.click()
    page.keyboard.press("F3")
    expect(page.locator("#status #message")).to_contain_text("Saved")
    page.evaluate(WATCH)
    added = [_added(page) for _ in range(rounds)]
    watched = page.evaluate("window.longTasks.splice(0)")
    typed = [_typed_into(page) for _ in range(rounds)]
    while_typing = page.evaluate("window.longTasks.splice(0)")
    return {
        "fills": rounds,
        "added_ms_median": round(statistics.median(one["added"] for one in added)),
        "added_ms_most": round(max(one["added"] for one in added)),
        "engine_first_canvas_ms_median": round(statistics.median(one["engine"] for one in added)),
        "key_to_first_canvas_ms_median": round(statistics.median(one["whole"] for one in added)),
        "before_the_worker_begins_ms_median": round(statistics.median(one["before"] for one in added)),
        "after_it_told_ms_median": round(statistics.median(one["after"] for one in added)),
        "long_tasks_while_canvases_come": len(watched),
        "longest_task_ms_while_canvases_come": round(max(watched, default=0)),
        "typed_into_while_canvases_came": sum(typed),
        "long_tasks_while_typing": len(while_typing),
        "longest_task_ms_while_typing": round(max(while_typing, default=0)),
        "first_load_bytes_compressed": sum(len(gzip.compress(_static(name))) for name in FIRST_LOAD),
    }


def _added(page: Page) -> dict[str, float]:
    job = _filled(page)
    body = page.evaluate("(id) => fetch(`/api/v1/jobs/${id}`).then((one) => one.json())", job)
    canvases = page.evaluate("(id) => fetch(`/api/v1/jobs/${id}/canvases`).then((one) => one.json())", job)["canvases"]
    begun = page.evaluate("(moment) => Date.parse(moment)", body["started_at"])
    told, pressed, drawn = canvases[0]["sequence"], page.evaluate(PRESSED), page.evaluate("window.drawn")
    engine, whole = told - begun, drawn - pressed
    return {"added": whole - engine, "engine": engine, "whole": whole, "before": begun - pressed, "after": drawn - told}


def _filled(page: Page) -> str:
    """A fill from F2 to its end; the id of its job."""
    page.evaluate("window.drawn = null")
    with page.expect_response(lambda one: one.url.endswith("/infill")) as asked:
        page.keyboard.press("F2")
    # Not wait_for_function: it evaluates text in the page, which the page's policy forbids.
    while not page.evaluate("window.drawn > 0"):
        page.wait_for_timeout(20)
    expect(page.locator("#status #message")).to_contain_text("Filled")
    return str(asked.value.json()["id"])


def _typed_into(page: Page) -> bool:
    """Whether canvases came while somebody typed; the fill is given up by it, which the page must bear smoothly."""
    page.evaluate("window.drawn = null")
    page.keyboard.press("F2")
    page.wait_for_selector(".stream:not(:empty)")
    page.locator('[data-section="technique"] .text').click()
    page.keyboard.type("Typed while it writes. ", delay=20)
    came = page.evaluate("window.drawn > 0")
    # On a quick machine the fill is there before the typing ends; what was typed is saved when it is looked through.
    expect(page.locator("#status #message")).to_contain_text(re.compile("Saved|Filled|given up"))
    page.locator('[data-section="technique"]').get_by_text("Typed while it writes.").first.click()
    page.keyboard.press("Alt+Backspace")
    page.keyboard.press("Alt+Backspace")
    expect(page.locator(".stream")).to_have_count(0)
    expect(page.locator("#status #message")).to_contain_text(re.compile("Saved|given up"))
    return bool(came)


def _static(name: str) -> bytes:
    return (Path(inlay_api.__file__).parent / "static" / name).read_bytes()


if __name__ == "__main__":
    main()
