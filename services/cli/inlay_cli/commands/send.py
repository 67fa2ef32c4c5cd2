"""`inlay send`: one HL7 v2 message from a file over MLLP, and the acknowledgement on standard output."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inlay_cli.parsing import CommandError, address, command_parser

if TYPE_CHECKING:
    import ssl

    from inlay_hl7.client import MllpClient

EXAMPLES = """
inlay send order.hl7                        to the listener of this machine, 127.0.0.1:2575
inlay send order.hl7 --to ris.example:2575  elsewhere
inlay send - < order.hl7                    from standard input
inlay send order.hl7 --tls-ca ca.pem --tls-certificate ris.pem   to a listener with mutual authentication
"""


def main(arguments: Sequence[str]) -> int:
    """Send the message; returns 0 for a positive acknowledgement and 1 for any other."""
    parser = command_parser("send", "Sends an HL7 v2 message over MLLP and prints the acknowledgement.", EXAMPLES)
    parser.add_argument("file", help="the message, segments ended by CR, LF or both; - is standard input")
    parser.add_argument("--to", type=address, metavar="HOST:PORT", help="where to (default: INLAY_MLLP_HOST and _PORT)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for the answer (default: 10)")
    parser.add_argument("--tls-ca", metavar="FILE", help="speak TLS, and trust these authorities")
    parser.add_argument("--tls-certificate", metavar="FILE", help="show this certificate (key in the same PEM file)")
    parser.add_argument("--tls-name", default="", metavar="NAME", help="the name in the listener's certificate")
    options = parser.parse_args(arguments)
    host, port = options.to or _own_listener()
    message = with_segment_ends(read_message(options.file))

    from inlay_hl7.client import MllpClient

    tls = _tls(options.tls_ca, options.tls_certificate)
    with MllpClient(host, port, timeout=options.timeout, tls=tls, server_name=options.tls_name) as client:
        return _tell(client, message, f"{host}:{port}")


def _tls(ca: str | None, certificate: str | None) -> "ssl.SSLContext | None":
    from inlay_core.domain.errors import Invalid
    from inlay_core.targets import TlsFiles
    from inlay_gateway.tls import client_context

    if ca is None:
        if certificate is not None:
            raise CommandError("--tls-certificate needs --tls-ca", status=2)
        return None
    own = Path(certificate) if certificate else None
    try:
        return client_context(TlsFiles(Path(ca), own, own))
    except Invalid as error:
        raise CommandError("a file for TLS cannot be read") from error


def with_segment_ends(message: bytes) -> bytes:
    """Segments ended by CR as HL7 wants it: editors save LF or CRLF. A message that has CR alone stays as it is."""
    if b"\n" not in message:
        return message
    return message.replace(b"\r\n", b"\r").replace(b"\n", b"\r")


def _own_listener() -> tuple[str, int]:
    from inlay_cli.environment import read_settings

    settings = read_settings()
    return settings.mllp_host, settings.mllp_port


def read_message(name: str) -> bytes:
    """The bytes of a file, or of standard input for `-`."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error


def _tell(client: "MllpClient", message: bytes, address: str) -> int:
    from inlay_hl7.client import NoAnswer

    try:
        answer = client.send(message)
    except ValueError as error:
        raise CommandError(f"the message cannot be sent: {error}") from error
    except NoAnswer as error:
        raise CommandError(f"no answer from {address} ({error.code})") from error
    condition = "" if answer.condition is None else f", condition {answer.condition} (HL7 table 0357)"
    print(f"{answer.code} for control id {answer.control_id}{condition}")
    return 0 if answer.positive else 1
