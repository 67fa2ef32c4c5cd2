"""`inlay purge`: what is older than the site keeps it. It only tells, unless it is told to do it."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.application.retention import Purged
    from inlay_core.bootstrap import Services

EXAMPLES = """
inlay purge                              what would go: kind, how many, from when to when
inlay purge --apply                      let it go; each batch is in the audit trail
inlay purge --kind messages --apply      one kind only
INLAY_KEEP_MESSAGES_DAYS=90 inlay purge  with another term than the site's
"""

DAY_SECONDS = 86_400.0
KINDS = ("messages", "jobs", "progress", "outbox", "images", "audit")


def main(arguments: Sequence[str]) -> int:
    """Tell what is older than the settings keep it, and with --apply let it go; returns 0."""
    parser = command_parser("purge", "Lets go of what is older than the site keeps it. A dry run by default.", EXAMPLES)
    parser.add_argument("--apply", action="store_true", help="do it; without this nothing is changed")
    parser.add_argument("--kind", choices=KINDS, action="append", default=[], help="only this kind (again for more)")
    parser.add_argument("--json", action="store_true", help="one JSON object per kind")
    options = parser.parse_args(arguments)
    with opened(read_settings()) as services:
        for found in _purge(services, options.kind or KINDS, dry_run=not options.apply):
            print(json.dumps(as_details(found)) if options.json else sentence(found, done=options.apply))
    return 0


def _purge(services: "Services", kinds: Sequence[str], *, dry_run: bool) -> "Iterator[Purged]":
    from inlay_core.application.ports import Aged
    from inlay_core.application.retention import Purged, purge_rows, purge_trail
    from inlay_core.notary import required_notary

    act = (services.uow(), services.clock, services.new_id, administrator())
    for kind in kinds:
        days: int = getattr(services.settings, f"keep_{kind}_days")
        if days == 0:
            yield Purged(kind)
        elif kind == "images":
            yield _images(services, days, dry_run=dry_run)
        elif kind == "audit":
            notary = required_notary(services.settings)
            yield purge_trail(act[0], services.reader(), *act[1:], notary, days=days, dry_run=dry_run)
        else:
            yield purge_rows(*act, Aged(kind), days=days, dry_run=dry_run)


def _images(services: "Services", days: int, *, dry_run: bool) -> "Purged":
    from datetime import UTC, datetime

    from inlay_core.application.retention import Purged, record_purged_images
    from inlay_gateway.dicom import needed_studies, site_of, store_of

    settings = services.settings
    store, needed = store_of(settings, site_of(settings)), needed_studies(services)
    every, old = store.old(days * DAY_SECONDS), store.old(days * DAY_SECONDS, needed)
    moments = sorted(datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in old)
    if old and not dry_run:
        record_purged_images(services.uow(), services.clock, services.new_id, administrator(), len(old), days)
        store.forget(days * DAY_SECONDS, needed)
    oldest, newest = (moments[0], moments[-1]) if moments else (None, None)
    return Purged("images", len(old), oldest, newest, len(every) - len(old))


def as_details(found: "Purged") -> dict[str, object]:
    """What went or would go, for JSON."""
    moments = {
        name: at.isoformat() if at else None for name, at in (("oldest", found.oldest), ("newest", found.newest))
    }
    return {"kind": found.kind, "count": found.count, **moments, "spared": found.spared}


def sentence(found: "Purged", *, done: bool) -> str:
    """What went or would go, for a person."""
    spared = f", {found.spared} kept for open reports" if found.spared else ""
    if not found.count or found.oldest is None or found.newest is None:
        return f"{found.kind:<9} nothing to let go{spared}"
    verb = "gone" if done else "would go"
    return f"{found.kind:<9} {found.count} {verb}, of {found.oldest:%Y-%m-%d} to {found.newest:%Y-%m-%d}{spared}"
