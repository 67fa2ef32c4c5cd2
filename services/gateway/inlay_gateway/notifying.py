"""From the outbox to subscribers: a signed notification with an id, tried again until the endpoint takes it.

Only origins that the site lists are ever called, redirects are not followed, and what an endpoint answers is not read:
whoever may subscribe cannot make Inlay talk with the inside of the hospital's network.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from inlay_core.application.ports import Destination, OutboxItem
from inlay_core.application.publishing import claim_deliveries
from inlay_core.application.subscribing import number_event, settle
from inlay_core.domain.origins import is_allowed
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_fhir.mapping.subscription import notification
from inlay_gateway.delivery import Books, Sent, sent_each

TIMESTAMP: Final = "X-Inlay-Timestamp"
SIGNATURE: Final = "X-Inlay-Signature"
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where notifications may go, with what secret they are signed, and how our endpoint is called in them."""

    client: httpx2.Client
    origins: tuple[str, ...]
    secret: str
    base_url: str


def http_client() -> httpx2.Client:
    """A client that follows no redirects and obeys no proxy of the environment."""
    return httpx2.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC of the timestamp, a point and the body: a recorded notification cannot be sent later."""
    signed = timestamp.encode("ascii") + b"." + body
    return "sha256=" + hmac.new(secret.encode("utf-8"), signed, hashlib.sha256).hexdigest()


def deliver_notification(books: Books, notifier: Notifier) -> Sequence[Sent]:
    """Send the next due notification; one at a time, because an endpoint may take its time."""
    lease = 3 * _TIMEOUT_SECONDS + 30
    items = claim_deliveries(books.new_uow(), books.clock, Destination.SUBSCRIPTION, limit=1, lease_seconds=lease)
    return sent_each(books, items, lambda item: _send(books, notifier, item))


def _send(books: Books, notifier: Notifier, item: OutboxItem) -> Sent:
    subscription, numbered = number_event(books.new_uow(), books.actor, item)
    if subscription is None or subscription.state is SubscriptionState.OFF:
        books.failed(item, "subscription-off", permanent=True)
        return Sent(item, "subscription-off")
    code = _posted(notifier, subscription, _body(books, notifier, subscription, numbered), _stamp(books))
    if code == "delivered":
        books.done(item)
        _settle(books, subscription, None)
        return Sent(item, code)
    books.failed(item, code, permanent=code == "origin-refused")
    if item.attempts >= books.site.max_deliveries or code == "origin-refused":
        _settle(books, subscription, code)
    return Sent(item, code)


def _settle(books: Books, subscription: Subscription, reason: str | None) -> None:
    settle(books.new_uow(), books.clock, books.new_id, books.actor, subscription.id, reason=reason)


def _stamp(books: Books) -> str:
    return str(int(books.clock().timestamp()))


def _body(books: Books, notifier: Notifier, subscription: Subscription, item: OutboxItem) -> bytes:
    event: Mapping[str, Any] | None = None if "handshake" in item.payload else item.payload
    told = notification(subscription, notifier.base_url, books.clock(), event, item.created_at)
    return json.dumps(told, separators=(",", ":")).encode("utf-8")


def _posted(notifier: Notifier, subscription: Subscription, body: bytes, stamp: str) -> str:
    """`delivered`, or why not: a status or the kind of failure, never what was answered."""
    if not is_allowed(subscription.endpoint, notifier.origins):
        return "origin-refused"
    headers = {
        "Content-Type": "application/fhir+json",
        TIMESTAMP: stamp,
        SIGNATURE: signature(notifier.secret, stamp, body),
    }
    try:
        with notifier.client.stream("POST", subscription.endpoint, content=body, headers=headers) as answer:
            return "delivered" if 200 <= answer.status_code < 300 else f"http-{answer.status_code}"
    except httpx2.TimeoutException:
        return "timeout"
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return "unreachable"
