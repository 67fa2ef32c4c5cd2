"""A worker with a real engine under bad input: each failure ends its job by name, and the next job is done."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from inlay_core.application import drafting
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.infill import Gap, InfillRequest, InfillSection, LockText
from inlay_core.domain.job import Job, JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.settings import Settings
from inlay_model import Engine, GenerationSettings
from inlay_model.provenance import digest_of_folder
from inlay_testkit.core import RADIOLOGIST
from inlay_testkit.dicom import file_bytes, radiograph
from inlay_testkit.installation import Installation
from inlay_testkit.tiny_diffusion import save_tiny
from inlay_worker.wiring import load_model, make_worker


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


class Site(Installation):
    """An installation with one worker in this process, whose model can be made to fail."""

    def __init__(self, home: Path, checkpoint: Path) -> None:
        super().__init__(home, model=str(checkpoint), device="cpu", steps=2)
        engine = load_model(self.settings)
        assert isinstance(engine, Engine)
        self.engine: Engine = engine
        self.worker = make_worker(self.settings, engine)
        # There from the start: the folder is not looked through again at once.
        self.image("99")

    @contextmanager
    def failing(self, act: Callable[..., Any]) -> Iterator[None]:
        """Call `act` before each pass of the decoder's first layer."""
        handle = self.engine.checkpoint.model.model.decoder.layers[0].register_forward_pre_hook(act)
        yield
        handle.remove()

    def last(self, report: Any) -> Job:
        """The report's newest job."""
        return self.jobs(report)[-1]

    def answers(self) -> None:
        """The worker drafts for another order."""
        report = self.order("99", image=False)
        assert self.worker.work_off() >= 1
        assert self.report(report).status is Status.DRAFTED


def _out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _not_a_number(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (torch.full_like(given[0], float("nan")), *given[1:])


@pytest.mark.parametrize(
    ("failure", "code", "remedy"),
    [(_out_of_memory, "not-enough-memory", "more free memory"), (_not_a_number, "nan-logits", "precision")],
)
def test_a_model_that_fails_is_tried_again(
    tmp_path: Path, tiny: Path, failure: Callable[..., Any], code: str, remedy: str
) -> None:
    """A full device and NaN logits queue the job again by name; what was kept is let go, and drafting goes on."""
    site = Site(tmp_path, tiny)
    report = site.order("1")
    with site.failing(failure):
        site.worker.work_off()
    job = site.last(report)
    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    assert job.reason is not None
    assert job.reason.code == code
    assert remedy in job.reason.text
    assert site.engine.prefixes.nbytes == 0
    site.answers()


def _infill(*items: Any) -> InfillRequest:
    return InfillRequest((InfillSection("findings", items),))


@pytest.mark.parametrize(
    ("text", "code", "remedy"),
    [("ॐ" * 40, "canvas-overflow", "Lock fewer"), ("clear " * 400, "canvas-overflow", "Lock fewer")],
)
def test_a_request_that_can_never_fit_is_parked(tmp_path: Path, tiny: Path, text: str, code: str, remedy: str) -> None:
    """More locked tokens than a canvas holds: one attempt, the counts in the reason, the report as it was."""
    site = Site(tmp_path, tiny)
    report = site.order("1")
    site.worker.work_off()
    before = site.report(report)
    drafting.request_infill(
        *site.ward.trio,
        RADIOLOGIST,
        report.id,
        expected_version=before.version,
        request=_infill(LockText(text), Gap(max_tokens=8)),
    )
    site.worker.work_off()
    job = site.last(report)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.reason is not None
    assert job.reason.code == code
    assert remedy in job.reason.text
    assert text not in job.reason.text
    assert [s.text for s in site.report(report).sections] == [s.text for s in before.sections]
    site.answers()


def test_a_prompt_beyond_the_positions_is_parked(tmp_path: Path, tiny: Path) -> None:
    """A checkpoint whose positions end behind its canvas reads no study: the job is parked and says why."""
    small = Path(shutil.copytree(tiny, tmp_path / "small"))
    config = json.loads((small / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 100
    (small / "config.json").write_text(json.dumps(config))
    site = Site(tmp_path / "home", small)
    report = site.order("1")
    assert site.worker.work_off() == 1
    job = site.last(report)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.reason is not None
    assert job.reason.code == "prompt-too-long"
    assert "Send fewer images" in job.reason.text


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.eye(20, 2000, dtype=np.uint16), "too long and narrow"),
        (np.full((96, 96), 900, np.uint16), "Send the image itself"),
    ],
)
def test_an_image_that_shows_no_body_is_parked(tmp_path: Path, tiny: Path, pixels: np.ndarray, said: str) -> None:
    """A sliver, and one that has the same value everywhere, decode: the job is parked, and the worker goes on."""
    site = Site(tmp_path, tiny)
    path = site.image("1")
    identity = {"StudyInstanceUID": "1.2.826.0.1.1", "AccessionNumber": "A1", "PatientName": "Testperson^Patricia^Tina"}
    path.write_bytes(file_bytes(radiograph(pixels, bits_stored=12, **identity)))
    os.utime(path, (0, 0))  # Written long ago: nothing waits for it to settle.
    report = site.order("1", image=False)
    site.worker.work_off()
    job = site.last(report)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.reason is not None
    assert job.reason.code == "bad-image"
    assert said in job.reason.text
    site.answers()


def _foreign(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "llama"}))


def _changed_since_it_was_fetched(folder: Path) -> None:
    (folder / ".inlay-fetch.json").write_text(json.dumps({"digest": "0" * 64}))


def _cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_foreign, "holds a llama model"),
        (_changed_since_it_was_fetched, "wrong digest"),
        (_cut_short, "cut short or damaged"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    ],
)
def test_a_worker_without_a_sound_checkpoint_takes_no_job(
    tmp_path: Path, tiny: Path, damage: Callable[[Path], None], said: str
) -> None:
    """Unknown class, wrong digest, damaged and missing files: the setting is named, and jobs stay for other workers."""
    folder = Path(shutil.copytree(tiny, tmp_path / "damaged"))
    damage(folder)
    with pytest.raises(Unavailable) as refused:
        load_model(Settings(home=tmp_path, model=str(folder), device="cpu"))
    assert (refused.value.code, refused.value.place) == ("checkpoint-problem", "INLAY_MODEL")
    assert said in refused.value.message


def test_a_worker_takes_the_expected_checkpoint_and_no_other(tmp_path: Path, tiny: Path) -> None:
    """By digest: a copy elsewhere will do; one changed byte is another model, which is refused before it is read."""
    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    expected = digest_of_folder(tiny)
    settings = Settings(home=tmp_path, model=str(folder), model_digest=expected, device="cpu")
    with capture_logs() as logs:
        assert load_model(settings).digest == expected
    assert [(line["event"], line["precision"]) for line in logs] == [("model.loaded", "bf16")]
    # A file that any loader would take: only the digest tells the two apart.
    about = json.loads((folder / "inlay.json").read_text(encoding="utf-8"))
    (folder / "inlay.json").write_text(json.dumps(about | {"name": "poisoned"}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(Unavailable, match="wrong digest") as refused:
        load_model(settings)
    assert (refused.value.code, refused.value.place) == ("checkpoint-problem", "INLAY_MODEL_DIGEST")
    assert expected in refused.value.message
    assert digest_of_folder(folder) in refused.value.message


def test_a_worker_keeps_encoded_what_its_setting_has_room_for(tmp_path: Path, tiny: Path) -> None:
    """The setting is in MiB; with none, a study is encoded for every text."""
    kept = []
    for room in (512, 0):
        engine = load_model(Settings(home=tmp_path, model=str(tiny), device="cpu", prefix_cache_mib=room))
        assert isinstance(engine, Engine)
        engine.draft([np.eye(64, dtype=np.uint8) * 255], settings=GenerationSettings(steps=1))
        kept.append(engine.prefixes.nbytes > 0)
    assert kept == [True, False]


def test_a_device_that_there_is_not_names_its_setting(tmp_path: Path, tiny: Path) -> None:
    """The checkpoint is sound: what is wrong is where it is to stand."""
    with pytest.raises(Unavailable, match="no device gpu") as refused:
        load_model(Settings(home=tmp_path, model=str(tiny), device="gpu"))
    assert refused.value.place == "INLAY_DEVICE or INLAY_PRECISION"
