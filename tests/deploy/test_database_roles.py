"""The database of docs/howto/deploy.md, made on a real PostgreSQL as the page says: who may what in it."""

import re
from collections.abc import Iterator

import psycopg
import pytest
import yaml

from inlay_core import bootstrap
from inlay_core.settings import Settings
from inlay_testkit.chart import CHART, ROOT
from inlay_testkit.core import Ward

pytestmark = pytest.mark.peers


@pytest.fixture
def made_as_written(postgres_server_url: str) -> Iterator[str]:
    """Runs the page's SQL; yields the URL of the database, {role} left open."""
    page = (ROOT / "docs" / "howto" / "deploy.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sql\n(.*?)```", page, flags=re.DOTALL)
    before, after = script.split("\\connect inlay\n")
    server = postgres_server_url.replace("postgresql+psycopg://", "postgresql://")
    address = server.partition("@")[2].partition("/")[0]
    for url, statements in ((server, before), (server.rsplit("/", 1)[0] + "/inlay", after)):
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in filter(str.strip, statements.split(";\n")):
                connection.execute(statement.encode())
    yield f"postgresql://{{role}}@{address}/inlay"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE inlay WITH (FORCE)")
        connection.execute("DROP ROLE inlay_owner")
        connection.execute("DROP ROLE inlay_app")


def test_one_role_migrates_and_another_one_works(made_as_written: str) -> None:
    """The owner upgrades the schema; the working role takes an order, and can change no table."""
    bootstrap.upgrade_database(Settings(database_url=made_as_written.format(role="inlay_owner")))
    working = Settings(database_url=made_as_written.format(role="inlay_app"))
    services = bootstrap.bootstrap(working)
    try:
        assert Ward(services.uow()).order("1") is not None
    finally:
        services.close()
    with (
        psycopg.connect(working.database_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("ALTER TABLE orders ADD COLUMN planted text")
    with (
        psycopg.connect(working.database_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE planted (id int)")


def test_keda_counts_what_is_queued_and_runs(made_as_written: str) -> None:
    """The chart's query runs on the schema as it is, and sees the job of an order."""
    url = made_as_written.format(role="inlay_owner")
    bootstrap.upgrade_database(Settings(database_url=url))
    services = bootstrap.bootstrap(Settings(database_url=url))
    try:
        Ward(services.uow()).order("1")
    finally:
        services.close()
    template = (CHART / "templates" / "worker" / "scaledobject.yaml").read_text(encoding="utf-8")
    (query,) = re.findall(r"(query: >-\n(?: {10}.*\n)+)", template)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE jobs SET state = 'queued'")
        (count,) = connection.execute(yaml.safe_load(query)["query"].encode()).fetchone() or (None,)
        assert count == 1
        connection.execute("UPDATE jobs SET not_before = now() + interval '1 hour'")
        assert connection.execute(yaml.safe_load(query)["query"].encode()).fetchone() == (0,)
        connection.execute("UPDATE jobs SET state = 'running'")
        assert connection.execute(yaml.safe_load(query)["query"].encode()).fetchone() == (1,)
