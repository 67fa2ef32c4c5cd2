"""What a request is answered with: the services of the process, who may call, and bounds on streams and pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from flask import current_app

from inlay_api.auth import Verifier
from inlay_api.metrics import Metrics
from inlay_api.oidc import Provider
from inlay_api.readings import Readings
from inlay_api.wakeups import Wakeups
from inlay_core.application.ports import ImageSource, UnitOfWork
from inlay_core.bootstrap import Services
from inlay_core.domain.ids import Clock, NewId
from inlay_core.settings import Settings
from inlay_fhir.router import FhirRouter

NAME: Final = "inlay"
# A film of 16 megapixels takes some hundred megabytes while it is decoded; two at a time keep the memory bounded.
_RENDERINGS: Final = 2
# Threads that stay free for ordinary requests, however many progress streams there are.
_FREE_THREADS: Final = 2


@dataclass(slots=True)
class Desk:
    """One per process. `images` is opened when the first picture is asked for, so that starting needs no pydicom."""

    services: Services
    verifier: Verifier
    metrics: Metrics
    readings: Readings
    fhir: FhirRouter
    wakeups: Wakeups
    open_images: Callable[[Settings], ImageSource]
    provider: Provider | None = None
    streams: threading.BoundedSemaphore = field(init=False)
    renderings: threading.BoundedSemaphore = field(init=False)
    _images: ImageSource | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        settings = self.services.settings
        most = min(settings.max_streams, settings.http_threads - _FREE_THREADS)
        self.streams = threading.BoundedSemaphore(max(1, most))
        self.renderings = threading.BoundedSemaphore(_RENDERINGS)

    @property
    def settings(self) -> Settings:
        """What the process is configured with."""
        return self.services.settings

    @property
    def act(self) -> tuple[UnitOfWork, Clock, NewId]:
        """The first three arguments of a use case that writes."""
        return self.services.uow(), self.services.clock, self.services.new_id

    def images(self) -> ImageSource:
        """Where the studies are."""
        with self._opening:
            if self._images is None:
                self._images = self.open_images(self.settings)
            return self._images


def desk() -> Desk:
    """The desk of the application that answers now."""
    return cast("Desk", current_app.extensions[NAME])
