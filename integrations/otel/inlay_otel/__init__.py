"""OpenTelemetry: spans of ours as OTLP over HTTP. Importing this package imports none of its libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inlay_otel.spans import Spans

__all__ = ["open_spans"]


def open_spans(process: str, version: str, headers: str = "") -> Spans:
    """Where the spans of a process go: wherever the OTEL_* variables of the environment say.

    `headers` go to the collector besides those of the environment, in the form of OTEL_EXPORTER_OTLP_HEADERS.
    Raises ModuleNotFoundError where the extra `traces` is not installed.
    """
    from inlay_otel.spans import Spans, provider_of

    return Spans(provider_of(process, version, headers))
