from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from inlay_core.application.ports import UnitOfWork
from inlay_core.domain.errors import Unavailable
from inlay_core.health import database_answers, told
from inlay_core.settings import Settings
from inlay_testkit.memory import Memory
from inlay_testkit.peers import free_port


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_life_readiness_and_metrics_are_told_apart() -> None:
    """A process that is not ready lives all the same; each question is asked anew, and other paths are none."""
    registry = CollectorRegistry()
    Counter("inlay_of_a_test", "A figure.", registry=registry).inc()
    settings, wrong = Settings(metrics_port=free_port()), ["the database is away"]
    with told(settings, registry, ready=lambda: wrong[0] if wrong else None):
        assert asked(settings.metrics_port, "/livez") == (200, "ok\n")
        assert asked(settings.metrics_port, "/readyz") == (503, "the database is away\n")
        wrong.clear()
        assert asked(settings.metrics_port, "/readyz?verbose") == (200, "ok\n")
        assert "inlay_of_a_test_total 1.0" in asked(settings.metrics_port, "/metrics")[1]
        assert asked(settings.metrics_port, "/")[0] == 404


def test_nothing_answers_before_and_after() -> None:
    """The port is free again when the process has ended its work; without a port nobody listens."""
    settings = Settings(metrics_port=free_port())
    for _ in range(2):
        with told(settings, CollectorRegistry()):
            assert asked(settings.metrics_port, "/readyz")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        asked(settings.metrics_port, "/livez")
    with told(Settings(), CollectorRegistry()):
        pass


def test_a_taken_port_is_named_with_its_setting() -> None:
    """Whoever starts two processes on one port reads which setting to change."""
    settings = Settings(metrics_port=free_port())
    with told(settings, CollectorRegistry()), pytest.raises(Unavailable) as refused:
        told(settings, CollectorRegistry())
    assert refused.value.place == "INLAY_METRICS_PORT"


def test_the_database_is_asked_and_its_absence_is_no_error() -> None:
    """Where the database is away, the check says so in words without data."""
    assert database_answers(Memory())() is None

    def away() -> UnitOfWork:
        raise Unavailable("database-away", "The database does not answer.")

    assert "database is away" in (database_answers(away)() or "")
