"""A ward with images and one worker, on the fakes of database, images and model."""

import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np

from inlay_core.application import drafting
from inlay_core.application.ports import PatientFields, Site
from inlay_core.domain.infill import FreeText, Gap, InfillRequest, InfillSection, LockRef
from inlay_core.domain.job import Job
from inlay_core.domain.patient import PersonName
from inlay_core.domain.report import Report
from inlay_testkit.core import RADIOLOGIST, Ward
from inlay_testkit.dicom import radiograph
from inlay_testkit.engine import FakeModel
from inlay_testkit.images import MemoryImages
from inlay_testkit.memory import Memory
from inlay_worker.generation import Generation
from inlay_worker.images import Studies
from inlay_worker.work import Worker

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
PATIENT = {"PatientName": "Planted^Patricia", "PatientID": "MRN-PLANTED-77"}
ORDERED = PatientFields("HOSP", "MRN-PLANTED-77", PersonName("Planted", "Patricia"), date(1970, 1, 2), "female")


class Hospital:
    """A ward with images and one worker."""

    def __init__(self, model: FakeModel | None = None, site: Site | None = None) -> None:
        self.memory = Memory()
        self.site = site or Site()
        self.ward = Ward(self.memory(), site=self.site)
        self.images = MemoryImages()
        self.model = model or FakeModel()
        self.canvases: list[tuple[str, int, int, str]] = []
        self.worker = self.new_worker(self.model)

    def new_worker(self, model: FakeModel) -> Worker:
        """Another worker on the same database."""
        return Worker(
            uow=self.memory,
            reader=self.memory,
            clock=self.ward.clock,
            new_id=self.ward.new_id,
            site=self.site,
            progress=self,  # type: ignore[arg-type]  # a worker only publishes
            studies=Studies(self.images),
            generation=Generation(model, steps=16),
        )

    def publish(self, job_id: str, step: int, steps: int, text: str, _accepted: Any = ()) -> None:
        """The progress port, kept."""
        self.canvases.append((job_id, step, steps, text))

    def order(self, number: str = "1", *, image: bool = True, **changes: Any) -> Report:
        """An order, with its image unless it has not arrived."""
        if image:
            self.arrive(number)
        return self.ward.order(number, **({"patient": ORDERED} | changes))

    def arrive(self, number: str = "1", **tags: Any) -> None:
        """The image of an order arrives."""
        identity = {"StudyInstanceUID": f"1.2.826.0.1.{number}", "AccessionNumber": f"A{number}"} | PATIENT
        self.images.put(radiograph(PIXELS, **(identity | tags)))

    def jobs(self, report: Report) -> list[Job]:
        """The jobs of a report, the draft first."""
        with self.memory() as uow:
            return sorted(uow.jobs.of_report(report.id), key=lambda job: job.kind)

    def infill(self, report: Report, **changes: Any) -> Job:
        """A clinician keeps the first sentence of the findings and asks for another one after it.

        A rewriting is of a sentence of theirs.
        """
        first = next(section for section in report.sections if section.name == "findings").fragments[0]
        after = FreeText("Pleura: fine. ") if changes.get("rewrite") else Gap(max_tokens=20, hint="pleura")
        request = InfillRequest((InfillSection("findings", (LockRef(first.id), after)),), **changes)
        return drafting.request_infill(
            *self.ward.trio, RADIOLOGIST, report.id, expected_version=report.version, request=request, site=self.site
        )


def ticking(seconds: float) -> Callable[[], float]:
    """A timer that goes on by so much whenever it is read."""
    lock, now = threading.Lock(), [0.0]

    def read() -> float:
        with lock:
            now[0] += seconds
            return now[0]

    return read


def raising(error: Exception) -> Callable[[int], None]:
    """A model that fails at every step."""

    def step(_: int) -> None:
        raise error

    return step


def raise_in_first_call(error: Exception) -> Callable[[int], None]:
    """A model that fails once."""
    left = [error]

    def step(_: int) -> None:
        if left:
            raise left.pop()

    return step
