from __future__ import annotations

import asyncio
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inlay_gateway.reception import Reception
from inlay_hl7.framing import CR, FS, VT, encode
from inlay_hl7.header import read_header
from inlay_hl7.senders import Sender, read_senders
from inlay_hl7.server import Limits, MllpServer
from inlay_testkit.core import StillClock, counting_ids
from inlay_testkit.memory import Memory, World
from inlay_testkit.mllp import Wire, serving

CORPUS = Path(__file__).parents[1] / "data" / "hl7"
CASES = sorted(path.stem for path in CORPUS.glob("*.toml"))
ENDS = {"cr": "\r", "lf": "\n", "crlf": "\r\n"}
SIGNS = {"VT": VT, "FS": FS, "CR": CR, "LF": b"\n", "NUL": b"\0", "SP": b" "}


@dataclass
class Site:
    """A listener on a database in memory, by the settings of a case."""

    memory: Memory
    server: MllpServer
    observed: list[str]


def site_of(case: dict[str, Any]) -> Site:
    """The site that a case describes."""
    memory, observed = Memory(), []
    senders = read_senders(case.get("senders", ""), Sender(charset=case.get("charset", "cp1252") or None))
    reception = Reception(memory, StillClock(), counting_ids("0123456789abcdef0123"), senders)

    async def handle(payload: bytes, peer: str) -> bytes:
        return await asyncio.to_thread(lambda: reception.take(payload, peer).payload)

    limits = Limits(max_payload=case.get("max_payload", 65536), missing_cr=0.05)
    server = MllpServer(
        handle, limits=limits, observe=lambda event, _peer, detail: observed.append(f"{event} {detail}")
    )
    return Site(memory, server, observed)


def payload_of(name: str, case: dict[str, Any]) -> bytes:
    """The bytes of a message: the file is readable, with LF after each segment; the case says what is really sent."""
    text = (CORPUS / name).read_text(encoding="utf-8").rstrip("\n").replace("\n", ENDS[case.get("ends", "cr")])
    text += ENDS[case.get("ends", "cr")] if case.get("last_end", True) else ""
    return text.encode(case.get("encoding", "utf-8"))


def wire_of(case: dict[str, Any], message: bytes, others: list[bytes]) -> bytes:
    """What is written to the socket: signs in angle brackets, `message`, and `first` and so on for the ones before."""
    if "wire" not in case:
        return encode(message)
    named = {**SIGNS, "message": message, "half": message[: len(message) // 2], "first": (others or [b""])[0]}
    parts = case["wire"].replace("<", ">").split(">")
    return b"".join(named[part] for part in parts if part)


def send(case: dict[str, Any], port: int, name: str) -> list[bytes]:
    """Send the messages of a case; return the answers to the last step."""
    others = [payload_of(each, {}) for each in case.get("before", [])]
    message = payload_of(name, case)
    with Wire(port) as wire:
        if "wire" not in case:
            for other in others:
                wire.ask(other)
        data = wire_of(case, message, others)
        for piece in [data[n : n + 1] for n in range(len(data))] if case.get("byte_by_byte") else [data]:
            wire.send(piece)
        answers = [wire.answer() for _ in case["ack"]]
        # Nothing more comes, and the connection stays open unless the case says that it is closed.
        if not case.get("closed"):
            wire.socket.settimeout(0.02)
        with pytest.raises((EOFError, ConnectionError) if case.get("closed") else TimeoutError):
            wire.answer()
    return answers


def lines_of(answer: bytes, encoding: str) -> list[str]:
    """The segments of an answer without its MSH."""
    return answer.decode(encoding).rstrip("\r").split("\r")[1:]


def value_of(record: object, path: str) -> object:
    """A dotted attribute, as text where it is not plain."""
    for name in path.split("."):
        record = getattr(record, name, None)
    if isinstance(record, tuple):
        return [str(each) if not hasattr(each, "text") else each.text for each in record]
    return str(record) if record is not None else ""


def check_records(world: World, case: dict[str, Any]) -> None:
    """Every record that the case names is there with the values that it names, and there are no others."""
    found: dict[str, list[Any]] = {
        "order": [replace(each, patient=world.patients[each.patient.id]) for each in world.orders.values()],
        "patient": list(world.patients.values()),
        "prior": list(world.priors.values()),
        "report": [versions[-1] for versions in world.reports.values()],
        "message": list(world.messages.values()),
    }
    for kind in ("order", "prior"):
        assert len(found[kind]) == len(case.get(kind, [])), kind
    for kind, records in found.items():
        for record, wanted in zip(records, case.get(kind, []), strict=False):
            assert {path: value_of(record, path) for path in wanted} == wanted
        assert len(records) >= len(case.get(kind, [])), kind


@pytest.mark.parametrize("name", CASES)
def test_the_corpus_is_answered_and_stored_as_written_beside_it(name: str) -> None:
    """Each message of the corpus gets the answer, and leaves the records, that stand in the file beside it."""
    case = tomllib.loads((CORPUS / f"{name}.toml").read_text(encoding="utf-8"))
    site = site_of(case)
    with serving(site.server) as port:
        answers = send(case, port, f"{name}.hl7")
    encoding = case.get("encoding", "utf-8")
    assert [lines_of(answer, encoding) for answer in answers] == case["ack"]
    for answer in answers:
        assert read_header(answer).message_type == "ACK"
        for sign in case.get("ack_header", []):
            assert sign in answer.decode(encoding).split("\r")[0]
    world = site.memory.world
    outcomes = [str(message.outcome) for message in world.messages.values()]
    assert outcomes == case["kept"]
    flags = [flag for message in world.messages.values() for flag in message.flags]
    assert flags == case.get("flags", [])
    raw = payload_of(f"{name}.hl7", case)
    if case["kept"] and "wire" not in case:
        assert raw in [message.envelope.raw for message in world.messages.values()]
    for event in case.get("observed", []):
        assert any(event in each for each in site.observed), site.observed
    check_records(world, case)


def test_every_message_of_the_corpus_has_its_expectation_beside_it() -> None:
    """No file of the corpus is left out, and each says which fact it shows."""
    messages = {path.stem for path in CORPUS.glob("*.hl7")}
    assert messages == set(CASES)
    facts = [tomllib.loads((CORPUS / f"{name}.toml").read_text(encoding="utf-8"))["fact"] for name in CASES]
    assert all(len(fact) > 20 for fact in facts)
    assert len(set(facts)) == len(facts)
