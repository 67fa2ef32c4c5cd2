"""Subscriptions and their notifications, after the R4 backport of topic-based subscriptions (id-only payload).

https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/: a notification is a Bundle of type history whose first entry is
a Parameters with the status; of the report it carries the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from inlay_core.domain.lifecycle import Status
from inlay_core.domain.origins import is_allowed
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_fhir import parameters
from inlay_fhir.body import bad, object_at, objects_at, text_at
from inlay_fhir.elements import Json, filled, instant, string
from inlay_fhir.mapping.diagnostic_report import fhir_status, statuses
from inlay_fhir.site import FhirSite

TOPIC: Final = "urn:x-inlay:subscription-topic:report-published"
_BACKPORT: Final = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
_FILTER: Final = f"{_BACKPORT}/backport-filter-criteria"
_CONTENT: Final = f"{_BACKPORT}/backport-payload-content"
_STATUS_PROFILE: Final = f"{_BACKPORT}/backport-subscription-status-r4"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for: where it wants to be told, of which statuses (None: all), and until when."""

    endpoint: str
    statuses: tuple[Status, ...] | None
    ends_at: datetime | None


def wish_of(site: FhirSite, body: Json) -> Wish:
    """The wish in a Subscription. Raises Refusal, naming the element."""
    place = "Subscription"
    if body.get("status") not in ("requested", "active"):
        raise bad(f"{place}.status", "a new subscription is requested.")
    if text_at(body, "reason", place) is None:
        raise bad(f"{place}.reason", "R4 asks why.")
    if body.get("criteria") != TOPIC:
        raise bad(f"{place}.criteria", f"the topic {TOPIC}.")
    channel = object_at(body, "channel", place)
    if channel.get("type") != "rest-hook" or channel.get("payload") != "application/fhir+json":
        raise bad(f"{place}.channel", "type rest-hook, payload application/fhir+json.")
    if channel.get("header"):
        raise bad(f"{place}.channel.header", "not supported: secrets of others are not kept. Verify our signature.")
    content = _extension(object_at(channel, "_payload", place), _CONTENT)
    if content is not None and content.get("valueCode") != "id-only":
        raise bad(f"{place}.channel.payload", "id-only.")
    endpoint = text_at(channel, "endpoint", f"{place}.channel", 2000)
    if endpoint is None or not is_allowed(endpoint, site.origins):
        raise bad(f"{place}.channel.endpoint", "its origin is not among those that the site allows.")
    until = text_at(body, "end", place, 64)
    return Wish(endpoint, _filter(site, body, place), parameters.bound("end", until).start if until else None)


def _filter(site: FhirSite, body: Json, place: str) -> tuple[Status, ...] | None:
    stated = _extension(object_at(body, "_criteria", place), _FILTER)
    if stated is None:
        return None
    kind, _, query = str(stated.get("valueString", "")).partition("?")
    name, _, codes = query.partition("=")
    found = tuple(status for code in codes.split(",") for status in statuses(site, code))
    if kind != "DiagnosticReport" or name != "status" or not found:
        raise bad(f"{place}.criteria", "a filter is DiagnosticReport?status=..., codes divided by commas.")
    return found


def _extension(element: Json, url: str) -> Json | None:
    return next((each for each in objects_at(element, "extension", "extension") if each.get("url") == url), None)


def subscription_resource(site: FhirSite, subscription: Subscription) -> Json:
    """The subscription as its owner reads it."""
    codes = dict.fromkeys(fhir_status(site, status) for status in subscription.statuses or ())
    criterion = {"url": _FILTER, "valueString": f"DiagnosticReport?status={','.join(codes)}"}
    return filled(
        resourceType="Subscription",
        id=subscription.id,
        meta={"versionId": str(subscription.version), "lastUpdated": instant(subscription.updated_at)},
        status=str(subscription.state),
        end=instant(subscription.ends_at) if subscription.ends_at else None,
        reason="To be told of reports",
        criteria=TOPIC,
        _criteria={"extension": [criterion]} if codes else None,
        error=string(subscription.reason),
        channel={
            "type": "rest-hook",
            "endpoint": subscription.endpoint,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": _CONTENT, "valueCode": "id-only"}]},
        },
    )


def notification(
    subscription: Subscription, base_url: str, now: datetime, event: Mapping[str, Any] | None, since: datetime
) -> Json:
    """What an endpoint gets: an event with the id of its report (made at `since`), or the handshake without one."""
    kind = "handshake" if event is None else "event-notification"
    entries = [_status_entry(subscription, base_url, kind, event, since)]
    if event is not None:
        report = f"DiagnosticReport/{event['report_id']}"
        request = {"method": "PUT", "url": report}
        entries.append({"fullUrl": f"{base_url}/{report}", "request": request, "response": {"status": "200"}})
    return {"resourceType": "Bundle", "type": "history", "timestamp": instant(now), "entry": entries}


def status_bundle(subscription: Subscription, base_url: str) -> Json:
    """The answer to `$status`."""
    status = _status(subscription, base_url, "query-status", None, subscription.updated_at)
    entry = {"resource": status, "search": {"mode": "match"}}
    return {"resourceType": "Bundle", "type": "searchset", "total": 1, "entry": [entry]}


def _status_entry(
    subscription: Subscription, base_url: str, kind: str, event: Mapping[str, Any] | None, since: datetime
) -> Json:
    url = f"{base_url}/Subscription/{subscription.id}/$status"
    return {
        "fullUrl": url,
        "resource": _status(subscription, base_url, kind, event, since),
        "request": {"method": "GET", "url": url},
        "response": {"status": "200"},
    }


def _status(
    subscription: Subscription, base_url: str, kind: str, event: Mapping[str, Any] | None, since: datetime
) -> Json:
    # A first event may be on its way before the state has been written.
    state = SubscriptionState.ACTIVE if event is not None else subscription.state
    parts: list[Json] = [
        {"name": "subscription", "valueReference": {"reference": f"{base_url}/Subscription/{subscription.id}"}},
        {"name": "topic", "valueCanonical": TOPIC},
        {"name": "status", "valueCode": str(state)},
        {"name": "type", "valueCode": kind},
        {"name": "eventsSinceSubscriptionStart", "valueString": str(subscription.events)},
    ]
    if event is not None:
        focus = {"reference": f"{base_url}/DiagnosticReport/{event['report_id']}"}
        told = [
            {"name": "eventNumber", "valueString": str(event["event"])},
            {"name": "timestamp", "valueInstant": instant(since)},
            {"name": "focus", "valueReference": focus},
        ]
        parts.append({"name": "notificationEvent", "part": told})
    return {"resourceType": "Parameters", "meta": {"profile": [_STATUS_PROFILE]}, "parameter": parts}
