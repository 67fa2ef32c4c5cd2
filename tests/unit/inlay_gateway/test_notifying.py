import hashlib
import hmac
import json
from typing import Any

import httpx2
import pytest

from inlay_core.application import signing
from inlay_core.application.ports import Delivery, Site
from inlay_core.domain.identity import Actor, ActorKind, Role
from inlay_core.domain.origins import is_allowed, origin_of
from inlay_core.domain.subscription import SubscriptionState
from inlay_fhir.mapping.subscription import TOPIC
from inlay_fhir.site import FhirSite
from inlay_gateway.delivery import Books
from inlay_gateway.notifying import SIGNATURE, TIMESTAMP, Notifier, deliver_notification
from inlay_testkit.core import ADMIN, EHR, RADIOLOGIST, Ward
from inlay_testkit.fhir import FhirClient, Reply, check
from inlay_testkit.memory import Memory

ORIGIN = "https://ehr.test"
SECRET = "a secret of the site"
OTHER = Actor("ehr-2", "Other EHR", frozenset({Role.EHR}), ActorKind.SYSTEM)
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"


class Ehr:
    """A ward, its FHIR clients, and an endpoint that answers with `status`."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.ward = Ward(self.memory())
        self.client = FhirClient(self.ward, FhirSite(origins=(ORIGIN,)))
        self.status: int | Exception = 200
        self.requests: list[httpx2.Request] = []
        self.books = Books(self.memory, self.ward.clock, self.ward.new_id, Site(max_deliveries=3))
        transport = httpx2.MockTransport(self._answer)
        self.notifier = Notifier(httpx2.Client(transport=transport), (ORIGIN,), SECRET, "https://inlay.test/fhir")

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if isinstance(self.status, Exception):
            raise self.status
        return httpx2.Response(self.status, headers={"Location": "https://inside.test/"})

    def subscribe(self, actor: Actor = EHR, **changes: Any) -> Reply:
        """Ask for a subscription."""
        body: dict[str, Any] = {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": "drafts",
            "criteria": TOPIC,
            "channel": {"type": "rest-hook", "endpoint": f"{ORIGIN}/hook", "payload": "application/fhir+json"},
        }
        sent = json.dumps({k: v for k, v in (body | changes).items() if v is not None}).encode()
        headers = {"Content-Type": "application/fhir+json"}
        return self.client.ask("/Subscription", method="POST", headers=headers, body=sent, actor=actor)

    def subscribed(self, **changes: Any) -> str:
        """A subscription whose endpoint has taken the handshake."""
        identity: str = self.subscribe(**changes).json["id"]
        self.deliver()
        self.requests.clear()
        return identity

    def deliver(self) -> list[str]:
        """Everything that is due, one after the other."""
        codes: list[str] = []
        while sent := deliver_notification(self.books, self.notifier):
            codes += [one.code for one in sent]
        return codes

    def told(self) -> list[dict[str, Any]]:
        """The status of each notification, as a table."""
        bundles = [json.loads(request.content) for request in self.requests]
        return [{p["name"]: p for p in bundle["entry"][0]["resource"]["parameter"]} for bundle in bundles]

    def numbers(self) -> list[str]:
        """The event numbers in the order of arrival."""
        events = [{part["name"]: part for part in t["notificationEvent"]["part"]} for t in self.told()]
        return [event["eventNumber"]["valueString"] for event in events]

    def state(self, identity: str) -> SubscriptionState:
        """Where the subscription stands."""
        with self.memory() as uow:
            found = uow.subscriptions.get(identity)
        assert found is not None
        return found.state


@pytest.fixture
def ehr() -> Ehr:
    """A fresh one."""
    return Ehr()


def test_a_subscription_is_active_once_the_handshake_was_taken(ehr: Ehr) -> None:
    """Nothing is told before the endpoint has answered; the handshake holds no report."""
    reply = ehr.subscribe()
    identity = reply.json["id"]
    assert (reply.status, reply.json["status"]) == (201, "requested")
    ehr.ward.drafted()
    assert ehr.deliver() == ["delivered"]
    assert ehr.state(identity) is SubscriptionState.ACTIVE
    (told,) = ehr.told()
    assert told["type"]["valueCode"] == "handshake"
    check(json.loads(ehr.requests[0].content))


def test_an_event_is_an_id_with_a_signature(ehr: Ehr) -> None:
    """The body names the report and nothing about the patient; whoever has the key can prove where it came from."""
    ehr.subscribed()
    report = ehr.ward.drafted()
    ehr.deliver()
    (request,) = ehr.requests
    bundle = json.loads(request.content)
    check(bundle)
    assert bundle["entry"][1]["fullUrl"] == f"https://inlay.test/fhir/DiagnosticReport/{report.id}"
    assert "resource" not in bundle["entry"][1]
    for planted in (b"Testperson", b"MRN1", b"A1", b"heart"):
        assert planted not in request.content
    signed = request.headers[TIMESTAMP].encode() + b"." + request.content
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert request.headers[SIGNATURE] == f"sha256={expected}"


def test_event_numbers_rise_and_stay_when_repeated(ehr: Ehr) -> None:
    """What failed comes again under its number before anything newer, and $status counts what was told."""
    identity = ehr.subscribed()
    report = ehr.ward.drafted()
    signing.sign(*ehr.ward.trio, RADIOLOGIST, report.id, expected_version=3)
    ehr.status = 503
    assert ehr.deliver() == ["http-503"]
    ehr.status = httpx2.ConnectTimeout("slow")
    ehr.ward.clock.advance(10)
    assert ehr.deliver() == ["timeout"]
    ehr.status = 202
    ehr.ward.clock.advance(10)
    assert ehr.deliver() == ["delivered", "delivered"]
    assert ehr.numbers() == ["1", "1", "1", "2"]
    status = ehr.client.ask(f"/Subscription/{identity}/$status").json["entry"][0]["resource"]
    assert {p["name"]: p for p in status["parameter"]}["eventsSinceSubscriptionStart"]["valueString"] == "2"


def test_a_filter_chooses_by_status(ehr: Ehr) -> None:
    """Who wants signed reports hears nothing of drafts."""
    criterion = {"url": f"{BACKPORT}/backport-filter-criteria", "valueString": "DiagnosticReport?status=final"}
    ehr.subscribed(_criteria={"extension": [criterion]})
    report = ehr.ward.drafted()
    assert ehr.deliver() == []
    signing.sign(*ehr.ward.trio, RADIOLOGIST, report.id, expected_version=3)
    assert ehr.deliver() == ["delivered"]


def test_a_dead_endpoint_ends_in_error_and_blocks_nobody(ehr: Ehr) -> None:
    """After the last attempt the subscription says why; what another subscriber gets is not held up."""
    dead = ehr.subscribe().json["id"]
    ehr.status = 302
    for _ in range(3):
        assert ehr.deliver() == ["http-302"]
        ehr.ward.clock.advance(4000)
    assert ehr.state(dead) is SubscriptionState.ERROR
    assert ehr.client.ask(f"/Subscription/{dead}").json["error"] == "http-302"
    assert {request.url.host for request in ehr.requests} == {"ehr.test"}
    ehr.status = 200
    ehr.subscribed()
    ehr.ward.drafted()
    assert ehr.deliver() == ["delivered"]
    with ehr.memory() as uow:
        assert ("subscription", Delivery.PENDING) not in uow.outbox.count()


def test_the_end_of_a_subscription_is_the_end(ehr: Ehr) -> None:
    """Deleted: 204, then 410; what was still to be told is dropped without a word."""
    identity = ehr.subscribed()
    ehr.ward.drafted()
    gone = ehr.client.ask(f"/Subscription/{identity}", method="DELETE")
    assert (gone.status, gone.response.body) == (204, b"")
    assert ehr.deliver() == ["subscription-off"]
    assert ehr.requests == []
    assert ehr.client.ask(f"/Subscription/{identity}").status == 410
    assert ehr.client.ask(f"/Subscription/{identity}", method="DELETE").status == 204


def test_only_the_owner_sees_a_subscription(ehr: Ehr) -> None:
    """To another system it does not exist; an administrator may look; a clinician may not subscribe."""
    identity = ehr.subscribed()
    for path in (f"/Subscription/{identity}", f"/Subscription/{identity}/$status"):
        assert ehr.client.ask(path, actor=OTHER).status == 404
        assert ehr.client.ask(path, actor=ADMIN).status == 200
    assert ehr.client.ask(f"/Subscription/{identity}", method="DELETE", actor=OTHER).status == 404
    assert ehr.subscribe(RADIOLOGIST).status == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"criteria": "DiagnosticReport?status=final"},
        {"status": "off"},
        {"reason": None},
        {"channel": {"type": "email", "endpoint": f"{ORIGIN}/hook", "payload": "application/fhir+json"}},
        {"channel": {"type": "rest-hook", "endpoint": f"{ORIGIN}/hook", "payload": "application/fhir+xml"}},
        {
            "channel": {
                "type": "rest-hook",
                "endpoint": f"{ORIGIN}/hook",
                "payload": "application/fhir+json",
                "header": ["Authorization: Bearer secret"],
            }
        },
    ],
)
def test_what_is_not_offered_is_refused(ehr: Ehr, changes: dict[str, Any]) -> None:
    """Other criteria, channels, payloads and secrets of others are 400, and nothing is kept."""
    assert ehr.subscribe(**changes).status == 400
    assert ehr.deliver() == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://ehr.test/hook",
        "https://ehr.test:8443/hook",
        "https://ehr.test.evil.example/hook",
        "https://ehr.test@inside.test/hook",
        "https://inside.test\\@ehr.test/hook",
        "https://ehr.test%2einside.test/hook",
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://ehr.test /hook",
        "https://ehr.test:99999/hook",
        "//ehr.test/hook",
        "file:///etc/passwd",
    ],
)
def test_nobody_aims_at_the_inside(ehr: Ehr, endpoint: str) -> None:
    """Only an endpoint whose scheme, host and port are listed is accepted, however it is written."""
    assert not is_allowed(endpoint, (ORIGIN,))
    channel = {"type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json"}
    assert ehr.subscribe(channel=channel).status == 400


def test_an_origin_that_was_taken_off_the_list_is_called_no_more(ehr: Ehr) -> None:
    """The list is asked at every delivery: a subscription from before ends in error without a call."""
    identity = ehr.subscribed()
    ehr.ward.drafted()
    ehr.notifier = Notifier(ehr.notifier.client, ("https://new.test",), SECRET, "https://inlay.test/fhir")
    assert ehr.deliver() == ["origin-refused"]
    assert ehr.requests == []
    assert ehr.state(identity) is SubscriptionState.ERROR


def test_an_origin_is_scheme_host_and_port() -> None:
    """Capitals and the default port are the same origin."""
    assert origin_of("HTTPS://EHR.test/a?b") == origin_of("https://ehr.test:443") == ("https", "ehr.test", 443)
    assert is_allowed("https://EHR.TEST:443/hook", (ORIGIN,))


def test_a_site_without_origins_sends_nothing() -> None:
    """Where no origin is listed, subscriptions are not offered."""
    ehr = Ehr()
    ehr.client = FhirClient(ehr.ward, FhirSite())
    assert ehr.subscribe().status == 400
