"""Interactions on Subscription: create, read, delete, and the operation `$status`.

https://hl7.org/fhir/R4/subscription.html, https://hl7.org/fhir/uv/subscriptions-backport/. Only the owner sees it.
"""

from __future__ import annotations

from inlay_fhir.body import resource_of
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import Kind, Subscription, SubscriptionState, Tag
from inlay_fhir.mapping.subscription import status_bundle, subscription_resource, wish_of
from inlay_fhir.outcome import Refusal
from inlay_fhir.read import access_of
from inlay_fhir.store import Access


def create_subscription(exchange: Exchange) -> Answer:
    """A new subscription: 201; it is active once its endpoint has taken the handshake."""
    if not exchange.site.origins:
        raise Refusal(400, "not-supported", "This site sends no notifications.")
    wish = wish_of(exchange.site, resource_of(exchange.request, "Subscription"))
    made = exchange.store.subscribe(exchange.actor, wish.endpoint, wish.statuses, wish.ends_at)
    location = f"{exchange.request.base_url}/Subscription/{made.id}"
    resource = subscription_resource(exchange.site, made)
    return Answer(resource, version=str(made.version), status=201, headers={"Location": location}, written=True)


def read_subscription(exchange: Exchange) -> Answer:
    """A subscription; 410 once it was deleted."""
    found = _found(exchange)
    resource = subscription_resource(exchange.site, found)
    return Answer(resource, (_shown(found, "read"),), str(found.version), found.updated_at)


def delete_subscription(exchange: Exchange) -> Answer:
    """The end of a subscription: 204, also when it was over already."""
    ended = exchange.store.unsubscribe(exchange.actor, exchange.identity)
    return Answer(subscription_resource(exchange.site, ended), status=204, cacheable=False, written=True)


def status_of_subscription(exchange: Exchange) -> Answer:
    """State, and how many events were told."""
    found = _found(exchange)
    return Answer(status_bundle(found, exchange.request.base_url), (_shown(found, "operation"),), cacheable=False)


def _found(exchange: Exchange) -> Subscription:
    found = exchange.store.subscription(exchange.actor, exchange.identity)
    if found.state is SubscriptionState.OFF:
        raise Refusal(410, "deleted", "The subscription was deleted.")
    return found


def _shown(subscription: Subscription, interaction: str) -> Access:
    return access_of(
        Tag.READER_SUBSCRIPTION_READ, Kind.SUBSCRIPTION, subscription.id, "Subscription", interaction=interaction
    )
