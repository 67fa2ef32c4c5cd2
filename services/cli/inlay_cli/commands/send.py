"""`inlay send`: one HL7 v2 message from a file over MLLP, and the acknowledgement on standard output."""

import sys
from collections.abc import Sequence
from pathlib import Path

from inlay_cli.parsing import CommandError, address, command_parser

EXAMPLES = """
inlay send order.hl7                        to the listener of this machine, 127.0.0.1:2575
inlay send order.hl7 --to ris.example:2575  elsewhere
inlay send - < order.hl7                    from standard input
"""


def main(arguments: Sequence[str]) -> int:
    """Send the message; returns 0 for a positive acknowledgement and 1 for any other."""
    parser = command_parser("send", "Sends an HL7 v2 message over MLLP and prints the acknowledgement.", EXAMPLES)
    parser.add_argument("file", help="the message, segments ended by CR, LF or both; - is standard input")
    parser.add_argument("--to", type=address, metavar="HOST:PORT", help="where to (default: INLAY_MLLP_HOST and _PORT)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for the answer (default: 10)")
    options = parser.parse_args(arguments)
    host, port = options.to or _own_listener()
    message = with_segment_ends(read_message(options.file))

    return _tell(host, port, message, options.timeout)


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


def _tell(host: str, port: int, message: bytes, timeout: float) -> int:
    from inlay_hl7.client import MllpClient, NoAnswer

    try:
        with MllpClient(host, port, timeout=timeout) as client:
            answer = client.send(message)
    except ValueError as error:
        raise CommandError(f"the message cannot be sent: {error}") from error
    except NoAnswer as error:
        raise CommandError(f"no answer from {host}:{port} ({error.code})") from error
    condition = "" if answer.condition is None else f", condition {answer.condition} (HL7 table 0357)"
    print(f"{answer.code} for control id {answer.control_id}{condition}")
    return 0 if answer.positive else 1
