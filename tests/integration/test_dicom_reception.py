"""Images that come over DICOM, from the wire to the draft job that waited for them."""

from pathlib import Path

import pytest

from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import JobState
from inlay_core.settings import Settings
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import FolderImages
from inlay_gateway.delivery import Books
from inlay_gateway.dicom import site_of, storage_scp
from inlay_gateway.sweepers import queue_arrived
from inlay_testkit.core import WORKER
from inlay_testkit.dicom import radiograph
from inlay_testkit.installation import PIXELS, Installation
from inlay_testkit.scp import storage


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
