"""A newcomer's first report as an animation: `python -m inlay_testkit.recording docs/images/filling.webp`.

Everything is real: `inlay demo`, its model, Chromium. The steps are those of docs/start.md, and how long each took is
printed; what is read and thought between two keys is not in it.
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, expect

from inlay_testkit.browser import chromium
from inlay_testkit.demonstrated import await_the_draft, demonstrated, logged_in, open_the_draft

WIDTH = 1000
CAPTION_HEIGHT = 34
LOOK_MS = 1400
# Canvases come ten a second at most.
CANVAS_MS = 180
# WebP, lossy: letters stay sharp, and a report stays below 300 KB.
QUALITY = 45


class Recorder:
    """Frames of a page with a caption below, and when each step was done."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []
        self.steps: dict[str, float] = {}
        self._began = 0.0
        self._font = ImageFont.load_default(20)

    def frame(self, caption: str, milliseconds: int = LOOK_MS) -> None:
        """The window as it is now."""
        shown = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        shown.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        picture = Image.new("RGB", (shown.width, shown.height + CAPTION_HEIGHT), "#11161b")
        picture.paste(shown)
        draw = ImageDraw.Draw(picture)
        draw.text((14, shown.height + 4), caption, fill="#e8d9a0", font=self._font)
        self.frames.append(picture)
        self.durations.append(milliseconds)

    def begin(self) -> None:
        """Time counts from now: the draft is in the worklist."""
        self._began = time.monotonic()

    def done(self, step: str) -> None:
        """A step is done: seconds since the beginning."""
        self.steps[step] = round(time.monotonic() - self._began, 1)

    def save(self, file: Path) -> None:
        """The animation, for ever again."""
        first, *rest = self.frames
        first.save(
            file,
            save_all=True,
            append_images=rest,
            duration=self.durations,
            loop=0,
            quality=QUALITY,
            method=6,
            minimize_size=True,
        )


def record(recorder: Recorder) -> None:
    """Lock, gap, fill, accept, sign: by keyboard where there is a key."""
    page = recorder.page
    message = page.locator("#status #message")
    pieces = page.locator('[data-section="findings"] .piece')
    await_the_draft(page)
    recorder.begin()
    recorder.frame("The worklist: one draft waits")
    open_the_draft(page)
    recorder.done("opened")
    page.wait_for_timeout(900)
    recorder.frame("The draft of the model, beside the image", 2 * LOOK_MS)
    for _ in range(2):
        pieces.first.click()
        page.keyboard.press("F3")
        recorder.frame("F3: what is right is locked")
    recorder.done("locked")
    pieces.first.click()
    page.keyboard.press("Alt+Backspace")
    recorder.frame("Alt+Backspace: this sentence goes, a gap is left")
    page.keyboard.press("F2")
    page.wait_for_selector(".stream:not(:empty), .fresh")
    while page.locator(".stream").count() and len(recorder.frames) < 60:
        recorder.frame("F2: fill. The words come, between the locks", CANVAS_MS)
    expect(message).to_contain_text("Filled")
    recorder.done("filled")
    recorder.frame("What is new has a green ground", 2 * LOOK_MS)
    while page.locator(".review").count():
        page.keyboard.press("F6")
        page.locator(".review").get_by_role("button", name="Accept").first.click()
    recorder.frame("F3: accepted")
    page.keyboard.press("F9")
    expect(page.get_by_role("dialog")).to_be_visible()
    recorder.frame("F9: what to look at, and the difference to the draft", 2 * LOOK_MS)
    page.keyboard.press("Space")
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.locator("#report-status")).to_have_text("signed")
    recorder.done("signed")
    recorder.frame("Signed by a named clinician; the result is on its way", 3 * LOOK_MS)


def main(file: Path) -> None:
    """Record, save, and print how long each step took."""
    with tempfile.TemporaryDirectory() as home, demonstrated(Path(home)) as address, chromium() as browser:
        recorder = Recorder(logged_in(browser, address))
        record(recorder)
        recorder.save(file)
    told = {"seconds": recorder.steps, "frames": len(recorder.frames), "bytes": file.stat().st_size}
    print(json.dumps(told))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the animation, as WebP")
    main(parser.parse_args().file)
