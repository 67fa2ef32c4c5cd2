"""The worker with a real engine: loading, drafting, infilling and stopping, on SQLite and a folder of DICOM files."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_cli.demonstration.phantom import FINDINGS, SEED, phantom_file
from inlay_core.application import drafting
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.infill import FreeText, Gap, InfillRequest, InfillSection, LockText, resolve
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.report import Report
from inlay_core.settings import Settings
from inlay_model import Engine, RunRecord
from inlay_model.adapters import digest_of_adapter
from inlay_model.evaluation.wishes import sentences_of
from inlay_model.loading import default_checkpoint
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import read_sentences, write_report
from inlay_model.phantom.render import phantom
from inlay_testkit.core import RADIOLOGIST
from inlay_testkit.dicom import PHANTOM_TAGS
from inlay_testkit.installation import Installation
from inlay_testkit.tiny_diffusion import save_tiny
from inlay_testkit.tiny_training import save_tiny_adapter
from inlay_worker.generation import Generation, Model, sections_of
from inlay_worker.wiring import load_model, make_worker
from inlay_worker.work import Worker

# Combining marks, a right-to-left word, an emoji, CRLF, trailing blanks: nothing a small tokenizer brings back.
LOCK = "Cafe\u0301 \u05e9\u05dc\u05d5\u05dd \U0001fac1\r\n\tkept  "


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, marked as a demonstration model."""
    return save_tiny(tmp_path_factory.mktemp("tiny-demo"), demonstration=True)


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Site(Installation):
    """An installation with one worker in this process."""

    def __init__(self, home: Path, checkpoint: Path, **settings: Any) -> None:
        super().__init__(home, **({"model": str(checkpoint), "device": "cpu", "steps": 4} | settings))
        self.model: Model = load_model(self.settings)
        self.worker: Worker = make_worker(self.settings, self.model)
        # Tests that act upon a step are told of it before the next one is taken.
        self.worker.stream = nullcontext


def test_a_real_model_warms_up(tmp_path: Path, tiny: Path) -> None:
    """The made-up picture is one that the engine takes: it is encoded for the draft, and at hand for the infill."""
    site = Site(tmp_path, tiny)
    Generation(site.model, steps=2).warm_up()
    assert (site.model.prefixes.misses, site.model.prefixes.hits) == (1, 1)


def test_order_becomes_a_draft_of_the_model(tmp_path: Path, tiny: Path) -> None:
    """From DICOM file to report: the worker drafts with a real DiffusionGemma, and the run record can be read back."""
    site = Site(tmp_path, tiny)
    report = site.order()
    assert site.worker.work_off() == 1
    assert site.report(report).status is Status.DRAFTED
    (job,) = site.jobs(report)
    assert job.run_record is not None
    record = RunRecord.from_json(job.run_record)
    assert (record.kind, record.model_digest) == ("draft", site.model.digest)
    assert len(record.image_digests) == 1


def test_locked_text_comes_back_byte_for_byte(tmp_path: Path, tiny: Path) -> None:
    """An infill keeps a lock that the tokenizer cannot round-trip, and the sections that nobody asked about."""
    site = Site(tmp_path, tiny)
    report = site.order()
    site.worker.work_off()
    drafted = site.report(report)
    impression = next(s for s in drafted.sections if s.name == "impression")
    request = InfillRequest((InfillSection("findings", (LockText(LOCK), Gap(max_tokens=8), LockText("End."))),))
    drafting.request_infill(*site.ward.trio, RADIOLOGIST, report.id, expected_version=drafted.version, request=request)
    assert site.worker.work_off() == 1
    after = {s.name: s for s in site.report(report).sections}
    assert after["findings"].text.startswith(LOCK)
    assert after["findings"].text.endswith("End.")
    assert after["impression"] == impression
    assert site.jobs(report)[-1].state is JobState.SUCCEEDED


def test_same_job_gives_the_same_text_on_another_worker(tmp_path: Path, tiny: Path) -> None:
    """A job that is done again after a crash is drafted with the same seed: the same words come of it."""
    site = Site(tmp_path, tiny)
    report = site.order()
    told: list[str] = []
    publish = site.worker.progress.publish

    def stop_at_the_last(job_id: str, step: int, steps: int, text: str, accepted: Any = ()) -> None:
        told.append(text)
        publish(job_id, step, steps, text, accepted)
        if len(told) == 2:
            site.worker.stopping.set()

    site.worker.progress.publish = stop_at_the_last  # type: ignore[method-assign]
    site.worker.work_off()
    (job,) = site.jobs(report)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    again: list[str] = []
    other = make_worker(site.settings, load_model(site.settings))
    other.stream = nullcontext
    other.progress.publish = lambda _job, _step, _steps, text, _accepted=(): again.append(text)  # type: ignore[method-assign,assignment]
    other.work_off()
    assert site.report(report).status is Status.DRAFTED
    assert again[:2] == told[:2]


def test_demonstration_checkpoint_is_refused_on_a_real_study(tmp_path: Path, tiny_demo: Path) -> None:
    """Rule 9 with a real checkpoint and real headers: phantoms are drafted from, other studies are not."""
    site = Site(tmp_path, tiny_demo)
    person, phantom = site.order("1"), site.order("2", **PHANTOM_TAGS)
    site.worker.work_off()
    assert site.report(person).status is Status.FAILED
    assert site.report(phantom).status is Status.DRAFTED
    reason = site.jobs(person)[0].reason
    assert reason is not None
    assert reason.code == "not-a-phantom"


def test_setting_lifts_the_refusal(tmp_path: Path, tiny_demo: Path) -> None:
    """INLAY_DEMO_MODEL_ON_ANY_STUDY, and nothing else, lets the demonstration model read other studies."""
    site = Site(tmp_path, tiny_demo, demo_model_on_any_study=True)
    report = site.order()
    site.worker.work_off()
    assert site.report(report).status is Status.DRAFTED


def test_cancellation_from_another_thread_stops_the_model(tmp_path: Path, tiny: Path) -> None:
    """A cancellation committed while the model works stops it before the next step; no draft is left."""
    site = Site(tmp_path, tiny)
    report = site.order()
    shown: list[int] = []

    def cancel_elsewhere(job_id: str, step: int, *_: Any) -> None:
        shown.append(step)
        if step == 1:
            use = (site.services.uow(), site.services.clock, site.services.new_id, RADIOLOGIST)
            thread = threading.Thread(target=drafting.cancel_job, args=(*use, job_id))
            thread.start()
            thread.join()

    site.worker.progress.publish = cancel_elsewhere  # type: ignore[method-assign,assignment]
    site.worker.timer = _hurried()
    site.worker.work_off()
    (job,) = site.jobs(report)
    assert job.state is JobState.CANCELLED
    assert shown == [1]
    assert all(section.text == "" for section in site.report(report).sections)


def test_missing_checkpoint_is_said_before_any_job_is_touched(tmp_path: Path) -> None:
    """A worker without a usable checkpoint does not start: jobs stay queued instead of failing."""
    with pytest.raises(Unavailable) as caught:
        load_model(Settings(home=tmp_path, model=str(tmp_path / "no such folder")))
    assert caught.value.place == "INLAY_MODEL"


def drafted_phantom(tmp_path: Path) -> tuple[Site, Report]:
    """A site with the demonstration checkpoint, as shipped, and the report that it has drafted of a phantom."""
    # The phantom shows Petra, and the order is for somebody else.
    site = Site(tmp_path, default_checkpoint(), steps=16, patient_check="off")
    report = site.order(image=False, wake=False)
    file = site.settings.images / "phantom.dcm"
    file.write_bytes(phantom_file("1.2.826.0.1.1", "A1"))
    os.utime(file, (0, 0))  # Written long ago: nothing waits for it to settle.
    site.wakeup.wake([site.job(report).id])
    site.worker.work_off()
    return site, site.report(report)


@pytest.mark.parametrize(("hint", "slots"), [("bones", {"rib fracture", "scoliosis"}), ("devices", {"pacemaker"})])
def test_shipped_checkpoint_writes_what_was_hinted(tmp_path: Path, hint: str, slots: set[str]) -> None:
    """Behind one locked sentence nearly everything is missing: the gap says what the hint names, and that alone."""
    site, drafted = drafted_phantom(tmp_path)
    # All of the text: what the draft said differs from run to run.
    impression = InfillSection("impression", (LockText("Mild cardiomegaly. Moderate right pleural effusion. "),))
    body = InfillSection("findings", (LockText("The lungs are clear. "), Gap(hint=hint)))
    request = InfillRequest((body, impression), seed=1)
    drafting.request_infill(*site.ward.trio, RADIOLOGIST, drafted.id, expected_version=drafted.version, request=request)
    site.worker.work_off()
    findings = next(section for section in site.report(drafted).sections if section.name == "findings")
    written = read_sentences([part.text.strip() for part in findings.fragments if not part.locked])
    expected = Findings.normal(**FINDINGS)
    assert (written.unknown, {name for name, _ in written.stated}) == ((), slots)
    assert all(said == expected[name] for name, said in written.stated)
    run = site.jobs(drafted)[-1].run_record
    assert run is not None
    assert run["takes_hints"] is True


def test_shipped_checkpoint_says_a_report_again_around_a_lock(tmp_path: Path) -> None:
    """A report of another style with one sentence locked comes back in the site's style, with the phantom's findings.

    The lock is there byte for byte, the run record says what was asked, and the run gives the same text once more.
    """
    site, drafted = drafted_phantom(tmp_path)
    findings = Findings.normal(**FINDINGS)
    foreign = write_report(findings, "narrative", np.random.default_rng(0))
    said = [f"{sentence} " for sentence in dict(foreign.sections)["findings"]]
    items = (FreeText("".join(said[:2])), LockText(said[2]), FreeText("".join(said[3:])))
    impression = InfillSection("impression", (FreeText(foreign.text("impression")),))
    request = InfillRequest((InfillSection("findings", items), impression), seed=1, rewrite=True)
    drafting.request_infill(*site.ward.trio, RADIOLOGIST, drafted.id, expected_version=drafted.version, request=request)
    site.worker.work_off()
    after = {section.name: section for section in site.report(drafted).sections}
    job = site.jobs(drafted)[-1]
    assert (job.state, [one.text for one in after["findings"].fragments if one.locked]) == (
        JobState.SUCCEEDED,
        [said[2]],
    )
    sentences = [fragment.text.strip() for fragment in after["findings"].fragments]
    assert read_sentences(sentences).findings() == findings
    assert {one for one in sentences if one != said[2].strip()} <= sentences_of(findings, "standard")
    assert job.run_record is not None
    assert job.run_record["context"] == {"style": "standard", "rewrite": True}
    assert (job.run_record["rewrites"], job.run_record["takes_hints"]) == (True, True)
    asked = sections_of(resolve(request, drafted.sections), replaced=True)
    image = phantom(SEED, findings).image
    assert isinstance(site.model, Engine)
    again = site.model.replay(RunRecord.from_json(job.run_record), [image], asked)
    assert again.sections[0].text.split() == after["findings"].text.split()


def test_shipped_checkpoint_drafts_sentences(tmp_path: Path) -> None:
    """The demonstration checkpoint, as shipped, drafts both sections of a phantom in whole sentences."""
    _, drafted = drafted_phantom(tmp_path)
    assert drafted.status is Status.DRAFTED
    for name in ("findings", "impression"):
        section = drafted.section(name)
        assert section is not None
        assert section.text.strip().endswith(".")


def _hurried() -> Any:
    """A timer on which every look at the job's row is due."""
    now = [0.0]

    def read() -> float:
        now[0] += 0.1
        return now[0]

    return read


def test_one_adapter_for_all_is_part_of_the_run_record(tmp_path: Path, tiny: Path) -> None:
    """With INLAY_ADAPTER every text is written with it, and its record says so."""
    adapter = save_tiny_adapter(tiny, tmp_path / "adapter")
    site = Site(tmp_path, tiny, adapter=str(adapter))
    report = site.order()
    site.worker.work_off()
    (job,) = site.jobs(report)
    assert job.run_record is not None
    assert job.run_record["adapter_digest"] == digest_of_adapter(adapter)


def test_the_sender_of_an_order_chooses_the_adapter(tmp_path: Path, tiny: Path) -> None:
    """With INLAY_ADAPTERS a site's orders are written with its adapter, and the same study encoded anew for another."""
    ours, others = (save_tiny_adapter(tiny, tmp_path / name, seed) for name, seed in (("ours", 1), ("others", 2)))
    rules = tmp_path / "adapters.toml"
    found = []
    for sender in ("RIS", "ELSEWHERE"):
        rules.write_text(f'[[adapter]]\nfolder = "{ours}"\nsite = "{sender}"\n')
        site = Site(tmp_path / sender, tiny, adapter=str(others), adapters=str(rules))
        report = site.order()
        site.worker.work_off()
        (job,) = site.jobs(report)
        assert job.run_record is not None
        found.append(job.run_record["adapter_digest"])
    assert found == [digest_of_adapter(ours), digest_of_adapter(others)]


def test_an_adapter_that_does_not_fit_is_known_at_the_start(tmp_path: Path, tiny: Path) -> None:
    """An adapter of another checkpoint, and a folder that is none: the setting is named before a job is taken."""
    adapter = save_tiny_adapter(tiny, tmp_path / "adapter")
    other = shutil.copytree(tiny, tmp_path / "other")
    with (other / "config.json").open("a") as config:
        config.write("\n")
    for model, folder in ((other, adapter), (tiny, tmp_path)):
        with pytest.raises(Unavailable) as refused:
            load_model(Settings(home=tmp_path, model=str(model), device="cpu", adapter=str(folder)))
        assert (refused.value.code, refused.value.place) == ("adapter-problem", "INLAY_ADAPTER")
