"""Settings to a worker that is ready: database, images, progress, and the model, loaded here and nowhere else."""

import time
from functools import partial
from pathlib import Path

from inlay_core import bootstrap
from inlay_core.application.tracing import NO_TRACER, Tracer
from inlay_core.domain.errors import Unavailable
from inlay_core.logs import get_logger
from inlay_core.settings import Settings
from inlay_dicom.mapping import FolderImages
from inlay_model import ModelError
from inlay_model.streaming import Stream
from inlay_worker.adapters import SETTING, read_choice, to_load
from inlay_worker.generation import Generation, Model
from inlay_worker.images import Studies
from inlay_worker.presence import Presence
from inlay_worker.work import Worker

_log = get_logger(__name__)


def make_worker(settings: Settings, model: Model, tracer: Tracer = NO_TRACER) -> Worker:
    """A worker with this model, on the database and the image folder that the settings name."""
    services = bootstrap.bootstrap(settings, images=lambda chosen: FolderImages.below(chosen.images))
    assert services.images is not None
    return Worker(
        uow=services.uow,
        reader=services.reader,
        clock=services.clock,
        new_id=services.new_id,
        site=services.site,
        progress=services.progress,
        studies=Studies(services.images, views=min(settings.views, model.views), zone=settings.zone),
        generation=Generation(
            model,
            steps=settings.steps,
            style=settings.report_style or None,
            demo_on_any_study=settings.demo_model_on_any_study,
            without_images=settings.infill_without_images,
            adapter_of=read_choice(settings.adapter, settings.adapters).by_job,
        ),
        together=settings.jobs_together,
        stream=partial(Stream, seconds=settings.progress_seconds),
        tracer=tracer,
    )


def make_presence(settings: Settings, worker: Worker) -> Presence:
    """What tells the installation that this worker is there, and with which model and adapters."""
    return Presence(
        worker_id=worker.new_id(),
        uow=worker.uow,
        clock=worker.clock,
        writer=worker.generation.writer,
        adapters=read_choice(settings.adapter, settings.adapters).folders,
        device=settings.device,
        jobs=lambda: worker.doing,
    )


def load_model(settings: Settings) -> Model:
    """The checkpoint that the settings name, else the demonstration checkpoint that is shipped, with its adapters.

    Raises Unavailable (code of the model's error) for a checkpoint or an adapter that cannot be used.
    """
    from inlay_model import Engine
    from inlay_model.loading import default_checkpoint, load

    began = time.monotonic()
    try:
        checkpoint = load(
            _checkpoint(settings.model) or default_checkpoint(),
            revision=settings.model_revision or None,
            digest=settings.model_digest or None,
            device=settings.device or None,
            adapter=to_load(read_choice(settings.adapter, settings.adapters)),
            precision=settings.precision,
            accelerate=settings.accelerate,
        )
    except ModelError as error:
        raise Unavailable(error.code, str(error), _setting_of(error, settings)) from None
    engine = Engine(checkpoint, kept_bytes=settings.prefix_cache_mib * 2**20)
    _log.info(
        "model.loaded",
        model=engine.name,
        digest=engine.digest,
        adapter=checkpoint.adapter_digest,
        precision=checkpoint.precision,
        seconds=round(time.monotonic() - began, 1),
    )
    return engine


def _setting_of(error: ModelError, settings: Settings) -> str:
    """Which setting to look at where the model cannot be loaded."""
    from inlay_model.errors import AdapterProblem, BadRequest, WrongDigest

    if isinstance(error, AdapterProblem):
        given = {"INLAY_ADAPTER": settings.adapter, SETTING: settings.adapters}
        return " or ".join(name for name, value in given.items() if value)
    if isinstance(error, WrongDigest):
        return "INLAY_MODEL_DIGEST"
    # What is asked of a sound checkpoint: where it is to stand, and how its numbers are held.
    return "INLAY_DEVICE or INLAY_PRECISION" if isinstance(error, BadRequest) else "INLAY_MODEL"


def _checkpoint(name: str) -> str | Path | None:
    """A folder if there is one of that name, else a hub id."""
    return Path(name) if name and Path(name).is_dir() else name or None
