"""ORU^R01 from the RIS as prior reports of a patient: one per OBR, its text by OBX-3, its status from OBR-25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from inlay_core.application.ports import PatientFields, PriorCommand
from inlay_core.domain.prior import PriorSection, PriorStatus
from inlay_hl7.ack import Outcome, issue_of
from inlay_hl7.mapping.patients import patient_of
from inlay_hl7.mapping.places import RAD_4, Mapping
from inlay_hl7.mapping.reading import Context, Group, Use, time_at
from inlay_hl7.mapping.refusals import Malformed
from inlay_hl7.message import Condition, Message, MessageError, Segment

# OBR-25 (table 0123). What is not listed says nothing that a reader could rely on: it counts as preliminary.
STATUSES: Final[dict[str, PriorStatus]] = {
    "F": PriorStatus.FINAL,
    "A": PriorStatus.FINAL,
    "C": PriorStatus.CORRECTED,
    "K": PriorStatus.CORRECTED,
    "M": PriorStatus.CORRECTED,
    "X": PriorStatus.WITHDRAWN,
}
# OBX-11 W: the text was wrong.
_WRONG: Final = frozenset({"W", "D", "X"})
_TEXTS: Final = frozenset({"TX", "FT", "ST", "CWE", "CE"})


def prior_commands(
    message: Message, mapping: Mapping = RAD_4, uses: list[Use] | None = None
) -> tuple[PriorCommand, ...]:
    """The reports of an ORU^R01, one per OBR. Raises Malformed."""
    try:
        context = Context.of(message, mapping, uses)
        patient = patient_of(message.require("PID"), context)
        message.require("OBR")
        return tuple(_command(group, patient) for group in _groups(message, context))
    except MessageError as error:
        raise Malformed(Outcome.CONTENT_ERROR, issue_of(error)) from None


def _groups(message: Message, context: Context) -> list[Group]:
    """An OBR with the ORC before it (one ORC may hold for several OBR) and what follows."""
    groups: list[Group] = []
    order: Segment | None = None
    current: list[Segment] | None = None
    for segment in message.segments:
        if segment.name == "ORC":
            order, current = segment, None
        elif segment.name == "OBR":
            current = [*([order] if order else []), segment]
            groups.append(Group(current, context))
        elif current is not None:
            current.append(segment)
    return groups


def _command(group: Group, patient: PatientFields) -> PriorCommand:
    obr = group.first("OBR")
    assert obr is not None
    context = group.context
    placer, assigner = group.identifier("placer_number")
    filler, accession = group.text("filler_number"), group.text("accession_number")
    numbers = (filler, accession, placer)
    number = next((each for each in numbers if isinstance(each, str) and each), None)
    if number is None:
        raise MessageError(Condition.REQUIRED_MISSING, obr.place(3), "a prior report needs a number")
    code, text, system = group.coded("procedure")
    status = _status(group, obr)
    sections = _sections(group)
    if not sections and status is not PriorStatus.WITHDRAWN:
        raise MessageError(Condition.SEQUENCE, obr.place(), "no text (OBX of type TX, FT or ST) belongs to this OBR")
    modality = group.text("modality")
    performed, reported = (time_at(obr, field, 1, context.zone) for field in (7, 22))
    return PriorCommand(
        assigner=context.facility if number != placer else assigner,
        number=number,
        patient=patient,
        accession_number=accession if isinstance(accession, str) else None,
        procedure_code=code if isinstance(code, str) else None,
        procedure_system=system if isinstance(system, str) else None,
        procedure_text=text if isinstance(text, str) else None,
        modality=modality if isinstance(modality, str) else None,
        status=status,
        performed_at=performed,
        reported_at=reported,
        sections=sections,
        message_time=context.time,
        place=f"OBR[{obr.occurrence}]",
    )


def _status(group: Group, obr: Segment) -> PriorStatus:
    group.context.note("prior status", obr, 25)
    observations = [segment.text(11).strip().upper() for segment in group.segments if segment.name == "OBX"]
    if observations and all(each in _WRONG for each in observations):
        return PriorStatus.WITHDRAWN
    return STATUSES.get(obr.text(25).strip().upper(), PriorStatus.PRELIMINARY)


def _sections(group: Group) -> tuple[PriorSection, ...]:
    """Texts by OBX-3, in the order of the message: lines of one section may stand in one OBX each."""
    found: dict[tuple[str, str], list[str]] = {}
    for obx in group.segments:
        if obx.name != "OBX" or obx.text(2).strip().upper() not in _TEXTS or obx.text(11).strip().upper() in _WRONG:
            continue
        text = _text(obx)
        if text:
            group.context.note("prior text", obx, 5)
            found.setdefault((obx.text(3), obx.text(3, 2)), []).append(text)
    return tuple(PriorSection(code, title, "\n".join(texts)) for (code, title), texts in found.items())


def _text(obx: Segment) -> str:
    """OBX-5 as a person wrote it. Its repetitions are lines; a coded value gives its text."""
    kind = obx.text(2).strip().upper()
    repetitions: Sequence[int] = range(1, len(obx.repetitions(5)) + 1)
    if kind in ("CWE", "CE"):
        lines = [obx.text(5, 2, None, n) or obx.text(5, 1, None, n) for n in repetitions]
    else:
        lines = [obx.free_repetition(5, n) for n in repetitions]
    return "\n".join(line.rstrip() for line in lines).strip()
