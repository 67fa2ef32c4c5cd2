from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from inlay_api.schemas import SCHEMAS
from inlay_core.application import intake
from inlay_core.application.ports import Delivery, OutboxItem, PatientFields, PriorCommand
from inlay_core.domain.prior import PriorSection, PriorStatus
from inlay_testkit.core import MONDAY, Ward, ack, envelope
from inlay_testkit.web import Web


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """An application over a fresh installation whose results go to a target."""
    site = Web(tmp_path, oru_target="127.0.0.1:9")
    yield site
    site.site.services.close()


def fits(body: object, name: str) -> None:
    """The body must fit the schema of that name."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": dict(SCHEMAS)}}
    Draft202012Validator(schema).validate(body)


def test_prior_reports_are_read_beside_the_report_and_the_reading_is_recorded(web: Web) -> None:
    """The texts that the RIS sent of the patient are there; the trail says who read them; 304 while nothing changes."""
    report_id = web.drafted()["id"]
    services = web.site.services
    with services.reader() as uow:
        report = uow.reports.get(report_id)
        assert report is not None
        order = uow.orders.get(report.order_id)
        assert order is not None
    patient = PatientFields(order.patient.assigner, order.patient.identifier)
    text = PriorSection("19005-8", "Impression", "Old fracture.")
    prior = PriorCommand("RIS", "F9", patient, PriorStatus.FINAL, (text,), performed_at=MONDAY)
    intake.receive_message(
        services.uow(), services.clock, services.new_id, envelope("ORU1"), lambda: [prior], acknowledge=ack
    )
    answer = web.get(f"/reports/{report_id}/priors")
    body = answer.get_json()
    fits(body, "PriorList")
    assert [each["sections"][0]["text"] for each in body["priors"]] == ["Old fracture."]
    trail = web.get(f"/reports/{report_id}/audit").get_json()["events"]
    assert "reader:prior:read" in [event["tag"] for event in trail]
    assert web.get(f"/reports/{report_id}/priors", If_None_Match=answer.headers["ETag"]).status_code == 304
    assert web.get("/reports/nothing/priors").status_code == 404


def parked(web: Web) -> OutboxItem:
    """A result of a draft that its receiver refused."""
    services = web.site.services
    Ward(services.uow(), site=services.site).drafted()
    with services.uow() as uow:
        item = uow.outbox.in_state(Delivery.PENDING, 10)[0]
        uow.outbox.save(replace(item, state=Delivery.DEAD, last_error="ae-102"))
        uow.commit()
    return item


def test_an_administrator_sees_parked_results_and_sends_them_again(web: Web) -> None:
    """The list names code and control id; sending again queues it, and a second time is a conflict."""
    assert web.get("/deliveries", "admin").get_json() == {"deliveries": []}
    item = parked(web)
    body = web.get("/deliveries", "admin").get_json()
    fits(body, "DeliveryList")
    assert [(each["id"], each["last_error"]) for each in body["deliveries"]] == [(item.id, "ae-102")]
    answer = web.call("POST", f"/deliveries/{item.id}/resend", "admin")
    assert answer.status_code == 200
    fits(answer.get_json(), "Delivery")
    assert (answer.get_json()["state"], answer.get_json()["control_id"]) == ("pending", item.control_id)
    assert web.call("POST", f"/deliveries/{item.id}/resend", "admin").status_code == 409
    assert web.call("POST", "/deliveries/nothing/resend", "admin").status_code == 404
    assert web.get("/deliveries", "radiologist").status_code == 403
