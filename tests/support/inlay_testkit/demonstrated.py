"""`inlay demo` as a newcomer starts it, with its real processes and model, and Chromium before the study that waits."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

# A busy machine loads torch and the model, and plays the way of an order, within this.
PATIENCE_SECONDS = 300.0


@contextmanager
def demonstrated(home: Path) -> Iterator[str]:
    """The address that `inlay demo` prints, once it has played its order and left a study to whoever comes."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("INLAY_")}
    log = home / "demo.log"
    with log.open("wb") as written:
        command = [sys.executable, "-m", "inlay_cli", "demo", "--patience", str(PATIENCE_SECONDS)]
        process = subprocess.Popen(command, env=env | {"INLAY_HOME": str(home)}, stdout=written, stderr=written)
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        told = re.search(r"one more study waits at (\S+) to be read", log.read_text(errors="replace"))
        if told:
            return told[1]
        time.sleep(0.2)
    raise AssertionError(f"inlay demo did not get ready: {log.read_text(errors='replace')[-500:]}")


def logged_in(browser: Browser, address: str) -> Page:
    """A window before the worklist, of the radiologist whom the login page offers."""
    context = browser.new_context(base_url=address, viewport={"width": 1400, "height": 860})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto("/")
    page.get_by_role("link", name="Log in").click()
    page.get_by_role("button", name="Demo Radiologist").click()
    return page


def await_the_draft(page: Page) -> None:
    """The study that waits is drafted, as the worklist shows it."""
    # From then on the list holds what is open, and no longer what the server drew with the page.
    expect(page.locator("#worklist #message")).to_contain_text("The list follows", timeout=PATIENCE_SECONDS * 1000)
    row = page.locator("tr", has=page.locator(".state-drafted"))
    expect(row).to_have_count(1, timeout=PATIENCE_SECONDS * 1000)


def open_the_draft(page: Page) -> None:
    """From the worklist, with arrow key and Enter, into the study that waits; ready with its image."""
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".reading[data-ready]")
    page.wait_for_selector("#image[data-ready]")
