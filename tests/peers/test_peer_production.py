"""PostgreSQL and Redis as a hospital has them: restarts, backups, limits of time, TLS, users and sentinels."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import trustme
from sqlalchemy import Connection, Engine, select, text

from inlay_core.application.drafting import claim_next, wake_forgotten
from inlay_core.application.trail import make_checkpoint, seal_trail, verify_trail
from inlay_core.bootstrap import clock
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.job import JobKind
from inlay_core.domain.switch import Allowance
from inlay_core.messaging import QUEUE, CeleryWakeup, celery_app
from inlay_core.persistence import schema
from inlay_core.persistence.encryption import KeyRing
from inlay_core.persistence.engine import DatabaseLimits, open_database
from inlay_core.persistence.statements import Statements
from inlay_core.persistence.unit_of_work import SqlUnitOfWork
from inlay_core.progress import RedisProgress
from inlay_core.redis_servers import redis_client
from inlay_core.settings import Settings
from inlay_gateway.delivery import Books, deliver_wakeups
from inlay_testkit.core import RELAY, WORKER, StillClock, Ward, order_command
from inlay_testkit.peers import find_program, free_port, postgres_cluster, running
from inlay_testkit.retention_contract import NOTARY
from inlay_testkit.upgrade_contract import UpgradeContract
from inlay_testkit.worker import wait_until

pytestmark = pytest.mark.peers


@contextmanager
def opened(url: str, limits: DatabaseLimits | None = None) -> Iterator[Engine]:
    """A migrated database."""
    engine = open_database(url, limits or DatabaseLimits())
    try:
        schema.upgrade(engine)
        yield engine
    finally:
        engine.dispose()


class TestPostgresqlUpgrade(UpgradeContract):
    """The upgrade of the first schema with data."""

    @pytest.fixture
    def empty(self, postgres_url: str) -> Iterator[Engine]:
        """A database without a schema."""
        engine = open_database(postgres_url)
        yield engine
        engine.dispose()


def test_a_restart_of_postgresql_loses_nothing_that_was_answered() -> None:
    """While it is away use cases say Unavailable; afterwards the same processes go on with everything committed."""
    with postgres_cluster() as cluster:
        with cluster.running(), opened(cluster.url) as first:
            engine = first
            ward = Ward(SqlUnitOfWork(engine))
            ward.drafted("1")
            seal_trail(ward.uow)
            with engine.connect():
                pass
        with pytest.raises(Unavailable):
            ward.receive(order_command("2"))
        with cluster.running():
            ward.receive(order_command("2"))
            seal_trail(ward.uow)
            found = verify_trail(ward.uow)
            with ward.uow as uow:
                assert [uow.orders.by_placer("RIS", f"P{n}") is not None for n in (1, 2)] == [True, True]
            engine.dispose()
        assert (found.holds, found.unsealed) == (True, 0)


def test_a_migration_that_is_ended_for_a_deadlock_runs_again(postgres_url: str) -> None:
    """A process that works meanwhile holds a table that a migration wants, and wants one that the migration holds."""
    # The migration looks for a deadlock when it has waited for so long; by then the other one waits as well.
    engine = open_database(f"{postgres_url}?options=-c%20deadlock_timeout%3D5s", DatabaseLimits(lock_seconds=0))
    schema.upgrade(engine, "0006")
    held, wanted = "messages", "switches"
    with ThreadPoolExecutor(1) as pool, engine.connect() as working, engine.connect() as watching:
        # PostgreSQL ends whoever finds the deadlock: not this one.
        working.execute(text("SET LOCAL deadlock_timeout = '10min'"))
        working.execute(text(f"LOCK TABLE {held} IN ROW EXCLUSIVE MODE"))
        upgrading = pool.submit(schema.upgrade, engine)
        wait_until(lambda: _is_waited_for(watching, held))
        assert not upgrading.done()
        working.execute(text(f"LOCK TABLE {wanted} IN ROW EXCLUSIVE MODE"))
        working.commit()
        assert upgrading.result() == schema.newest()
    assert schema.current(engine) == schema.newest()
    engine.dispose()


def _is_waited_for(connection: Connection, table: str) -> bool:
    statement = text("SELECT count(*) FROM pg_locks WHERE relation = to_regclass(:name) AND NOT granted")
    found = connection.execute(statement, {"name": table}).scalar_one()
    connection.rollback()
    return bool(found)


def test_an_emptied_redis_loses_no_job(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    """FLUSHALL takes every wake-up and canvas; the sweeper announces again, and the job is drafted once."""
    settings = Settings(home=tmp_path, broker_url=redis_url, redis_url=redis_url)
    with opened(postgres_url) as engine, redis_client(redis_url) as server:
        ward = Ward(SqlUnitOfWork(engine), StillClock())
        report = ward.order("1")
        wakeup = CeleryWakeup(celery_app(settings))
        progress = RedisProgress(redis_url, clock)
        with ward.uow as uow:
            (job,) = uow.jobs.of_report(report.id)
        wakeup.wake([job.id])
        progress.publish(job.id, 1, 2, "text")
        server.flushall()
        assert next(progress.follow(job.id)) is None
        ward.clock.advance(60)
        assert wake_forgotten(*ward.trio, RELAY, older_than_seconds=30, site=ward.site, limit=10) == 1
        wakeup.wake([job.id])
        assert server.llen(QUEUE) == 1
        progress.publish(job.id, 1, 2, "again")
        assert (found := next(progress.follow(job.id))) is not None
        assert found.text == "again"
        assert claim_next(*ward.trio, WORKER) is not None
        assert claim_next(*ward.trio, WORKER) is None
        progress.close()


def test_a_worker_that_is_woken_finds_its_job(postgres_url: str) -> None:
    """From the moment at which the broker is told, nothing that the relay writes locks the job.

    A claim passes over what is locked: a worker that looked at that moment waited for the next wake-up, half a minute.
    """
    with opened(postgres_url, DatabaseLimits(lock_seconds=1)) as engine:
        ward = Ward(SqlUnitOfWork(engine), StillClock())
        ward.order("1")
        books = Books(lambda: SqlUnitOfWork(engine), ward.clock, ward.new_id, ward.site)

        class Worker:
            def wake(self, _: Sequence[str]) -> None:
                """It claims at once, and its transaction is open while the relay goes on."""
                self.uow = SqlUnitOfWork(engine)
                self.uow.__enter__()
                later = ward.clock() + timedelta(seconds=60)
                assert self.uow.jobs.claim(ward.clock(), later, Allowance(frozenset(JobKind))) is not None

            def waiting(self) -> int:
                return 0

        worker = Worker()
        try:
            assert [sent.ok for sent in deliver_wakeups(books, worker)] == [True]
        finally:
            worker.uow.__exit__(None, None, None)


def test_a_dump_is_restored_and_its_trail_verifies(postgres_server_url: str, postgres_url: str, tmp_path: Path) -> None:
    """docs/howto/backup.md: pg_dump while Inlay works, restore into an empty database, verify with the checkpoint.

    A dump that was changed on its way is named by the same check.
    """
    ring = KeyRing("a", {"a": b"k" * 32})
    dump = tmp_path / "inlay.dump"
    with opened(postgres_url) as engine:
        ward = Ward(SqlUnitOfWork(engine, ring=ring))
        ward.drafted("1")
        seal_trail(ward.uow)
        token = make_checkpoint(ward.uow, ward.clock, NOTARY)
        assert token is not None
        _client("pg_dump", "--format=custom", f"--file={dump}", _plain(postgres_url))
        ward.receive(order_command("2"))
        _recreate(postgres_server_url, postgres_url, engine)
        _client("pg_restore", "--exit-on-error", f"--dbname={_plain(postgres_url)}", str(dump))
    with opened(postgres_url) as engine:
        restored = SqlUnitOfWork(engine, ring=ring)
        found = verify_trail(restored, NOTARY, [token])
        assert (found.holds, found.checkpoints) == (True, 1)
        with restored as uow:
            assert uow.orders.by_placer("RIS", "P1") is not None
            assert uow.orders.by_placer("RIS", "P2") is None
            assert uow.messages.received()[0].envelope.raw.startswith(b"MSH|")
        # What is written next goes on in the sequence of the dump.
        Ward(restored, prefix="later").receive(order_command("3"))
        seal_trail(restored)
        assert verify_trail(restored, NOTARY, [token]).holds
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM audit_links WHERE position > 3"))
            connection.execute(text("DELETE FROM audit_checkpoints"))
        broken = verify_trail(restored, NOTARY, [token]).first_break
        assert broken is not None
        assert broken.reason == "end-missing"


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _client(program: str, *arguments: str) -> None:
    subprocess.run([str(find_program(program)), *arguments], check=True, capture_output=True, env=dict(os.environ))


def _recreate(server_url: str, url: str, engine: Engine) -> None:
    import psycopg
    from psycopg import sql

    engine.dispose()
    name = sql.Identifier(url.rpartition("/")[2])
    with psycopg.connect(_plain(server_url), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))


def test_a_statement_that_takes_too_long_is_ended(postgres_url: str) -> None:
    """The server ends it, and the use case says Unavailable; the connection is good for the next."""
    with opened(postgres_url, DatabaseLimits(statement_seconds=0.2)) as engine, engine.connect() as connection:
        with pytest.raises(Unavailable):
            Statements(connection).run(select(text("pg_sleep(20)")))
        connection.rollback()
        assert Statements(connection).run(select(text("1"))).scalar_one() == 1


def test_a_lock_is_waited_for_so_long_and_no_longer(postgres_url: str) -> None:
    """Somebody's open transaction holds a table: who needs it says Unavailable, and a migration gives up likewise."""
    limits = DatabaseLimits(lock_seconds=0.2)
    with opened(postgres_url, limits) as engine, engine.begin() as holder:
        holder.execute(text("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(Unavailable):
            Ward(SqlUnitOfWork(engine)).receive(order_command("1"))
        with engine.connect() as other:
            assert other.execute(text("SHOW lock_timeout")).scalar_one() == "200ms"


def test_a_pool_that_is_used_up_is_unavailable(postgres_url: str) -> None:
    """One connection too many is waited for, and then an error that may pass: no fault, and no queue without end."""
    with opened(postgres_url, DatabaseLimits(pool=2, wait_seconds=0.1)) as engine:
        taken = [engine.connect() for _ in range(4)]
        with pytest.raises(Unavailable), SqlUnitOfWork(engine):
            pass
        for connection in taken:
            connection.close()
        with SqlUnitOfWork(engine) as uow:
            assert uow.orders.by_placer("RIS", "none") is None


def test_options_of_the_url_stay(postgres_url: str) -> None:
    """A site's own session settings in the URL are not lost to ours."""
    with opened(f"{postgres_url}?options=-c%20work_mem%3D7MB") as engine, engine.connect() as connection:
        found = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in ("work_mem", "statement_timeout")]
    assert found == ["7MB", "30s"]


@contextmanager
def redis_with(folder: Path, port: int, *arguments: str, name: str = "redis") -> Iterator[None]:
    """A Redis with arguments of its own."""
    command = [str(find_program("redis-server")), *arguments, "--bind", "127.0.0.1", "--dir", str(folder)]

    def answers() -> bool:
        import socket

        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with running(command, folder / f"{name}.log", answers):
        yield


def _use(url: str, home: Path, master: str = "") -> None:
    """Canvas and wake-up by that URL."""
    progress = RedisProgress(url, clock, master=master)
    progress.publish("job", 1, 2, "text")
    found = next(progress.follow("job"))
    assert found is not None
    assert found.text == "text"
    progress.close()
    settings = Settings(home=home, broker_url=url, redis_master=master)
    CeleryWakeup(celery_app(settings)).wake(["job"])
    with redis_client(url, master) as server:
        assert server.llen(QUEUE) == 1


def test_redis_over_tls_with_a_user_of_its_own(tmp_path: Path) -> None:
    """rediss:// with ACL: canvases and wake-ups work as the user that may do no more; without it nothing does."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, pem = tmp_path / "ca.pem", tmp_path / "redis.pem"
    authority.cert_pem.write_to_path(str(ca))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    port = free_port()
    conf = tmp_path / "redis.conf"
    conf.write_text("user default off\nuser inlay on >s3cret ~* &* +@all -@admin -flushall -flushdb\nsave ''\n")
    tls = [str(conf), "--port", "0", "--tls-port", str(port), "--tls-cert-file", str(pem), "--tls-key-file", str(pem)]
    tls += ["--tls-ca-cert-file", str(ca), "--tls-auth-clients", "no"]
    with redis_with(tmp_path, port, *tls):
        address = f"127.0.0.1:{port}/0?ssl_ca_certs={ca}"
        _use(f"rediss://inlay:s3cret@{address}", tmp_path)
        with (
            redis_client(f"rediss://inlay:s3cret@{address}") as server,
            pytest.raises(redis.exceptions.NoPermissionError),
        ):
            server.flushall()
        with redis_client(f"rediss://{address}") as server, pytest.raises(redis.AuthenticationError):
            server.ping()


def test_redis_behind_sentinels(tmp_path: Path) -> None:
    """sentinel://: the master is asked for by name, canvases and wake-ups reach it."""
    port, sentinel_port = free_port(), free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"port {sentinel_port}\nsentinel monitor ward 127.0.0.1 {port} 1\n")
    with (
        redis_with(tmp_path, port, "--port", str(port), "--save", ""),
        redis_with(tmp_path, sentinel_port, str(conf), "--sentinel", name="sentinel"),
    ):
        _use(f"sentinel://127.0.0.1:{free_port()};sentinel://127.0.0.1:{sentinel_port}/0", tmp_path, "ward")


def test_a_purge_does_not_keep_intake_waiting(postgres_url: str) -> None:
    """Messages are taken while old ones go: the transactions of a purge lock nothing that intake needs."""
    from inlay_core.application.ports import Aged
    from inlay_core.application.retention import purge_rows
    from inlay_testkit.core import ADMIN

    with opened(postgres_url, DatabaseLimits(lock_seconds=5)) as engine:
        ward = Ward(SqlUnitOfWork(engine), StillClock())
        ward.receive(order_command("1"))
        holding, go_on = threading.Event(), threading.Event()

        def purge() -> None:
            with SqlUnitOfWork(engine) as uow:
                uow.retention.remove(
                    Aged.MESSAGES, [row.id for row in uow.retention.old(Aged.MESSAGES, clock(), None, 9)]
                )
                holding.set()
                go_on.wait(10)

        thread = threading.Thread(target=purge)
        thread.start()
        assert holding.wait(10)
        ward.receive(order_command("2"))
        go_on.set()
        thread.join()
        ward.clock.advance(100 * 86_400)
        assert purge_rows(*ward.trio, ADMIN, Aged.MESSAGES, days=1, dry_run=True).spared == 2
