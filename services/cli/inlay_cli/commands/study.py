"""`inlay study`: blinded reader studies. Make one of pairs of drafts, close it, and read out grades and results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import CommandError, command_parser

if TYPE_CHECKING:
    from inlay_core.bootstrap import Services

EXAMPLES = """
inlay study create pilot --arms tiny large --cases pairs.jsonl     radiologists grade it at /oversight/studies
inlay study list
inlay study results ID                                             scores, errors, preferences, with paired tests
inlay study export ID --csv > grades.csv                           every grade with its arm; no texts
inlay study close ID                                               no more grades

Each line of the cases is one pair, a text per section for each arm; `report_id` names a report whose image is shown:
{"label": "1", "report_id": null, "drafts": {"tiny": {"findings": "..."}, "large": {"findings": "..."}}}
"""


def main(arguments: Sequence[str]) -> int:
    """Make, list, close, read out."""
    parser = command_parser(
        "study", "Blinded reader studies: two drafts of the same images, in random order.", EXAMPLES
    )
    parser.add_argument("action", choices=("create", "list", "results", "export", "close"))
    parser.add_argument("name", nargs="?", help="create: its name; results, export, close: its id")
    parser.add_argument("--arms", nargs=2, metavar=("FIRST", "SECOND"), help="create: what is compared")
    parser.add_argument("--cases", type=Path, metavar="FILE", help="create: JSON lines, one pair each")
    parser.add_argument("--csv", action="store_true", help="export: comma-separated instead of JSON lines")
    options = parser.parse_args(arguments)
    if options.action != "list" and not options.name:
        raise CommandError(f"{options.action} needs a name or id", status=2)
    with opened(read_settings()) as services:
        if options.action == "create":
            if not options.arms or not options.cases:
                raise CommandError("create needs --arms and --cases", status=2)
            return _create(services, options.name, options.arms, options.cases)
        if options.action == "list":
            return _list(services)
        if options.action == "close":
            return _close(services, options.name)
        return _results(services, options.name) if options.action == "results" else _export(services, options)


def _create(services: "Services", name: str, arms: Sequence[str], file: Path) -> int:
    from inlay_core.application.reader_studies import create_study

    made = create_study(services.uow(), services.clock, services.new_id, administrator(), name, arms, _cases(file))
    print(f"{made.id}  {made.name}: {len(made.cases)} cases")
    return 0


def _cases(file: Path) -> list[Any]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise CommandError(f"{file} cannot be read") from None
    cases = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                cases.append(json.loads(line))
            except ValueError:
                raise CommandError(f"{file}, line {number}: not JSON") from None
    return cases


def _list(services: "Services") -> int:
    from inlay_core.application.reader_studies import studies

    for study, _ in studies(services.reader(), administrator()):
        print(f"{study.id}  {study.name}  {len(study.cases)} cases{'  closed' if study.closed_at else ''}")
    return 0


def _close(services: "Services", study_id: str) -> int:
    from inlay_core.application.reader_studies import close_study

    study = close_study(services.uow(), services.clock, services.new_id, administrator(), study_id)
    print(f"{study.name} is closed")
    return 0


def _results(services: "Services", study_id: str) -> int:
    from inlay_api.reader_studies import results_body
    from inlay_core.application.reader_studies import results

    _record(services, study_id)
    print(json.dumps(results_body(results(services.reader(), administrator(), study_id)), indent=2))
    return 0


def _export(services: "Services", options: Any) -> int:
    from inlay_core.application.oversight import csv_text
    from inlay_core.application.reader_studies import export

    _record(services, options.name)
    _, rows = export(services.reader(), administrator(), options.name)
    print(csv_text(rows) if options.csv else "".join(json.dumps(row) + "\n" for row in rows), end="")
    return 0


def _record(services: "Services", study_id: str) -> None:
    """Who reads results is in the trail, from the command line as well."""
    from inlay_core.application.queries import record_access
    from inlay_core.domain.audit import Kind, Tag

    record_access(
        services.uow(),
        services.clock,
        services.new_id,
        administrator(),
        Tag.READER_STUDY_READ,
        subject=(Kind.READER_STUDY, study_id),
    )
