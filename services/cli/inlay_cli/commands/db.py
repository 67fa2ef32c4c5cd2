"""`inlay db`: the schema of the database, whose migrations are part of the installation, and the key of messages."""

from collections.abc import Sequence

from inlay_cli.environment import administrator, opened, read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay db upgrade                                                     to the newest schema; harmless when it is there
INLAY_DATABASE_URL=postgresql+psycopg://inlay@db/inlay inlay db upgrade
inlay db current                                                     the revision that the database has
INLAY_MESSAGE_KEYS=keys.toml inlay db reencrypt                      stored messages under the current key; resumable
"""


def main(arguments: Sequence[str]) -> int:
    """Upgrade, print the revision, or encrypt anew; returns 0."""
    parser = command_parser(
        "db", "Upgrades the database schema, prints its revision, or encrypts stored messages anew.", EXAMPLES
    )
    parser.add_argument("action", choices=("upgrade", "current", "reencrypt"))
    options = parser.parse_args(arguments)
    settings = read_settings()

    if options.action == "reencrypt":
        return _reencrypt()

    from inlay_core import bootstrap

    if options.action == "upgrade":
        bootstrap.upgrade_database(settings)
    print(bootstrap.database_revision(settings) or "empty")
    return 0


def _reencrypt() -> int:
    from inlay_core.application.reencrypting import reencrypt_messages

    with opened(read_settings()) as services:
        count = reencrypt_messages(services.uow(), services.clock, services.new_id, administrator())
    print(f"{count} messages encrypted anew")
    return 0
