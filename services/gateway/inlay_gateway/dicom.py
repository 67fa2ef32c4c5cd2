"""DICOM in the gateway: the site's file read as a setting, and the Storage SCP that `inlay listen` runs."""

from __future__ import annotations

import ipaddress
from typing import Final

from inlay_core.application.retention import open_studies
from inlay_core.bootstrap import Services
from inlay_core.domain.errors import Invalid
from inlay_core.logs import get_logger
from inlay_core.settings import Settings
from inlay_dicom.archive import Archive
from inlay_dicom.mapping import FolderImages
from inlay_dicom.scp import StorageScp, Use
from inlay_dicom.scu import DimseArchive
from inlay_dicom.site import Site, read_site_file
from inlay_dicom.store import ReceivedStore
from inlay_dicom.web import WebArchive

LOG: Final = get_logger(__name__)
SETTING: Final = "INLAY_DICOM_CONFIG"
_GIB: Final = 1 << 30
# What happens all day long; a refusal, a conflict or a broken association is worth a warning.
_ORDINARY: Final = frozenset({"stored", "repeated", "success"})


def site_of(settings: Settings) -> Site:
    """The site's neighbours. Raises Invalid, naming the setting and the place in its file."""
    try:
        return read_site_file(settings.dicom_config)
    except ValueError as problem:
        raise Invalid("bad-setting", str(problem), SETTING) from None


def store_of(settings: Settings, site: Site) -> ReceivedStore:
    """Where received images are kept."""
    return ReceivedStore(settings.images, quota_bytes=int(site.listener.quota_gib * _GIB))


def needed_studies(services: Services) -> frozenset[str]:
    """StudyInstanceUIDs of the studies whose report nobody has answered for yet: their images stay."""
    wanted = open_studies(services.reader())
    here = FolderImages.below(services.settings.images)
    by_number = (here.find(None, number) for uid, number in wanted if uid is None and number is not None)
    return frozenset(uid for uid, _ in wanted if uid is not None) | {
        image.study_instance_uid for images in by_number for image in images
    }


def archives(settings: Settings, site: Site) -> list[Archive]:
    """The archives that are asked for images, in the order in which they are asked."""
    found: list[Archive] = []
    if site.dicomweb is not None and site.dicomweb.images:
        found.append(WebArchive(site.dicomweb, store_of(settings, site), settings.zone))
    if site.dimse is not None and site.dimse.images:
        found.append(DimseArchive(site.dimse, site.ae_title, settings.zone))
    return found


def sender_of(settings: Settings, site: Site) -> WebArchive | DimseArchive | None:
    """The archive that gets signed reports. Raises Invalid where the file does not name it."""
    if not settings.dicom_reports:
        return None
    if settings.dicom_reports == "dicomweb" and site.dicomweb is not None:
        return WebArchive(site.dicomweb, store_of(settings, site), settings.zone)
    if settings.dicom_reports == "dimse" and site.dimse is not None:
        return DimseArchive(site.dimse, site.ae_title, settings.zone)
    raise Invalid("bad-setting", f"[{settings.dicom_reports}] is missing; INLAY_DICOM_REPORTS needs it.", SETTING)


def storage_scp(settings: Settings, site: Site) -> StorageScp:
    """The Storage SCP of these settings, not started. Raises Invalid for what would let anybody in, or cannot be."""
    listener = site.listener
    if not listener.peers and not _is_loopback(settings.dicom_host):
        raise Invalid("bad-setting", "Reachable from the network, it needs [[listener.peer]] entries.", SETTING)
    try:
        tls = listener.tls()
    except OSError as problem:
        raise Invalid(
            "bad-setting", f"listener: TLS files cannot be used ({type(problem).__name__}).", SETTING
        ) from None
    return StorageScp(
        store_of(settings, site),
        ae_title=site.ae_title,
        peers=listener.peers,
        tls=tls,
        use=Use(associations=listener.associations),
        observe=_log,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _log(event: str, peer: str, code: str, size: int) -> None:
    log = LOG.info if code in _ORDINARY else LOG.warning
    log(f"dicom.{event}", peer=peer, code=code, bytes=size)
