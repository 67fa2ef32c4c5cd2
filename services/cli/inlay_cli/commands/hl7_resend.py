"""`inlay hl7 resend`: have the relay send parked results again, each under its message control id."""

from collections.abc import Sequence

from inlay_cli.commands.hl7_dead import parked
from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import CommandError, command_parser

EXAMPLES = """
inlay hl7 resend 4b825dc6-...       one or several of those that `inlay hl7 dead` lists
inlay hl7 resend --all              every one of them, the oldest first
"""


def main(arguments: Sequence[str]) -> int:
    """Queue them; returns 1 when one of them could not be queued."""
    parser = command_parser("hl7 resend", "Sends results again that are not tried any more.", EXAMPLES)
    parser.add_argument("id", nargs="*", help="ids from `inlay hl7 dead`")
    parser.add_argument("--all", action="store_true", help="all that are parked")
    options = parser.parse_args(arguments)
    if bool(options.id) is options.all:
        raise CommandError("name ids, or --all", status=2)

    from inlay_core.application.publishing import resend
    from inlay_core.domain.errors import DomainError

    failed = 0
    with opened(read_settings()) as services:
        for item_id in [item.id for item in parked(services)] if options.all else options.id:
            try:
                item = resend(services.uow(), services.clock, services.new_id, administrator(), item_id)
            except DomainError as error:
                failed += 1
                print(f"{item_id}  not queued: {error.message}")
            else:
                print(f"{item.id}  queued for {item.destination} as {item.control_id}")
    return 1 if failed else 0
