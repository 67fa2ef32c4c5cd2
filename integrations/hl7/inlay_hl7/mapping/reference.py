"""The page `docs/reference/hl7-conformance.md`: prose, and the tables of the code itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from inlay_core.application.ports import Told
from inlay_hl7.ack import MESSAGES, VERSIONS, Mode
from inlay_hl7.mapping import orders, priors
from inlay_hl7.mapping.places import DEFAULTS, LOCATIONS
from inlay_hl7.results import SECTION_CODES

# ruff: noqa: E501 (rows of tables)


def page() -> str:
    """The whole page."""
    parts = (_HEAD, _in_short(), _FRAMING, _acknowledgement(), _READING, _orders(), _PATIENTS, _results(), _TAIL)
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _in_short() -> str:
    does = {
        "ORM": "orders",
        "OMI": "imaging orders",
        "OMG": "general orders",
        "ADT": "patient",
        "ORU": "prior reports",
    }
    adt = {"A08": " update", "A31": " update", "A40": " merge"}
    kinds = [(f"{kind}^{event}", does[kind] + adt.get(event, "")) for kind, event in sorted(MESSAGES)]
    rows = [
        ("in", message, what, f"{VERSIONS[0]} to {VERSIONS[-1]}", "MLLP, port 2575, TLS by settings")
        for message, what in kinds
    ]
    rows += [
        ("out", "ACK", "answers", "that of the message", "the same connection; or, by sender, one of ours"),
        (
            "out",
            "ORU^R01",
            "drafts and signed reports",
            "2.5.1, or 2.3.1 to 2.6 by target",
            "MLLP to each target, TLS by target",
        ),
        ("in", "ACK", "answers to results", "any", "the connection of the ORU"),
    ]
    listed = f"\nVersions are {', '.join(VERSIONS)}.\n"
    return "## In short\n\n" + _table(("direction", "message", "what", "versions", "transport"), rows) + listed


def _acknowledgement() -> str:
    words = {
        Mode.HEADER: "one answer, of the kind that MSH-15 and MSH-16 ask for (the default)",
        Mode.APPLICATION: "always AA, AE or AR at once: for peers that cannot do two phases",
        Mode.BOTH: "in enhanced mode CA, and then AA or AE on the same connection; CR and CE stand alone",
        Mode.SEPARATE: 'in enhanced mode CA here, and AA or AE to `answer_to = "NAME"`, a target of `INLAY_HL7_TARGETS`, by the '
        "outbox, with MSH-15 AL: sent again until the peer commits it (decision 134)",
    }
    modes = "".join(f'  - `answer = "{mode.value}"`: {text}.\n' for mode, text in words.items())
    return _ACKNOWLEDGEMENT.replace("{modes}", modes)


def _orders() -> str:
    words = {
        "placer_number": "placer number; the assigner is its namespace, else its universal id, else MSH-4, else MSH-3",
        "filler_number": "filler number",
        "accession_number": "accession number; it does not fall back to the filler number",
        "requested_procedure_id": "requested procedure id",
        "step_id": "scheduled procedure step; several are kept",
        "study_instance_uid": "StudyInstanceUID; without one the images are found by accession number",
        "procedure": "procedure: code, text, system",
        "modality": "modality",
        "reason": "reason, coded (text, else code, of each repetition)",
        "clinical_information": "reason, free text; OBR-13 is coded from 2.7 on",
        "priority": "priority",
        "scheduled_at": "scheduled for",
        "ordering_provider": "ordering provider",
        "order_time": "time of the order, where a sender keeps it current; else MSH-7",
    }
    kinds = ("ORM", "OMI", "OMG")
    places = [
        (f"`{name}`", words[name], *(", ".join(map(str, getattr(DEFAULTS[kind], name))) or "–" for kind in kinds))
        for name in LOCATIONS
    ]
    control = [
        (code, str(action), str(status) if status else "as ORC-5 says")
        for code, (action, status) in orders.ACTIONS.items()
    ]
    status = [(code, str(means)) for code, means in orders.STATUSES.items()]
    priority = [(code, str(means)) for code, means in orders.PRIORITIES.items()]
    return "\n".join(
        [
            "## Orders: where the values stand\n",
            _table(("key", "value", "ORM^O01 (IHE RAD-4)", "OMI^O23", "OMG^O19"), places),
            _ORDERS,
            "### ORC-1\n",
            _table(("ORC-1", "asks for", "status of the order"), control),
            "### ORC-5 (within NW, XO and SC)\n",
            _table(("ORC-5", "status of the order"), status),
            "### Priority\n",
            _table(("code", "means"), priority),
            _CONFIGURATION,
            "### Prior reports: OBR-25\n",
            _table(("OBR-25", "status"), [(code, str(means)) for code, means in priors.STATUSES.items()]),
            "Any other code is preliminary; OBX-11 W, D or X in every OBX withdraws.\n",
        ]
    )


def _results() -> str:
    codes = ", ".join(f"{name} {code.code}" for name, code in SECTION_CODES.items())
    told = ", ".join(f"`{word}`" for word in Told)
    return _RESULTS.replace("{codes}", codes).replace("{told}", told)


_HEAD: Final = """\
# HL7 v2: what Inlay does

Generated from `integrations/hl7/inlay_hl7`; do not edit. The facts are those of HL7 v2 (chapters 2, 3, 4 and 7), of the MLLP
transport specification, and of IHE Radiology RAD-4. Each is shown by a message in `tests/data/hl7`, with the answer and the
outcome beside it. Where Inlay deviates from the standard on purpose: [divergences.md](divergences.md).
"""

_FRAMING: Final = """\
## Framing

`<VT> payload <FS><CR>`. Many messages per connection; idle connections stay open (TCP keep-alive finds dead peers). A frame
may come in any number of pieces, and several frames in one.

| what comes | what happens |
|---|---|
| LF after FS instead of CR | accepted, logged |
| FS without CR, then VT or silence | accepted, logged; after 0.25 s of silence the message is taken |
| blanks, NUL, CR, LF before VT | skipped, logged |
| other bytes before VT | skipped and logged up to 1,024 bytes, then the connection is closed |
| empty frame | keep-alive, no answer |
| VT inside of a payload | what came before it is lost and logged as `abandoned`; the new frame is taken |
| FS inside of a payload | belongs to the payload, which is then refused (102) |
| a frame over `INLAY_MLLP_MAX_FRAME` | connection closed, no answer |
| a begun frame that stands still for `INLAY_MLLP_STALL_SECONDS` | connection closed, no answer |
| more than `INLAY_MLLP_MAX_CONNECTIONS` | the new connection is closed |

While a message is being stored, nothing more is read from its connection. An answer goes out in one write.
"""

_ACKNOWLEDGEMENT: Final = """\
## Acknowledgement

**The answer is written after the commit.** AA (or CA) means that order, report, job, message and audit events are on disk.

| what became of the message | original mode | enhanced mode (MSH-15) | kept |
|---|---|---|---|
| stored | AA | CA | yes |
| content cannot be taken | AE | CE | yes, raw, with the reason |
| MSH-9, MSH-11 or MSH-12 not acceptable | AR | CR | yes, raw, with the reason |
| database away or locked for 20 s, too many drafts waiting, a defect of Inlay | AR, condition 207 | CE, condition 207 | no: send it again |

- Original mode holds if MSH-15 **and** MSH-16 are empty. In enhanced mode MSH-15 (AL, NE, ER, SU) decides; a code outside
  of the table counts as AL. If MSH-15 wants nothing and MSH-16 does, the application acknowledgement (AA, AE, AR) is sent
  at once on the same connection. There is one answer per message, unless the sender is configured otherwise:
{modes}- MSH-3 to 6 are swapped, MSH-7 and MSH-10 new, MSH-11 and MSH-12 copied, MSH-9 is `ACK^O01^ACK` (`ACK^O01` in 2.3, `ACK`
  before). MSA-2 is MSH-10 byte for byte; the sender's delimiters are used. A missing MSH-10 is AE with `MSH^1^10` and 101;
  a payload without MSH is AE with an empty MSA-2.
- Before 2.5 the error stands in ERR-1 and its text in MSA-3; from 2.5 on in ERR-2, ERR-3, ERR-4 and ERR-8. Errors name the
  segment, the field and the offset in bytes, never the value.
- An acknowledgement, or any message with MSA, is stored and never answered.
- The same sender (MSH-3, MSH-4), MSH-10 and bytes: the stored answer again, one order. The same MSH-10 with other bytes is
  processed and flagged `control-id-reused`. A refusal that depends on what else is stored (a cancel before its order) is
  tried again when the message is sent again.
- MSH-11 has to be `P`, unless configured (below).

| condition (table 0357) | when |
|---|---|
| 100 | no MSH, not a segment, a required segment missing (a new order without PID, OBR or, in OMI, IPC; a merge without MRG; a result without text), several OBR after one ORC |
| 101 | a required value missing: MSH-9, 10, 11, 12, PID-3.1, ORC-1 |
| 102 | unusable delimiters, bytes that are not in the character set, NUL, a broken `\\X..\\`, a time, date or UID that is none, a value over its length |
| 103 | ORC-1 or (within a status change) ORC-5 not supported, character set not supported |
| 200, 201, 202, 203 | message type, event, processing id, version |
| 204 | an order that is not known |
| 205 | an accession number that belongs to another order; two accession numbers under one placer number |
| 207 | the order is closed; nothing could be stored |
"""

_READING: Final = """\
## Reading

- Segments end in CR, LF or CRLF, the last one with or without. An LF that no segment follows is text of its field.
- Delimiters are those of MSH-1 and MSH-2, with one to five characters in MSH-2; the fifth is `#` from 2.7 on.
- Escapes: `\\F\\ \\S\\ \\T\\ \\R\\ \\E\\ \\P\\ \\X..\\ \\.br\\ \\.sp n\\` give their text, `\\H\\ \\N\\` and formatting commands none;
  what is unknown stays as it stands. Hexadecimal data that is not whole is refused (102), in whatever field it stands.
- `""` deletes a value, an empty field leaves it unchanged.
- Numbers and identifiers have at most 199 characters, accession numbers, study and step ids 64 (longer ones: 102).
- Text that a person typed (OBR-13, texts of coded fields) is taken whole, also with an `&` that was not escaped.

**Character sets** (MSH-18): ASCII, 8859/1 to 8859/9, 8859/15, ISO IR6, ISO IR14, ISO IR87, ISO IR159, GB 18030-2000,
KS X 1001, BIG-5, UNICODE UTF-8, and names that are seen in practice (UTF-8, ISO-8859-1, WINDOWS-1252 and others). UTF-16,
UTF-32 and CNS 11643 are refused (103). With an empty MSH-18 `INLAY_MLLP_CHARSET` is used (default windows-1252; `ascii` is
what the standard says). Bytes 0x80 to 0x9F under 8859/1 are read as windows-1252. UTF-8 that neither MSH-18 nor the setting
declares is refused instead of being misread. Bytes that do not fit are refused with their place; nothing is ever replaced.
`\\C..\\` and `\\M..\\` are not read.
"""

_ORDERS: Final = """\
- PID-3 is the repetition whose type is the first of `patient_identifier_types` (default `MR`) that is there, else the first;
  PID-5 the repetition of type L, else the first; PID-7; PID-8.
- Every ORC group is an order. Either all orders of a message are taken or none. Groups with equal ORC-1, placer and accession
  numbers, and several IPC of one ORC, are steps of one order. Steps with different studies leave the accession number to find
  the images. Two accession numbers under one placer number are refused (205).
- NW and RO need PID and OBR, in OMI also IPC unless the sender is configured to have its accession number elsewhere.
- RP ends the order as replaced; its replacement comes as RO or NW, in the same message or another one. HD and RL change the
  status only: drafting waits for images anyway.
- A message that is older (MSH-7) than the last one for its order changes nothing, is accepted and flagged `outdated`.
- A year, or year and month, in PID-7 is no date and is left out. PID-8: F, M; O, A, N, X are other; else unknown.
- Times without an offset are in the zone of MSH-7's offset, else in the configured zone, else UTC.
"""

_CONFIGURATION: Final = """\
### Configuration per sending application

`INLAY_HL7_MAPPING` names a TOML file. It is checked when the listener starts; a mistake stops it and is named with file, key and
remedy. `inlay hl7 explain FILE --mapping hl7.toml` shows field by field how a message is read with it.

```toml
[default]                          # for all senders
processing_ids = ["P", "T"]

[sender."RIS|HOSPITAL"]            # MSH-3.1 and MSH-4.1, or MSH-3.1 alone
charset = "utf-8"                  # for an empty MSH-18
zone = "Europe/Berlin"
answer = "application"             # header, application or both: see Acknowledgement
messages = ["ORM^O01", "OMI^O23"]  # all that are listed above, unless restricted
versions = ["2.3.1", "2.5.1"]
patient_identifier_types = ["MR", "PI"]
accession_number = ["OBR-20", "ORC-3"]   # in every type of message; the first filled one counts

[sender."RIS|HOSPITAL".OMI]        # in OMI^O23 only; likewise ORM, OMG, ORU
accession_number = ["IPC-1", "OBR-18"]
```

The keys for locations are those of the table above; a location is written `SEG-field` or `SEG-field.component`.
"""

_PATIENTS: Final = """\
## Patients and prior reports

- **ADT^A08, A31** change name, birth date and sex of a patient who has an order or a prior report here. Of others nothing is
  kept: accepted, flagged `patient-unknown`. An older message changes nothing (`outdated`). The trail of every report of the
  patient says that the record changed, and whether the report was signed by then.
- **ADT^A40** (PID stays, MRG-1 goes; several pairs in one message): open orders, their reports and prior reports follow to the
  record that stays. A signed report keeps the record that it was signed for, is found by both, and its trail says what happened.
  Messages that still name the record that went mean the one that stayed; chains and reversals are followed.
- **ORU^R01 from the RIS** becomes one prior report per OBR, identified by MSH-4 and filler number (else accession, else placer
  number). OBX of type TX, FT, ST, CWE and CE are its text, by OBX-3; other OBX are passed over, and a report without any text is
  refused. The newest message counts. `GET /api/v1/reports/{id}/priors` gives the texts beside a report of the patient, in one list
  with the archive's studies and what was signed here (decision 133), without the report's own examination. They reach the model
  only where the site lets imported text reach it.
"""

_RESULTS: Final = """\
## Results: ORU^R01

Sent for each new draft, signature, amendment, correction, addition, cancellation and withdrawal: to `INLAY_ORU_TARGET`, and to
each target of `INLAY_HL7_TARGETS` whose filters let it through.

```toml
[target.ris]                              # the name has at most 27 lower-case letters, digits and hyphens
address = "ris.example:2576"
statuses = ["signed", "corrected", "withdrawn"]
sites = ["HOSPITAL"]                      # who assigned the order's numbers
modalities = ["DX", "CR"]
receiving_application = "RIS"             # MSH-5; receiving_facility is MSH-6
version = "2.5.1"
processing_id = "P"
timeout_seconds = 10
pdf = true                                # the whole report as a last OBX: ED, base64

[target.ris.tls]
ca = "/etc/inlay/hospital-ca.pem"         # who signs the receiver's certificate
certificate = "/etc/inlay/inlay.pem"      # as whom we come (mutual authentication)
key = "/etc/inlay/inlay.key"
server_name = "ris"                       # the name in its certificate, where it is not the host
```

`statuses` are {told}. What is left out does not restrict.

| report | OBR-25 | OBX-11 | ORC-5 |
|---|---|---|---|
| drafted, in review | R | R | IP |
| signed | F | F | CM |
| amended, corrected, appended | C | C | CM |
| cancelled | X | X, a notice | CA |
| entered in error | C | W, a notice in place of each section | CM |

- MSH, PID, ORC (RE), OBR, OBX. One OBX per section: TX, or FT with `\\.br\\` where the text has line breaks. OBX-3 (LOINC, as in
  DICOM PS3.20): {codes}.
- Words of the model carry their notice as the first OBX (`INLAY-BANNER^Notice on machine-made text^L`) until a clinician has
  signed; words of the demonstration model always do. A PDF carries the same notice; there is none when the font lacks a
  character of the text.
- Placer and filler number in ORC-2/3 and OBR-2/3, accession number in OBR-18. OBR-32 names the signer of signed results only.
- UTF-8, said in MSH-18. Delimiters and control characters are escaped.
- Original mode. Only an acknowledgement whose MSA-2 is our MSH-10 counts. After the time-out the connection is closed and **the same
  bytes** are sent again later: after 2 s, doubling up to an hour, for about two days. Versions of one report keep their order per
  target; targets do not wait for each other.
- A refusal with a condition from 100 to 203 parks the message at once, anything else after about two days. `inlay hl7 dead` and
  `GET /api/v1/deliveries` list what is parked; `inlay hl7 resend` and `POST /api/v1/deliveries/{id}/resend` send it again under its
  control id, built anew, unless a later version has been delivered.
"""

_TAIL: Final = """\
## Stored messages

Every message is kept with its bytes and its answer. `inlay hl7 replay` takes stored messages once more through the mapping of
today and shows what would be different; with `--apply` it keeps it. Older messages never overwrite newer ones there either.

## Transport security

`INLAY_MLLP_TLS_CERTIFICATE` and `INLAY_MLLP_TLS_KEY` make the listener speak TLS 1.2 or 1.3 only; with `INLAY_MLLP_TLS_CLIENTS` it
lets in only clients with a certificate of these authorities (IHE ITI-19). The listener binds to loopback unless told otherwise.

## Not supported

Batches (FHS, BHS) · `\\C..\\` and `\\M..\\` escapes · other events of ADT · PDF in prior reports.
"""
