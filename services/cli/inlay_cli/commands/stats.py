"""`inlay stats`: how drafts were used: sentences kept and edited, distances, times, disputes; no patients."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.bootstrap import Services

STEPS = ("day", "week", "month", "all")
EXAMPLES = """
inlay stats                                  the last 90 days by week, model and adapter
inlay stats --since 2026-01-01 --by month    from a day on
inlay stats --csv > usage.csv                for a spreadsheet; --json for a program
inlay stats --reports --csv > drafts.csv     one row per draft: ids of reports, no patients
"""
# Heading -> what of a row stands below it.
_TABLE = {
    "time": "step",
    "model": "model",
    "adapter": "adapter_digest",
    "drafts": "drafts",
    "signed": "signed",
    "as drafted": "signed_untouched",
    "kept": "share_kept",
    "edited": "share_edited",
    "deleted": "share_deleted",
    "added": "sentences_added",
    "findings": "distance_findings",
    "impression": "distance_impression",
    "draft min": "order_to_draft_median",
    "open min": "draft_to_open_median",
    "sign min": "open_to_sign_median",
    "disputes": "disputes",
}


def main(arguments: Sequence[str]) -> int:
    """Print the figures."""
    parser = command_parser("stats", "Tells how drafts were used, from the versions that are stored.", EXAMPLES)
    parser.add_argument(
        "--since", metavar="DAY", help="first day, YYYY-MM-DD in INLAY_TIME_ZONE (default: 90 days ago)"
    )
    parser.add_argument("--until", metavar="DAY", help="last day (default: up to now)")
    parser.add_argument("--by", choices=STEPS, default="week", help="how time is cut (default: week)")
    parser.add_argument("--reports", action="store_true", help="one row per draft instead")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per row and line")
    form.add_argument("--csv", action="store_true", help="comma-separated, with a head")
    options = parser.parse_args(arguments)

    from inlay_core.application.oversight import csv_text, span_of

    settings = read_settings()
    with opened(settings) as services:
        since, until = span_of(options.since, options.until, services.clock(), settings.zone)
        found = rows(services, since, until, options.by, reports=options.reports)
    if options.json:
        for row in found:
            print(json.dumps(row))
    elif options.csv:
        print(csv_text(found), end="")
    else:
        print(table(found, list(found[0]) if options.reports and found else None))
    return 0


def rows(services: "Services", since: Any, until: Any, by: str, *, reports: bool) -> list[dict[str, Any]]:
    """The figures as flat rows. Reading them is recorded first, under the account of whoever asks."""
    from inlay_core.application import oversight
    from inlay_core.domain.usage import Step, summaries

    actor = administrator()
    oversight.record_reading(services.uow(), services.clock, services.new_id, actor, since, until)
    found = oversight.usages(services.reader(), actor, since, until)
    if reports:
        return [oversight.usage_row(usage) for usage in found]
    return [oversight.summary_row(summary) for summary in summaries(found, Step(by), services.settings.zone)]


def table(found: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """The rows for a person; a sentence where there are none."""
    if not found:
        return "No draft came in these days."
    names = dict(zip(columns, columns, strict=True)) if columns else _TABLE
    lines = [list(names)] + [[_shown(key, row[key]) for key in names.values()] for row in found]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _shown(key: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if key.startswith("share_"):
        return f"{value:.0%}"
    if key.endswith("_median"):
        return f"{value / 60:.1f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)[:12] if key.endswith("digest") else str(value)
