"""DICOM in the gateway: the site's file read as a setting, and the Storage SCP that `inlay listen` runs."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from typing import Final

from inlay_core.application import queries
from inlay_core.application.retention import open_studies
from inlay_core.bootstrap import Services
from inlay_core.domain.audit import Kind, Outcome, Tag
from inlay_core.domain.errors import DomainError, Invalid
from inlay_core.domain.identity import Actor, ActorKind
from inlay_core.logs import get_logger
from inlay_core.settings import Settings
from inlay_dicom.archive import Archive
from inlay_dicom.mapping import FolderImages
from inlay_dicom.scp import Observe, StorageScp, Use
from inlay_dicom.scu import DimseArchive
from inlay_dicom.site import Site, read_site_file
from inlay_dicom.store import ReceivedStore
from inlay_dicom.web import WebArchive

LOG: Final = get_logger(__name__)
SETTING: Final = "INLAY_DICOM_CONFIG"
_GIB: Final = 1 << 30
# What happens all day long; a refusal, a conflict or a broken association is worth a warning.
_ORDINARY: Final = frozenset({"stored", "repeated", "success"})
# What is written into the trail where it was refused, and as which interaction.
_RECORDED: Final = {"association-rejected": "associate", "object": "store"}
_ONCE_IN_SECONDS: Final = 60.0


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


def storage_scp(settings: Settings, site: Site, observe: Observe | None = None) -> StorageScp:
    """The Storage SCP of these settings, not started; what happens goes to the log, or to `observe`.

    Raises Invalid for what would let anybody in, or cannot be.
    """
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
        observe=observe or _log,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Recorder:
    """Logs what happens, and writes what was refused into the trail: who came, and why, and nothing of the object.

    The same refusal of the same peer is written once in a minute: whoever floods the listener must not fill the trail.
    """

    def __init__(self, services: Services, now: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._now = now
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str, str], float] = {}

    def __call__(self, event: str, peer: str, code: str, size: int) -> None:
        """Told by the SCP, from the thread of an association."""
        _log(event, peer, code, size)
        interaction = _RECORDED.get(event)
        if interaction is None or code in _ORDINARY or not self._is_news((event, peer, code)):
            return
        services = self._services
        try:
            queries.record_access(
                services.uow(),
                services.clock,
                services.new_id,
                Actor(f"dicom:{peer}", peer, kind=ActorKind.SYSTEM),
                Tag.INTAKE_ACCESS_REFUSED,
                subject=(Kind.ACCESS, "dicom"),
                outcome=Outcome.REFUSED,
                detail={"interface": "dicom", "interaction": interaction, "code": code},
            )
        except DomainError:
            LOG.exception("dicom.unrecorded", peer=peer, code=code)

    def _is_news(self, refusal: tuple[str, str, str]) -> bool:
        now = self._now()
        with self._lock:
            self._last = {key: at for key, at in self._last.items() if now - at < _ONCE_IN_SECONDS}
            if refusal in self._last:
                return False
            self._last[refusal] = now
            return True


def _log(event: str, peer: str, code: str, size: int) -> None:
    log = LOG.info if code in _ORDINARY else LOG.warning
    log(f"dicom.{event}", peer=peer, code=code, bytes=size)
