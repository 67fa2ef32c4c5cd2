"""DICOM in Inlay's own words: folder and archive as image sources, and errors of files as errors of the domain.

The only module of this package that knows the core.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from inlay_core.application.ports import ImageRef
from inlay_core.domain.errors import Conflict, DomainError, Forbidden, Invalid, NotFound, Unavailable
from inlay_core.domain.matching import PatientShown
from inlay_core.domain.order import Order, PriorStudy
from inlay_core.domain.patient import PersonName
from inlay_core.domain.report import Report
from inlay_dicom.archive import Archive, ArchiveProblem, StudyFound, Wanted
from inlay_dicom.choose import in_order, view_of
from inlay_dicom.dataset import Header
from inlay_dicom.errors import InvalidDicom
from inlay_dicom.folder import FolderIndex, Found
from inlay_dicom.patient import patient_of
from inlay_dicom.signed_report import Name, SignedReport

FOLDER: Final = "folder"
# Views of one study arrive one after another. Until a frontal one has, a study that still grows is not drafted from:
# the lateral that happened to be first would be taken for the whole. Modalities send the next view within seconds.
PATIENCE_S: Final = 20.0
# The sweeper asks for every waiting job, one after the other: one scan answers them all.
RESCAN_S: Final = 0.25
# An image that a modality sends while the order waits is in the archive seconds later; one that never comes is not
# asked for more than every few minutes.
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
_LONGEST_DESCRIPTION: Final = 120
_REMEMBERED: Final = 10_000
_ARCHIVE: Final = ("", "")
# What is not here will fail again when it is tried again.
_KINDS: Final[dict[str, type[DomainError]]] = {"gone": NotFound, "refused": Forbidden, "replaced": Conflict}


class FolderImages:
    """The image source on a watched folder (port `ImageSource`).

    A study with a complete frontal image is there at once, one without when nothing of it changed for `patience_s`.
    """

    def __init__(
        self,
        index: FolderIndex,
        *,
        patience_s: float = PATIENCE_S,
        rescan_s: float = RESCAN_S,
        now: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._patience_s = patience_s
        self._rescan_s = rescan_s
        self._now = now
        self._timer = timer
        self._scan_again = 0.0

    @classmethod
    def below(cls, root: Path) -> "FolderImages":
        """The source on the folder `root`, with defaults."""
        return cls(FolderIndex(root))

    def find(
        self, study_instance_uid: str | None, accession_number: str | None, *, anew: bool = False
    ) -> list[ImageRef]:
        """The images of the study that may be drafted from, the best first; empty while it has not arrived.

        `anew` looks into the folder whenever the last look was.
        """
        self._scan(anew=anew)
        found = self._index.study(study_instance_uid, accession_number)
        by_instance = {one.header.sop_instance_uid: one for one in found}
        chosen = in_order(one.header for one in found)
        if not chosen or not (view_of(chosen[0]).is_frontal or self._is_quiet(found)):
            return []
        return [_reference(by_instance[header.sop_instance_uid]) for header in chosen]

    def load(self, ref: ImageRef) -> bytes:
        """The DICOM file of one image. Raises NotFound when it has gone, Conflict when it was replaced, Invalid."""
        try:
            return self._index.load(ref.locator, ref.sop_instance_uid)
        except InvalidDicom as problem:
            raise domain_error(problem) from None

    def _scan(self, *, anew: bool) -> None:
        if not anew and self._timer() < self._scan_again:
            return
        try:
            self._index.scan()
        except InvalidDicom as problem:
            raise Unavailable(f"image-folder-{problem.code}", problem.message) from None
        self._scan_again = self._timer() + self._rescan_s

    def _is_quiet(self, found: list[Found]) -> bool:
        return self._now() - max(one.modified for one in found) >= self._patience_s


class ArchiveImages:
    """The image source on an archive (port `ImageSource`): what the folder has not, the archive is asked for.

    Whoever calls it waits for the archive, up to its deadline; so only the relay does, in a thread of its own. A study
    that the archive does not have is asked for again after a pause that doubles, and so is an archive that is away.
    """

    def __init__(
        self,
        folder: FolderImages,
        archive: Archive,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._archive = archive
        self._first_pause_s = first_pause_s
        self._now = now
        # What was asked for in vain -> (ask again at, the pause after that); the empty key is the archive itself.
        self._asked: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def find(self, study_instance_uid: str | None, accession_number: str | None) -> list[ImageRef]:
        """The images of the study, brought from the archive where they are not here. Raises Unavailable."""
        refs = self._folder.find(study_instance_uid, accession_number)
        key = (study_instance_uid or "", accession_number or "")
        if refs or key == _ARCHIVE or self._rests(_ARCHIVE) or self._rests(key):
            return refs
        try:
            brought = self._brought(*key)
        except ArchiveProblem as problem:
            # An answer that makes no sense concerns its study; everything else the archive.
            self._rest(key if problem.code == "answer" else _ARCHIVE)
            raise Unavailable(f"archive-{problem.code}", problem.message) from None
        except OSError:
            self._rest(_ARCHIVE)
            raise Unavailable("store-unusable", "Received images cannot be kept: the store is full or away.") from None
        self._asked.pop(_ARCHIVE, None)
        self._rest(key)
        return self._folder.find(study_instance_uid, accession_number, anew=True) if brought else []

    def load(self, ref: ImageRef) -> bytes:
        """As the folder does."""
        return self._folder.load(ref)

    def _brought(self, study: str, accession: str) -> int:
        if study and (brought := self._archive.bring(study)):
            return brought
        if not accession:
            return 0
        # As in the folder: the accession number decides only where nothing contradicts it.
        studies = {one.study_instance_uid for one in self._archive.studies(Wanted(accession_number=accession))}
        return self._archive.bring(studies.pop()) if len(studies) == 1 else 0

    def _rests(self, key: tuple[str, str]) -> bool:
        return key in self._asked and self._now() < self._asked[key][0]

    def _rest(self, key: tuple[str, str]) -> None:
        _, pause = self._asked.get(key, (0.0, self._first_pause_s))
        self._asked[key] = (self._now() + pause, min(2 * pause, LONGEST_PAUSE_S))
        self._asked.move_to_end(key)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)


def priors_of(order: Order, archive: Archive, zone: tzinfo) -> list[PriorStudy]:
    """What the archive has of the order's patient besides the order's own study. Raises Unavailable.

    A patient id is unique per assigner only: what names another assigner or another birth date is another patient's.
    """
    try:
        found = archive.studies(Wanted(patient_id=order.patient.identifier))
    except ArchiveProblem as problem:
        if problem.code == "answer":
            return []  # Nothing that can be understood will be so the next time.
        raise Unavailable(f"archive-{problem.code}", problem.message) from None
    return [
        PriorStudy(
            study_instance_uid=one.study_instance_uid,
            # Its date is the one on the spot, which is kept with the moment.
            studied_at=one.studied_at.astimezone(zone),
            description=_plain(one.description),
            modalities=one.modalities,
            accession_number=one.accession_number,
        )
        for one in found
        if one.studied_at is not None and _is_prior(one, order)
    ]


def _is_prior(found: StudyFound, order: Order) -> bool:
    own = found.study_instance_uid == order.study_instance_uid or (
        order.accession_number is not None and found.accession_number == order.accession_number
    )
    patient = order.patient
    same_assigner = found.issuer in ("", patient.assigner) or not patient.assigner
    same_birth = None in (found.birth_date, patient.birth_date) or found.birth_date == patient.birth_date
    return not own and same_assigner and same_birth


def _plain(text: str) -> str:
    """A description on one line, without what no database stores."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_DESCRIPTION]


def patient_shown(dataset: Dataset) -> PatientShown:
    """The patient that an image's header names."""
    tags = patient_of(dataset)
    names = tuple(PersonName(*parts) for parts in tags.names)
    return PatientShown(tags.identifiers, names, tags.birth_date, tags.sex)


def signed_report(
    report: Report, order: Order, *, study_instance_uid: str, organization: str, notice: str, predecessor: int | None
) -> SignedReport:
    """The document's values from a signed version and its order. Raises Invalid for one that nobody signed."""
    if report.signature is None or not report.is_signed:
        raise Invalid("not-signed", "Only a signed report becomes a document.", "report.status")
    patient, provider = order.patient, order.ordering_provider
    return SignedReport(
        report_id=report.id,
        version=report.version,
        study_instance_uid=study_instance_uid,
        patient_id=patient.identifier,
        patient_issuer=patient.assigner,
        patient_name=_name(patient.name),
        birth_date=patient.birth_date,
        sex=patient.sex or "",
        accession_number=order.accession_number or "",
        placer_number=order.placer_number or "",
        filler_number=order.filler_number or "",
        referring=_name(provider.name if provider else None),
        procedure=order.procedure.text or "",
        studied_at=order.studied_at,
        signed_at=report.signature.signed_at,
        signer=report.signature.signer_name,
        organization=organization,
        sections=[(section.name, section.text) for section in report.sections],
        notice=notice,
        predecessor=predecessor,
    )


def _name(name: PersonName | None) -> Name:
    return Name(name.family, name.given, name.middle, name.prefix, name.suffix) if name else Name()


def domain_error(problem: InvalidDicom) -> DomainError:
    """The domain's error for a file that cannot be used; its code is that of the file's error after "image-"."""
    kind: type[DomainError] = _KINDS.get(problem.code, Invalid)
    return kind(f"image-{problem.code}", problem.message, problem.place)


def _reference(found: Found) -> ImageRef:
    header: Header = found.header
    return ImageRef(
        source=FOLDER,
        locator=found.name,
        study_instance_uid=header.study_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        modality=header.modality or None,
        view_position=header.view_position or None,
        view=view_of(header).side,
    )
