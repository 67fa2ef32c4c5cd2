"""What the commands share in reading their arguments: one style of help, one error that needs no traceback."""

import argparse


class CommandError(Exception):
    """Something the person at the keyboard can mend; printed as one line, without a traceback."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def command_parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose help ends with examples, which teach faster than lists of options."""
    return argparse.ArgumentParser(
        prog=f"inlay {command}",
        description=description,
        epilog="examples:\n" + "\n".join("  " + line for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def how_many(text: str) -> int:
    """How many processes or rounds, from 1 to 999999; argparse prints what is wrong with another number."""
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 999999")
    return int(text)


def address(text: str) -> tuple[str, int]:
    """`host:port` as a pair; argparse reports the ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
