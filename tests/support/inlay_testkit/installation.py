"""An installation in a folder: SQLite, a watched image folder and a broker, with orders whose data are planted.

What is planted about patient and order must show up nowhere but in the database: tests look for `PLANTED`.
"""

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inlay_core import bootstrap
from inlay_core.domain.job import Job, JobState
from inlay_core.domain.report import Report
from inlay_core.messaging import QUEUE, CeleryWakeup, broker_folders, celery_app
from inlay_core.settings import Settings
from inlay_testkit.core import Ward, order_command
from inlay_testkit.dicom import file_bytes, radiograph

PIXELS = np.random.default_rng(3).integers(0, 4096, (96, 96), dtype=np.uint16)


def opened(message: str | bytes) -> str:
    """A message of the broker as words: its envelope, and the body that travels in it as base64.

    Looking for a word in the message as it travels would find none of the body's, and short ones by accident.
    """
    envelope = json.loads(message)
    assert envelope["properties"]["body_encoding"] == "base64"
    body = base64.b64decode(envelope.pop("body"), validate=True).decode()
    assert envelope["content-encoding"] == "utf-8"
    return f"{json.dumps(envelope)}\n{body}"


class Installation:
    """Database, images and broker below `home`; orders come in by `order`."""

    PLANTED = ("Testperson", "Tina", "MRN", "Patricia", "horse", "1.2.826.0.1", "P1", "A1")

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = Settings(home=home, **{"rate_limits": "off", **settings})
        bootstrap.upgrade_database(self.settings)
        self.services = bootstrap.bootstrap(self.settings)
        self.ward = Ward(self.services.uow())
        self.ward.clock = self.services.clock  # type: ignore[assignment]
        self.ward.new_id = self.services.new_id
        self.wakeup = CeleryWakeup(celery_app(self.settings))
        self.settings.images.mkdir(parents=True, exist_ok=True)

    def services_with(self, settings: Settings) -> bootstrap.Services:
        """The services of this installation under other settings."""
        return replace(self.services, settings=settings)

    def order(
        self, number: str = "1", *, wake: bool = True, image: bool = True, patient: str = "", **tags: Any
    ) -> Report:
        """An order, its image (with these attributes), and the wake-up that the relay would send.

        It is for a patient of its own, or for that of the order number `patient`.
        """
        if image:
            self.image(number, **tags)
        whose = order_command(patient or number).patient
        received = self.ward.receive(order_command(number, reason="planted reason: fell off her horse", patient=whose))
        with self.services.reader() as uow:
            report = uow.reports.by_order(received.order_ids[0])
        assert report is not None
        if wake:
            self.wakeup.wake([self.job(report).id])
        return report

    def image(self, number: str, **tags: Any) -> Path:
        """The image of an order arrives in the watched folder."""
        identity = {
            "StudyInstanceUID": f"1.2.826.0.1.{number}",
            "AccessionNumber": f"A{number}",
            "PatientName": "Testperson^Patricia^Tina",
        }
        path = self.settings.images / f"Patricia-{number}.dcm"
        path.write_bytes(file_bytes(radiograph(PIXELS, bits_stored=12, **(identity | tags))))
        os.utime(path, (0, 0))  # Written long ago: nothing waits for it to settle.
        return path

    def jobs(self, report: Report) -> list[Job]:
        """The jobs of a report, the draft first."""
        with self.services.reader() as uow:
            return sorted(uow.jobs.of_report(report.id), key=lambda job: job.kind)

    def job(self, report: Report) -> Job:
        """The draft job of a report."""
        return self.jobs(report)[0]

    def state(self, report: Report) -> JobState:
        """Where the draft job of a report stands."""
        return self.job(report).state

    def report(self, report: Report) -> Report:
        """The newest version."""
        with self.services.reader() as uow:
            found = uow.reports.get(report.id)
        assert found is not None
        return found

    def tags(self, report: Report) -> list[str]:
        """The trail of a report."""
        with self.services.reader() as uow:
            return [str(event.tag) for event in uow.audit.of_report(report.id)]

    def step(self, report: Report) -> int:
        """The last denoising step of the draft that was shown."""
        with self.services.reader() as uow:
            shown = uow.progress.get(self.job(report).id)
        return shown.step if shown else 0

    def messages(self) -> list[Path]:
        """Messages that wait in the embedded broker's folder."""
        return sorted(broker_folders(self.settings.home)[0].glob(f"*.{QUEUE}.msg"))
