"""The pictures of the documentation: `python -m inlay_testkit.screenshots docs/images`. Everyone in them is invented.

The words are those of the demonstration's phantoms; the test kit's worker writes them, so that a picture is the same
whatever a model would say today.
"""

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from inlay_cli.demonstration.phantom import FINDINGS, phantom_file
from inlay_core.application.ports import Claimed, Generated
from inlay_core.domain.infill import Dispute, KeptText
from inlay_core.domain.order import Priority
from inlay_testkit.browser import Gap, Room, chromium
from inlay_testkit.core import order_command

DRAFT = Generated(
    {"model": "demonstration", "seed": 1, "demonstration": True},
    texts=(
        (
            "findings",
            (
                "Heart size is mildly enlarged. Both lungs are clear. A small right pleural effusion is present. "
                "There is no pneumothorax. A left sided pacemaker is in place. "
            ),
        ),
        ("impression", "Mild cardiomegaly. Small right pleural effusion. Left sided pacemaker."),
    ),
)
# Every hue gets its share, then moves to where its pixels are, so that a grey image stays grey; below 200 KB.
COLOURS = 256
MOVES = 4
WIDTH = 1200


def words(gap: Gap, _number: int) -> tuple[str, ...]:
    """What the worker writes: the effusion as it is, in three ways."""
    if gap[0] == "findings":
        texts = "A moderate right pleural effusion is present. ", "There is a moderate effusion on the right. "
        return (*texts, "Moderate right pleural effusion. ")
    return "Moderate right pleural effusion. Left sided pacemaker.", "Right pleural effusion, moderate. Pacemaker."


def disputed(claimed: Claimed) -> Sequence[Dispute]:
    """The model would not say "mildly"."""
    place = next(
        (part.name, number)
        for part in claimed.sections
        for number, item in enumerate(part.items)
        if isinstance(item, KeptText) and item.text.startswith("Heart size is mildly")
    )
    message = "The model holds “mildly” to be wrong: it gives it a probability of 4 % and would say “markedly”."
    return [Dispute(*place, 14, 20, "disputed", message)]


def main(folder: Path) -> None:
    """Draw the pictures into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, chromium() as browser:
        room = Room(Path(home), browser)
        try:
            room.worker.words, room.worker.disputes = words, disputed
            report_id = orders(room)
            page = room.read(report_id, "rada phantom")
            page.wait_for_selector("#image[data-ready]")
            filled(page)
            draw(page, folder / "reading.png")
            page.goto("/")
            expect(page.locator("tbody tr")).to_have_count(4)
            draw(page, folder / "worklist.png")
        finally:
            room.close()


def orders(room: Room) -> str:
    """Four orders of falling urgency, the first two drafted; the id of the first report."""
    priorities = (Priority.STAT, Priority.URGENT, Priority.ROUTINE, Priority.ROUTINE)
    procedures = ("Chest X-ray PA", "Chest X-ray PA", "Chest X-ray, portable", "Chest X-ray PA and lateral")
    room.worker.draft = DRAFT
    site, reports = room.server.site, []
    for number, (procedure, priority) in enumerate(zip(procedures, priorities, strict=True), start=1):
        if number == 3:
            room.worker.may_take.clear()
        if number == 1:
            data = phantom_file("1.2.826.0.1.1", "A1", FINDINGS)
            (site.settings.images / "phantom.dcm").write_bytes(data)
        elif number < 4:
            site.image(str(number))
        command = order_command(str(number), procedure_text=procedure, priority=priority, reason="Cough for two weeks.")
        reports.append(room.report_of(site.ward.receive(command).order_ids[0]))
        if number < 3:
            room.await_draft(reports[-1])
    room.worker.may_take.set()
    return reports[0].id


def filled(page: Page) -> None:
    """Three locks, a gap with a hint, and the fill."""
    for text in ("Heart size", "Both lungs", "There is no", "A left sided", "Mild cardiomegaly"):
        page.locator(".ProseMirror").get_by_text(text).click()
        page.keyboard.press("F3")
    page.keyboard.press("F2")
    expect(page.locator("#status #message")).to_contain_text("Filled")
    page.wait_for_timeout(900)


def draw(page: Page, file: Path) -> None:
    """The window as a small PNG."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    colours = picture.quantize(COLOURS, method=method, kmeans=MOVES, dither=dither)
    colours.save(file, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    main(parser.parse_args().folder)
