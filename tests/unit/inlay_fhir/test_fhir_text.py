import base64
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

from hypothesis import example, given
from hypothesis import strategies as st

from inlay_core.application.ports import ReportRow
from inlay_core.domain.fragment import SECTION_NAMES, Fragment, Origin, Section
from inlay_core.domain.identity import Role
from inlay_core.domain.job import Job, JobKind
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, Priority, Procedure
from inlay_core.domain.patient import Patient, PersonName, Provider
from inlay_core.domain.report import Author, Report, Signature
from inlay_fhir.elements import writable
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.mapping.naming import assigner_system, assigners, code_system, code_system_names
from inlay_fhir.mapping.patient import patient_resource
from inlay_fhir.mapping.provenance import provenance
from inlay_fhir.mapping.service_request import service_request
from inlay_fhir.narrative import narrative
from inlay_fhir.site import FhirSite
from inlay_testkit.core import MONDAY, RADIOLOGIST
from inlay_testkit.fhir import check

# What the domain lets into a text: everything but NUL and lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
SECTIONS = st.dictionaries(st.sampled_from(SECTION_NAMES), TEXTS, max_size=5)
SITE = FhirSite()
DIFFICULT = "<script>alert(1)</script>&amp; ]]> \x0b\x1f\ufffe \u2028Caf\u0065\u0301 \u202b\u05d1\u202c\r\n\ttwo\r "


def report_of(texts: dict[str, str], status: Status) -> Report:
    """A report with one fragment of the model per section."""
    sections = tuple(
        Section(name, (Fragment(f"f-{name}", text, Origin.MODEL, job_id="job-1"),)) for name, text in texts.items()
    )
    author = Author.of(RADIOLOGIST)
    signature = Signature(author.id, author.name, MONDAY, 2) if status is Status.SIGNED else None
    return Report("r-1", "o-1", 2, status, sections, MONDAY, MONDAY, author, signature=signature)


ORDER = Order("o-1", "RIS", Patient("p-1", "HOSP", "MRN1"))
JOB = Job("job-1", "r-1", JobKind.DRAFT, 1, Priority.ROUTINE, MONDAY, run_record={"model": "m", "demonstration": True})


@given(SECTIONS, st.sampled_from([Status.DRAFTED, Status.SIGNED]))
@example({"findings": DIFFICULT, "impression": DIFFICULT}, Status.DRAFTED)
@example({"impression": "\x0b"}, Status.SIGNED)
def test_any_text_makes_a_valid_report(texts: dict[str, str], status: Status) -> None:
    """Whatever a report says, the resource is valid, its narrative well-formed and free of markup of the text."""
    report = report_of(texts, status)
    check(diagnostic_report(SITE, ReportRow(report, ORDER), [JOB]))
    check(provenance(report, [JOB]))


@given(SECTIONS)
@example({"findings": DIFFICULT})
def test_the_presented_form_keeps_every_byte(texts: dict[str, str]) -> None:
    """The text/plain form has each section's text byte for byte, also what XHTML cannot show."""
    resource = diagnostic_report(SITE, ReportRow(report_of(texts, Status.DRAFTED), ORDER), [JOB])
    shown = [text for text in texts.values() if text.strip()]
    data = b"".join(base64.b64decode(form["data"]) for form in resource.get("presentedForm", []))
    assert all(text.encode("utf-8") in data for text in shown)
    assert bool(data) == bool(shown)


@given(TEXTS)
@example(DIFFICULT)
@example("&lt;b&gt; &#x3c;script>")
def test_a_narrative_reads_as_the_text(text: str) -> None:
    """Parsed again, the narrative's text is the report's, but for line breaks and characters that XML cannot carry."""
    root = ET.fromstring(narrative("", [("T", text)])["div"])  # noqa: S314 (our own text)
    paragraph = root[1]
    lines = [paragraph.text or "", *(each.tail or "" for each in paragraph)]
    assert lines == re.split(r"\r\n|\r|\n", writable(text))


@given(TEXTS)
def test_what_stands_in_strings_can_be_written(text: str) -> None:
    """No control character but tab and line ends survives, nothing else changes, and doing it again changes nothing."""
    safe = writable(text)
    assert writable(safe) == safe
    assert len(safe) == len(text)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", safe)


@given(TEXTS, TEXTS, TEXTS)
@example("", " ", "\x0b")
@example("  LN ", "a  b", "x\ty")
def test_any_order_makes_valid_resources(first: str, second: str, third: str) -> None:
    """Odd names, numbers, codes and reasons from a RIS never make an order or a patient invalid."""
    patient = Patient("p-1", first, second, name=PersonName(third, first, second), sex=third)
    order = replace(
        ORDER,
        patient=patient,
        assigner=third,
        placer_number=first,
        accession_number=second,
        accession_assigner=third,
        study_instance_uid=first,
        procedure=Procedure(first, second, third),
        reason=second,
        ordering_provider=Provider(first, PersonName(second)),
    )
    check(service_request(SITE, order))
    check(patient_resource(SITE, patient))
    check(diagnostic_report(SITE, ReportRow(report_of({}, Status.REGISTERED), order), []))


@given(TEXTS.filter(bool) | st.sampled_from(["1.2.3", "urn:oid:1.2.3", "https://ris.test/x", "urn:x-inlay:assigner:A"]))
def test_an_assigner_is_found_by_the_system_that_names_it(name: str) -> None:
    """Whatever a site calls its assigners and code systems, a search by the emitted URI leads back to the name."""
    system = assigner_system(SITE, name)
    assert system is not None
    assert name in assigners(SITE, system)
    uri = code_system(name)
    assert uri is not None
    assert name in code_system_names(uri) or name.upper() in code_system_names(uri)


def test_roles_are_not_in_a_report() -> None:
    """A signer is named by id and name alone; what an identity may do is nobody's business."""
    resource = diagnostic_report(SITE, ReportRow(report_of({"findings": "x"}, Status.SIGNED), ORDER), [JOB])
    assert Role.RADIOLOGIST not in repr(resource["resultsInterpreter"])
