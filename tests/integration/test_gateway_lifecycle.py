"""`inlay listen` and `inlay relay` as processes: how fast they start, what they do, and how they end."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inlay_core.application.trail import kept_checkpoints, verify_trail
from inlay_core.bootstrap import bootstrap, site_of, upgrade_database
from inlay_core.domain.labels import AI_DRAFT
from inlay_core.messaging import broker_folders
from inlay_core.notary import notary_of
from inlay_core.settings import Settings
from inlay_hl7.ack import acknowledge, read_acknowledgement
from inlay_hl7.framing import encode
from inlay_hl7.header import read_header
from inlay_hl7.message import read
from inlay_hl7.server import MllpServer
from inlay_testkit.core import AUDITOR, Ward
from inlay_testkit.gateway import process
from inlay_testkit.mllp import SECONDS, Wire, order_message, serving


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with a fresh database."""
    upgrade_database(Settings(home=tmp_path))
    return tmp_path


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_listener_starts_serves_and_ends(home: Path) -> None:
    """It listens, acknowledges an order, ends at SIGTERM, and logs nothing about the patient."""
    with process("listen", home, INLAY_MLLP_PORT="0", INLAY_DICOM_PORT="0") as listener:
        ready = listener.line("listener.ready")
        with Wire(int(str(ready["port"]))) as idle, Wire(int(str(ready["port"]))) as wire:
            answer = read_acknowledgement(wire.ask(order_message("1", reason="SECRETREASON")))
            assert answer is not None
            assert answer.positive
            refused = order_message("2", reason="SECRETREASON").replace(b"19700102", b"SECRETDATE")
            wire.send(encode(refused)[:-1])
            wire.answer()
            assert listener.end() == 0
            assert idle.is_closed()
    log = "".join(listener.log)
    assert "message.answered" in log
    assert "listener.stopped" in log
    for planted in ("Testperson", "Tina", "MRN1", "MRN2", 'A1"', "SECRET"):
        assert planted not in log


def test_the_relay_tells_sends_seals_and_ends(home: Path) -> None:
    """A drafted report goes to the target, its job to the broker; the trail is sealed and signed; no names; SIGTERM."""
    payloads: queue.Queue[bytes] = queue.Queue()

    async def receive(payload: bytes, _peer: str) -> bytes:
        payloads.put(payload)
        return acknowledge(read_header(payload), "AA", now=datetime.now(UTC), control_id="R1")

    with serving(MllpServer(receive)) as port:
        settings = Settings(home=home, oru_target=f"127.0.0.1:{port}", sweep_seconds=0.1)
        services = bootstrap(settings)
        ward = Ward(services.uow(), site=site_of(settings))
        report = ward.drafted()
        target = {"INLAY_ORU_TARGET": settings.oru_target, "INLAY_SWEEP_SECONDS": "0.1"}
        with process("relay", home, INLAY_AUDIT_CHECKPOINT_SECONDS="0.2", **target) as relay:
            relay.line("relay.ready")
            message = read(payloads.get(timeout=SECONDS))
            until(lambda: "relay:report:sent" in ward.tags(report.id))
            until(lambda: verify_trail(services.reader()).unsealed == 0)
            # Again and again: as often as the trail has grown.
            until(lambda: len(kept_checkpoints(services.reader(), AUDITOR)) >= 1)
            before = len(kept_checkpoints(services.reader(), AUDITOR))
            ward.order("2")
            until(lambda: len(kept_checkpoints(services.reader(), AUDITOR)) > before)
            until(lambda: any(broker_folders(home)[0].iterdir()))
            assert relay.end() == 0
        signed = verify_trail(services.reader(), notary_of(settings))
        services.close()
    assert (signed.holds, signed.checkpoints >= 2) == (True, True)
    assert message.require("OBX").text(5) == AI_DRAFT
    assert payloads.empty()
    log = "".join(relay.log)
    assert "outbox.delivered" in log
    assert "relay.stopped" in log
    assert "Testperson" not in log
