"""The audit trail to Debian's rsyslog: an independent reader of RFC 5424, over TCP and over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from inlay_core.application.trail import seal_trail
from inlay_gateway.delivery import Books
from inlay_gateway.syslog import Receiver, export
from inlay_testkit.core import StillClock, Ward, counting_ids, order_command
from inlay_testkit.memory import Memory
from inlay_testkit.peers import find_program, free_port, running

pytestmark = pytest.mark.peers

# The fields as rsyslog has parsed them.
_FIELDS = "%syslogfacility%|%syslogseverity%|%hostname%|%app-name%|%msgid%|%structured-data%|%msg%\\n"


@contextmanager
def rsyslog(folder: Path, tls: trustme.LeafCert | None, ca: trustme.CA) -> Iterator[int]:
    """An rsyslog that writes what it parsed into `messages`; yields its port. At the end it has written everything."""
    port = free_port()
    lines = [f'global(workDirectory="{folder}" maxMessageSize="64k")']
    module = 'module(load="imtcp")'
    if tls is not None:
        for name, blob in (
            ("ca", ca.cert_pem),
            ("key", tls.private_key_pem),
            ("cert", tls.cert_chain_pems[0]),
        ):
            blob.write_to_path(str(folder / f"{name}.pem"))
        files = {"CAFile": "ca", "CertFile": "cert", "KeyFile": "key"}
        given = " ".join(f'DefaultNetstreamDriver{key}="{folder}/{name}.pem"' for key, name in files.items())
        lines.append(f'global(DefaultNetstreamDriver="gtls" {given})')
        module = 'module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")'
    lines += [
        module,
        f'template(name="fields" type="string" string="{_FIELDS}")',
        f'ruleset(name="keep") {{ action(type="omfile" file="{folder}/messages" template="fields") }}',
        f'input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="keep")',
    ]
    (folder / "rsyslog.conf").write_text("\n".join(lines) + "\n")
    command = [str(find_program("rsyslogd")), "-n", "-f", f"{folder}/rsyslog.conf", "-i", f"{folder}/pid"]

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with running(command, folder / "log", answers):
        yield port


@pytest.mark.parametrize("over", ["tcp", "tls"])
def test_rsyslog_reads_every_event_in_the_order_of_the_chain(tmp_path: Path, over: str) -> None:
    """Facility, severity, MSGID and sequence are read as they were meant, and no event is missing when we say sent."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1") if over == "tls" else None
    context = ssl.create_default_context() if over == "tls" else None
    if context is not None:
        authority.configure_trust(context)
    memory = Memory()
    ward = Ward(memory(), StillClock())
    for number in range(120):
        ward.receive(order_command(str(number)))
    while seal_trail(ward.uow):
        pass
    books = Books(memory, ward.clock, counting_ids("book"))
    sent = 0
    with rsyslog(tmp_path, certificate, authority) as port:
        receiver = Receiver("127.0.0.1", port, context, "ward-1", "INLAY")
        while count := export(books, receiver):
            sent += count
    lines = (tmp_path / "messages").read_text(encoding="utf-8").splitlines()
    assert sent == len(memory.world.links) > 400
    assert len(lines) == sent
    for number, line in enumerate(lines, 1):
        facility, severity, host, application, msgid, data, text = line.split("|", 6)
        assert (facility, severity, host, application, msgid) == ("10", "5", "ward-1", "inlay", "DICOM+RFC3881")
        assert data == f'[meta sequenceId="{number}"]'
        assert text.endswith("</AuditMessage>")
