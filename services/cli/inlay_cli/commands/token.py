"""`inlay token`: a bearer token of the embedded mode, signed with the key that this home made for itself."""

import getpass
from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import CommandError, command_parser

ROLES = ("ris", "ehr", "radiologist", "admin", "auditor")

EXAMPLES = """
inlay token --role radiologist --name "Dr. Example"
curl -H "Authorization: Bearer $(inlay token --role ehr)" http://127.0.0.1:8080/fhir/DiagnosticReport
inlay token --role auditor --role admin --hours 1
"""


def main(arguments: Sequence[str]) -> int:
    """Print a token; CommandError outside of the embedded mode, where somebody else issues them."""
    parser = command_parser("token", "Makes a bearer token of the embedded mode.", EXAMPLES)
    parser.add_argument("--role", choices=ROLES, action="append", required=True, help="may be given several times")
    parser.add_argument("--name", help="the person's or system's name (default: your account)")
    parser.add_argument("--id", help="the identity that the audit trail records (default: local:ACCOUNT)")
    parser.add_argument("--hours", type=float, default=8.0, help="how long it is good for (default: 8)")
    options = parser.parse_args(arguments)
    settings = read_settings()
    if settings.auth != "embedded":
        raise CommandError("INLAY_AUTH is not embedded: tokens come from your identity provider")

    from inlay_api.auth import mint

    account = getpass.getuser()
    print(mint(settings, options.id or f"local:{account}", options.name or account, options.role, options.hours))
    return 0
