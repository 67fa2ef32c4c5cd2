"""Structured logs from an allow-list: a key that is not listed is dropped, and so is every text that could quote data.

Exceptions are logged by type, code and place, never by their message: drivers and parsers quote the values they met.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from inlay_core.domain.errors import DomainError

ALLOWED_KEYS: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "logger",
        "process",
        # ids that we made
        "job_id",
        "report_id",
        "order_id",
        "message_id",
        "event_id",
        "item_id",
        "request_id",
        "stream_id",
        # what happened
        "action",
        "code",
        "category",
        "status",
        "state",
        "kind",
        "outcome",
        "reason",
        "destination",
        "flags",
        "place",
        "error_type",
        "error_code",
        "error_place",
        "error_at",
        # numbers
        "version",
        "base_version",
        "fence",
        "attempts",
        "step",
        "steps",
        "count",
        "limit",
        "bytes",
        "images",
        "locks",
        "gaps",
        "seconds",
        "milliseconds",
        "pid",
        "exit_status",
        "position",
        # the outside world, without people
        "method",
        "path",
        "route",
        "host",
        "port",
        "peer",
        "listener",
        "message_type",
        "model",
        "revision",
        "device",
        "digest",
        "setting",
        "schema",
        "signal",
        "component",
    }
)
"""The keys that may be logged. `path` is a path without its query; `place` names a segment, field or offset."""

# Longer texts are data, not facts about the program.
_LONGEST: Final = 200
# Libraries whose format strings are known to be about themselves; of all others only logger and level are logged.
_TRUSTED: Final = ("celery.", "kombu.", "gunicorn.error", "alembic.", "opentelemetry.", "inlay_")
_FRAMES: Final = 4
# structlog's own, removed before rendering.
_MARKS: Final = frozenset({"_record", "_from_structlog"})

EventDict = MutableMapping[str, Any]


def configure_logs(
    process: str, *, level: str = "info", log_format: str = "json", stream: TextIO | None = None
) -> None:
    """Send our logs and those of libraries through the allow-list, one line each, to `stream` (stderr)."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            describe_exception,
            keep_allowed,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    renderer: Any = structlog.processors.JSONRenderer(sort_keys=True)
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=False)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                foreign_text,
                describe_exception,
                keep_allowed,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _add_process(process),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Warnings and uncaught errors would be printed with the values that they quote.
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def get_logger(name: str) -> Any:
    """A logger: `get_logger(__name__).info("job.claimed", job_id=...)`. The event is a constant text."""
    return structlog.stdlib.get_logger(name)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, _trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        get_logger("uncaught").critical("process.uncaught", exc_info=error)


def keep_allowed(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Drop what is not on the list; cut texts, and leave only plain values."""
    return {key: _plain(value) for key, value in event_dict.items() if key in ALLOWED_KEYS or key in _MARKS}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "…"
    if isinstance(value, logging.LogRecord):
        return value
    if isinstance(value, (tuple, list, frozenset, set)):
        return [_plain(item) for item in value][:20]
    return type(value).__name__


def foreign_text(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Of a library's record keep the text before formatting, and only where it is known to be no data."""
    record = event_dict.get("_record")
    if isinstance(record, logging.LogRecord):
        trusted = record.name.startswith(_TRUSTED) or record.name in ("celery", "kombu", "alembic")
        event_dict["event"] = record.msg if trusted and isinstance(record.msg, str) else "library"
    return event_dict


def describe_exception(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Replace `exc_info` by type, code and place of the error."""
    error = _error_of(event_dict.pop("exc_info", None), event_dict.get("_record"))
    if error is not None:
        event_dict.update(error_facts(error))
    return event_dict


def error_facts(error: BaseException) -> Mapping[str, str]:
    """What may be said of an exception: its type, our code and place, and where it was raised."""
    kind = type(error)
    facts = {"error_type": f"{kind.__module__}.{kind.__qualname__}", "error_at": _frames(error.__traceback__)}
    if isinstance(error, DomainError):
        facts["error_code"] = error.code
        facts["error_place"] = error.place or ""
    return facts


def _error_of(exc_info: Any, record: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    if exc_info:
        return sys.exc_info()[1]
    if isinstance(record, logging.LogRecord) and record.exc_info:
        found = record.exc_info[1]
        # The formatter would append the whole traceback, message included.
        record.exc_info = None
        record.exc_text = None
        return found
    return None


def _frames(trace: TracebackType | None) -> str:
    places: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-_FRAMES:]))


def _add_process(process: str) -> Any:
    def add(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
        return {"process": process, **event_dict}

    return add
