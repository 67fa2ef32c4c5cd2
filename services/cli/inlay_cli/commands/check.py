"""`inlay check`: what is configured, and what of it can be reached. Secrets are never printed."""

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

if TYPE_CHECKING:
    from inlay_core.settings import Settings

EXAMPLES = """
inlay check                  each part with ok or what is wrong; exit status 1 where something is
inlay check --settings       every setting with its value; passwords only as "set"
inlay check --json           for a program
inlay check --only database --only broker    in a container, where the other parts run elsewhere
"""

REACH_SECONDS = 3.0

# A probe returns what it found, or raises Unreachable with what is wrong.
Probe = Callable[["Settings"], str]


class Unreachable(Exception):
    """What is wrong with a part."""


def main(arguments: Sequence[str]) -> int:
    """Try every part; returns 1 when one of them cannot be used."""
    parser = command_parser("check", "Says what is configured, and what of it can be reached.", EXAMPLES)
    parser.add_argument("--settings", action="store_true", help="print the settings instead")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument(
        "--only", action="append", choices=PROBES, metavar="PART", help=f"this part; repeatable: {', '.join(PROBES)}"
    )
    options = parser.parse_args(arguments)
    settings = read_settings()
    if options.settings:
        _print(shown_settings(settings), as_json=options.json)
        return 0
    found = {name: _try(PROBES[name], settings) for name in options.only or PROBES}
    if options.json:
        print(json.dumps({name: {"ok": ok, "found": text} for name, (ok, text) in found.items()}))
    else:
        _print({name: f"{'ok  ' if ok else 'FAIL'}  {text}" for name, (ok, text) in found.items()}, as_json=False)
    return 0 if all(ok for ok, _ in found.values()) else 1


def shown_settings(settings: "Settings") -> dict[str, str]:
    """Variable -> value as text. What may carry a password says only whether it is set."""
    return {
        f"INLAY_{field.name.upper()}": _shown(getattr(settings, field.name), secret=field.metadata["secret"])
        for field in dataclasses.fields(settings)
    }


def _shown(value: object, *, secret: bool) -> str:
    from inlay_core.settings import text_of

    if secret:
        return "(set)" if value else ""
    return text_of(value)


def _print(rows: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def _try(probe: Probe, settings: "Settings") -> tuple[bool, str]:
    try:
        return True, probe(settings)
    except Unreachable as error:
        return False, str(error)


def _database(settings: "Settings") -> str:
    from inlay_core import bootstrap

    kind = "SQLite" if settings.database.startswith("sqlite") else "PostgreSQL"
    try:
        revision = bootstrap.database_revision(settings)
    except Exception as error:
        # Drivers raise errors of their own; their text may hold the URL, their kind does not.
        raise Unreachable(f"{kind} does not answer ({type(error).__name__})") from error
    if revision is None:
        raise Unreachable(f"{kind} is empty; run `inlay db upgrade`")
    return f"{kind}, schema {revision}"


def _broker(settings: "Settings") -> str:
    return (
        _redis(settings.broker_url, settings.redis_master) if settings.broker_url else f"file queues in {settings.home}"
    )


def _progress(settings: "Settings") -> str:
    return _redis(settings.redis_url, settings.redis_master) if settings.redis_url else "a row of the database"


def _redis(url: str, master: str) -> str:
    import redis

    from inlay_core.redis_servers import redis_client

    try:
        with redis_client(url, master, socket_timeout=REACH_SECONDS, socket_connect_timeout=REACH_SECONDS) as server:
            server.ping()
    except (redis.RedisError, ValueError) as error:
        raise Unreachable(f"Redis does not answer ({type(error).__name__})") from error
    return "Redis answers"


def _images(settings: "Settings") -> str:
    if not settings.images.is_dir():
        raise Unreachable(f"{settings.images} is no folder; create it, or set INLAY_IMAGES_FOLDER")
    from inlay_core.domain.errors import Invalid
    from inlay_gateway.dicom import site_of, store_of

    try:
        aside = store_of(settings, site_of(settings)).conflicting()
    except Invalid as error:
        raise Unreachable(str(error)) from error
    note = f"; {aside} received images contradict one of the same UID and were set aside" if aside else ""
    return f"watched folder {settings.images}{note}"


def _results(settings: "Settings") -> str:
    from inlay_core.domain.errors import Invalid
    from inlay_core.targets import result_targets

    try:
        targets = result_targets(settings)
    except Invalid as error:
        raise Unreachable(str(error)) from error
    if not targets:
        return "no results are sent (INLAY_ORU_TARGET and INLAY_HL7_TARGETS are empty)"
    for target in targets:
        try:
            socket.create_connection((target.host, target.port), timeout=REACH_SECONDS).close()
        except OSError as error:
            raise Unreachable(f"{target.host}:{target.port} does not answer ({type(error).__name__})") from error
    return ", ".join(f"{target.host}:{target.port} answers" for target in targets)


def _listening(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise Unreachable(f"nothing listens on {host}:{port} ({type(error).__name__})") from error
    return f"listens on {host}:{port}"


def _http(settings: "Settings") -> str:
    return _listening(settings.http_host, settings.http_port)


def _mllp(settings: "Settings") -> str:
    return _listening(settings.mllp_host, settings.mllp_port)


def _dicom(settings: "Settings") -> str:
    return _listening(settings.dicom_host, settings.dicom_port)


def _archive(settings: "Settings") -> str:
    from inlay_core.domain.errors import Invalid
    from inlay_dicom.archive import ArchiveProblem, Wanted
    from inlay_gateway.dicom import archives, sender_of, site_of

    try:
        site = site_of(settings)
        asked, sender = archives(settings, site), sender_of(settings, site)
        for archive in asked:
            # A study that no archive has: what counts is that the question is understood and allowed.
            archive.studies(Wanted(study_instance_uid="2.25.0"))
    except (Invalid, ArchiveProblem) as error:
        raise Unreachable(str(error)) from error
    reports = f"; signed reports go to [{settings.dicom_reports}]" if sender is not None else ""
    return f"{len(asked)} asked for images{reports}" if asked or sender else "none is asked (INLAY_DICOM_CONFIG)"


def _worker(settings: "Settings") -> str:
    from inlay_core import bootstrap
    from inlay_core.application.administration import Consumption, consumption
    from inlay_core.domain.errors import DomainError

    def look() -> Consumption:
        uow = bootstrap.unit_of_work(settings, read_only=True)
        # As a worker's own readiness: three rounds of wake-ups that nobody heard.
        return consumption(uow, bootstrap.clock, bootstrap.site_of(settings), 3 * settings.forgotten_seconds)

    try:
        found = look()
        if found.untaken:
            # What was queued a moment ago is claimed by the second look.
            time.sleep(REACH_SECONDS)
            again = look()
            found = dataclasses.replace(again, untaken=found.untaken & again.untaken)
    except DomainError as error:
        raise Unreachable(f"the database cannot tell ({error.code})") from error
    there = f"{found.workers} there, {found.silent} silent"
    if found.untaken:
        raise Unreachable(f"{len(found.untaken)} jobs wait, and no worker takes them ({there})")
    if found.silent and not found.workers:
        raise Unreachable(f"no worker tells of itself ({there})")
    return there if found.workers else "none is there, and no job waits for one"


def _model(settings: "Settings") -> str:
    from inlay_core import bootstrap
    from inlay_core.application.administration import workers_there
    from inlay_core.domain.errors import DomainError

    try:
        workers = workers_there(bootstrap.unit_of_work(settings, read_only=True), bootstrap.clock)
    except DomainError as error:
        raise Unreachable(f"the database cannot tell ({error.code})") from error
    expected = settings.model_digest
    for worker in workers:
        if expected and worker.model_digest != expected:
            raise Unreachable(
                f"the worker on {worker.host} has {worker.model} {worker.model_digest}, and INLAY_MODEL_DIGEST expects "
                f"{expected}; start it again with that setting, or correct the setting here"
            )
    found = ", ".join(sorted({f"{worker.model} {worker.model_digest}" for worker in workers}))
    rule = "as INLAY_MODEL_DIGEST expects" if expected else "INLAY_MODEL_DIGEST is empty: workers take any"
    return f"{found}; {rule}" if found else "no worker is there to tell of its checkpoint"


PROBES: dict[str, Probe] = {
    "database": _database,
    "broker": _broker,
    "progress": _progress,
    "worker": _worker,
    "model": _model,
    "images": _images,
    "results": _results,
    "http": _http,
    "mllp": _mllp,
    "dicom": _dicom,
    "archive": _archive,
}
