"""DIMSE: an archive that is searched by C-FIND, asked to send by C-MOVE, and sent to by C-STORE (PS3.4 B and C).

Images of a C-MOVE arrive at our own Storage SCP, which puts them into the store before it answers the archive.
"""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from inlay_dicom import scp as _quiet  # noqa: F401 - importing it turns pynetdicom's log off.
from inlay_dicom.archive import (
    MOST_INSTANCES,
    MOST_STUDIES,
    STUDY_KEYS,
    ArchiveProblem,
    StudyFound,
    Wanted,
    studies_of,
)
from inlay_dicom.choose import NO_IMAGES
from inlay_dicom.dataset import number_of, text_of

# PS3.4 C.4.1.1.4 and C.4.2.1.5
FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
_SUCCESS: Final = 0x0000
_PENDING: Final = frozenset({0xFF00, 0xFF01})
_WARNING: Final = 0xB000
_OUT_OF_RESOURCES: Final = 0xA700
_DESTINATION_UNKNOWN: Final = 0xA801
# Rejection notes are key objects: with them the choice of images knows what was taken out of use.
_KEY_OBJECT: Final = "KO"


@dataclass(frozen=True, slots=True)
class DimseServer:
    """An archive's AE. `deadline_seconds` is how long one question may take as a whole, its silences `timeout_seconds`.

    With `tls_ca` TLS is spoken and the archive's certificate is verified by it; ours is `tls_certificate`.
    """

    ae_title: str
    host: str
    port: int
    images: bool = True
    timeout_seconds: float = 30.0
    deadline_seconds: float = 300.0
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


class DimseArchive:
    """`Archive` by DIMSE; `ae_title` is ours, under which the archive knows our Storage SCP."""

    def __init__(self, server: DimseServer, ae_title: str, zone: tzinfo = UTC) -> None:
        self._server = server
        self._ae_title = ae_title
        self._zone = zone

    def studies(self, wanted: Wanted) -> list[StudyFound]:
        """C-FIND at study level."""
        keyword, value = wanted.matching()
        query = _identifier("STUDY", dict.fromkeys(STUDY_KEYS, "") | {keyword: value})
        with self._associated(FIND) as association:
            return studies_of(self._found(association, query, MOST_STUDIES), wanted, self._zone)

    def bring(self, study_instance_uid: str) -> int:
        """C-FIND of the series, C-MOVE of those that may hold images or rejection notes."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": "", "Modality": ""}
        query = _identifier("SERIES", keys | {"NumberOfSeriesRelatedInstances": ""})
        with self._associated(FIND) as association:
            series = self._found(association, query, MOST_STUDIES)
        chosen = [one for one in series if _may_be_wanted(one)]
        if sum(number_of(one, "NumberOfSeriesRelatedInstances") for one in chosen) > MOST_INSTANCES:
            raise ArchiveProblem("answer", f"The study has more than {MOST_INSTANCES} objects.")
        if not chosen:
            return 0
        with self._associated(MOVE) as association:
            return sum(
                self._moved(association, study_instance_uid, text_of(one, "SeriesInstanceUID")) for one in chosen
            )

    def send(self, dataset: Dataset) -> None:
        """C-STORE of one object. Raises `ArchiveProblem`."""
        with self._associated(str(dataset.SOPClassUID)) as association:
            answer = association.send_c_store(dataset)
        status = int(answer.Status) if "Status" in answer else None
        if status is None:
            raise ArchiveProblem("away", "The archive broke off.")
        # Warnings (B000, B006, B007) mean that it is stored, with something coerced or left out.
        if status != _SUCCESS and status & 0xF000 != _WARNING:
            lasting = status & 0xFF00 != _OUT_OF_RESOURCES
            message = f"The archive did not take the object (status {status:04X})."
            raise ArchiveProblem("rejected" if lasting else "away", message)

    @contextmanager
    def _associated(self, sop_class: str) -> Iterator[Any]:
        ae = AE(ae_title=self._ae_title)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self._server.timeout_seconds
        ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        tls = self._tls()
        association = ae.associate(
            self._server.host,
            self._server.port,
            ae_title=self._server.ae_title,
            tls_args=(tls, self._server.host) if tls else None,
        )
        if association.is_rejected:
            raise ArchiveProblem("refused", "The archive rejects our association.")
        if not association.is_established:
            raise ArchiveProblem("away", "The archive does not answer.")
        try:
            if not association.accepted_contexts:
                raise ArchiveProblem("refused", "The archive does not offer this service.")
            yield association
            association.release()
        finally:
            if association.is_established:
                association.abort()

    def _tls(self) -> ssl.SSLContext | None:
        server = self._server
        if not server.tls_ca:
            return None
        try:
            context = ssl.create_default_context(cafile=server.tls_ca)
            if server.tls_certificate:
                context.load_cert_chain(server.tls_certificate, server.tls_key or None)
        except OSError:
            raise ArchiveProblem("refused", "The TLS files cannot be used.") from None
        return context

    def _found(self, association: Any, query: Dataset, most: int) -> list[Dataset]:
        found: list[Dataset] = []
        for response, identifier in self._answers(association.send_c_find(query, FIND)):
            if response.Status in _PENDING and identifier is not None and len(found) < most:
                found.append(identifier)
            elif response.Status not in _PENDING and response.Status != _SUCCESS:
                raise ArchiveProblem("answer", f"The search failed (status {response.Status:04X}).")
        return found

    def _moved(self, association: Any, study: str, series: str) -> int:
        query = _identifier("SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": series})
        sent = 0
        for response, _ in self._answers(association.send_c_move(query, self._ae_title, MOVE)):
            if response.Status == _DESTINATION_UNKNOWN:
                raise ArchiveProblem("refused", "The archive does not know our AE title as a destination.")
            if response.Status not in _PENDING and response.Status not in (_SUCCESS, _WARNING):
                raise ArchiveProblem("away", f"The archive could not send (status {response.Status:04X}).")
            sent = max(sent, number_of(response, "NumberOfCompletedSuboperations"))
        return sent

    def _answers(self, responses: Any) -> Iterator[tuple[Dataset, Dataset | None]]:
        """Each response with its identifier. Raises `ArchiveProblem` when they break off or take too long."""
        ends = time.monotonic() + self._server.deadline_seconds
        for response, identifier in responses:
            if "Status" not in response:
                raise ArchiveProblem("away", "The archive broke off.")
            if time.monotonic() > ends:
                raise ArchiveProblem("away", "The archive takes too long.")
            yield response, identifier


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _may_be_wanted(series: Dataset) -> bool:
    modality = text_of(series, "Modality")
    return bool(text_of(series, "SeriesInstanceUID")) and (modality == _KEY_OBJECT or modality not in NO_IMAGES)
