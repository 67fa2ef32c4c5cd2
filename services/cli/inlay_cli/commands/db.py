"""`inlay db`: the schema of the database. Migrations are part of the installation; nothing else is needed."""

from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay db upgrade                                                     to the newest schema; harmless when it is there
INLAY_DATABASE_URL=postgresql+psycopg://inlay@db/inlay inlay db upgrade
inlay db current                                                     the revision that the database has
"""


def main(arguments: Sequence[str]) -> int:
    """Upgrade or print the revision; returns 0."""
    parser = command_parser("db", "Upgrades the database schema, or prints its revision.", EXAMPLES)
    parser.add_argument("action", choices=("upgrade", "current"))
    options = parser.parse_args(arguments)
    settings = read_settings()

    from inlay_core import bootstrap

    if options.action == "upgrade":
        bootstrap.upgrade_database(settings)
    print(bootstrap.database_revision(settings) or "empty")
    return 0
