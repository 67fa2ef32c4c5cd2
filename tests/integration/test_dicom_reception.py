"""Images that come over DICOM, from the wire to the draft job that waited for them."""

from pathlib import Path
from typing import Any

import pytest

from inlay_core.bootstrap import unit_of_work, upgrade_database
from inlay_core.domain.audit import Outcome, Tag
from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import JobState
from inlay_core.settings import Settings
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import FolderImages
from inlay_dicom.scp import CANNOT_UNDERSTAND
from inlay_dicom.store import ReceivedStore
from inlay_gateway.delivery import Books
from inlay_gateway.dicom import Recorder, site_of, storage_scp
from inlay_gateway.sweepers import queue_arrived
from inlay_testkit.archive import Held, web_archive
from inlay_testkit.core import WORKER, order_command
from inlay_testkit.dicom import radiograph
from inlay_testkit.gateway import process
from inlay_testkit.installation import PIXELS, Installation
from inlay_testkit.pacs import wait_for
from inlay_testkit.peers import free_port
from inlay_testkit.scp import Running, storage


def test_a_waiting_job_goes_on_when_its_image_was_sent(tmp_path: Path) -> None:
    """An order without images waits; after a C-STORE of its study the next sweep queues it again."""
    from inlay_core.application.drafting import claim_next, images_missing

    site = Installation(tmp_path)
    services = site.services
    report = site.order(image=False, wake=False)
    claimed = claim_next(services.uow(), services.clock, services.new_id, WORKER)
    assert claimed is not None
    images_missing(services.uow(), services.clock, services.new_id, WORKER, claimed.job.id, fence=claimed.job.fence)
    source = FolderImages(FolderIndex(site.settings.images, settle_s=0), rescan_s=0)
    books = Books(services.uow, services.clock, services.new_id)
    assert queue_arrived(books, source) == 0
    with storage(site.settings.images) as scp:
        assert scp.send(radiograph(PIXELS, bits_stored=12, StudyInstanceUID="1.2.826.0.1.1")) == [0]
    assert queue_arrived(books, source) == 1
    assert site.state(report) is JobState.QUEUED
    services.close()


def test_the_network_needs_a_list_of_peers(tmp_path: Path) -> None:
    """Bound to more than loopback, the listener does not start without saying who may send; with it, it does."""
    open_to_all = Settings(home=tmp_path, dicom_host="0.0.0.0")  # noqa: S104 - it is refused
    with pytest.raises(Invalid) as refused:
        storage_scp(open_to_all, site_of(open_to_all))
    assert refused.value.place == "INLAY_DICOM_CONFIG"
    config = tmp_path / "dicom.toml"
    config.write_text("[[listener.peer]]\nae_title = 'XRAY1'\n")
    named = Settings(home=tmp_path, dicom_host="0.0.0.0", dicom_config=str(config))  # noqa: S104
    storage_scp(named, site_of(named))


def test_a_mistake_in_the_file_stops_the_listener(tmp_path: Path) -> None:
    """A misspelt key, and TLS files that are not there, are named before anything listens."""
    config = tmp_path / "dicom.toml"
    settings = Settings(home=tmp_path, dicom_config=str(config))
    config.write_text("ae_titel = 'INLAY'\n")
    with pytest.raises(Invalid, match="ae_titel"):
        site_of(settings)
    config.write_text("[listener]\ntls_certificate = '/nowhere.crt'\n")
    with pytest.raises(Invalid, match="TLS"):
        storage_scp(settings, site_of(settings))


def test_what_comes_over_dicom_leaves_no_trace_in_log_and_trail(tmp_path: Path) -> None:
    """At the finest level the listener tells of images, conflicts and refusals, and nothing of patients and UIDs.

    What was refused is in the trail as well, and says no more.
    """
    port = free_port()
    upgrade_database(Settings(home=tmp_path))
    image: dict[str, Any] = {
        "PatientName": "Zwetschge^Wilma",
        "PatientID": "QX7731905",
        "StudyInstanceUID": "2.25.7731905",
    }
    first, other = radiograph(PIXELS, SOPInstanceUID="2.25.9021", **image), radiograph(PIXELS, **image)
    other.SOPInstanceUID, other.ViewPosition = first.SOPInstanceUID, "LL"
    broken = radiograph(PIXELS, **(image | {"StudyInstanceUID": None}))
    settings = {"INLAY_MLLP_PORT": "0", "INLAY_DICOM_PORT": str(port), "INLAY_LOG_LEVEL": "debug"}
    with process("listen", tmp_path, **settings) as listener:
        assert [listener.line("listener.ready")["listener"] for _ in range(2)] == ["mllp", "dicom"]
        client = Running(port, ReceivedStore(tmp_path, quota_bytes=1))
        assert client.send(first, first, other, broken, calling="ZWETSCHGE") == [0, 0, 0, CANNOT_UNDERSTAND]
        assert client.associate(calling="ZWETSCHGE", called="QX7731905").is_rejected
        client.hang_up()
        assert listener.end() == 0
    with unit_of_work(Settings(home=tmp_path)) as uow:
        events = [event for event in uow.audit.unsealed() if event.tag is Tag.INTAKE_ACCESS_REFUSED]
    told = [(event.detail["interaction"], event.detail["code"]) for event in events]
    assert told == [("store", "conflicting"), ("store", "bad-tag"), ("associate", "called-ae-unknown")]
    assert {(event.actor_id, event.outcome) for event in events} == {("dicom:127.0.0.1", Outcome.REFUSED)}
    log = "".join(listener.log) + "".join(event.canonical() for event in events)
    for expected in ('"conflicting"', '"bad-tag"', '"called-ae-unknown"', "dicom.object"):
        assert expected in log
    for planted in ("zwetschge", "wilma", "7731905", "2.25.9021"):
        assert planted not in log.lower()


def test_a_peer_that_floods_does_not_fill_the_trail(tmp_path: Path) -> None:
    """The same refusal of the same peer is written once in a minute; another one, and another peer's, by itself."""
    site, now = Installation(tmp_path), [0.0]
    record = Recorder(site.services, now=lambda: now[0])
    for _ in range(3):
        record("association-rejected", "10.0.0.1", "calling-ae-unknown", 0)
    record("association-rejected", "10.0.0.2", "calling-ae-unknown", 0)
    record("object", "10.0.0.1", "store-full", 10)
    record("object", "10.0.0.1", "stored", 10)
    now[0] = 61.0
    record("association-rejected", "10.0.0.1", "calling-ae-unknown", 0)
    with site.services.reader() as uow:
        told = [(event.actor_name, event.detail["code"]) for event in uow.audit.unsealed()]
    site.services.close()
    first, second = ("10.0.0.1", "calling-ae-unknown"), ("10.0.0.2", "calling-ae-unknown")
    assert told == [first, second, ("10.0.0.1", "store-full"), first]


def test_what_an_archive_is_asked_leaves_no_trace_in_the_log(tmp_path: Path) -> None:
    """The relay asks by accession number and patient id, and is answered with planted text: the log has neither."""
    from inlay_core.application.drafting import claim_next, images_missing

    held = Held(instead=lambda _: (500, "text/plain", b"Zwetschge"))
    site = Installation(tmp_path)
    services = site.services
    with web_archive(held) as url:
        config = tmp_path / "dicom.toml"
        config.write_text(f"[dicomweb]\nurl = '{url}'\n")
        site.ward.receive(order_command("7731905", accession_number="ZK9021"))
        claimed = claim_next(services.uow(), services.clock, services.new_id, WORKER)
        assert claimed is not None
        images_missing(services.uow(), services.clock, services.new_id, WORKER, claimed.job.id, fence=claimed.job.fence)
        asks = {"INLAY_DICOM_CONFIG": str(config), "INLAY_SWEEP_SECONDS": "0.1", "INLAY_LOG_LEVEL": "debug"}
        with process("relay", tmp_path, **asks) as relay:
            assert relay.line("duty.unavailable")["code"] == "archive-away"
            wait_for(lambda: len(held.asked) > 1)
            assert relay.end() == 0
    log = "".join(relay.log)
    services.close()
    assert "/studies" in held.asked
    for planted in ("zwetschge", "7731905", "zk9021", "testperson"):
        assert planted not in log.lower()
