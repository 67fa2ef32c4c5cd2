import threading
from concurrent.futures import ThreadPoolExecutor

from inlay_gateway.metrics import ListenerMetrics, Rounds, registry_of
from inlay_gateway.relay import Duty, work
from inlay_hl7.ack import Outcome


def test_messages_are_counted_by_acknowledgement() -> None:
    """Every outcome has its line from the start; an answer counts once, and its time is measured."""
    metrics = ListenerMetrics()

    def count(ack: str, outcome: str) -> float | None:
        return metrics.registry.get_sample_value("inlay_hl7_messages_total", {"ack": ack, "outcome": outcome})

    assert [count("AA", "accepted"), count("AE", "content-error"), count("AR", "unavailable")] == [0, 0, 0]
    metrics.answered(Outcome.CONTENT_ERROR, 0.02)
    assert [count("AA", "accepted"), count("AE", "content-error"), count("AR", "unavailable")] == [0, 1, 0]
    assert metrics.registry.get_sample_value("inlay_hl7_answer_seconds_bucket", {"le": "0.025"}) == 1


def test_open_connections_are_counted_when_somebody_asks() -> None:
    """The gauge is what the server says now."""
    metrics, open_now = ListenerMetrics(), [1, 2, 3]
    metrics.connections(lambda: len(open_now))
    assert metrics.registry.get_sample_value("inlay_mllp_connections") == 3
    open_now.clear()
    assert metrics.registry.get_sample_value("inlay_mllp_connections") == 0


def test_a_duty_that_hangs_is_seen_beside_one_that_goes_round() -> None:
    """The round of a duty that waits for its peer grows older; one that has ended, well or not, is at rest."""
    moment = [100.0]
    rounds, stopped = Rounds(lambda: moment[0]), threading.Event()
    hangs, rests, answer = threading.Event(), threading.Event(), threading.Event()

    def waits() -> int:
        hangs.set()
        answer.wait()
        return 0

    def fails() -> int:
        rests.set()
        raise OSError

    duties = [Duty("slow", 60, waits), Duty("quick", 60, fails)]
    registry = registry_of(rounds)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work, duties, stopped, 60, rounds)
        hangs.wait()
        rests.wait()
        moment[0] += 30
        assert registry.get_sample_value("inlay_duty_round_seconds", {"duty": "slow"}) == 30
        answer.set()
        stopped.set()
        running.result()
    assert registry.get_sample_value("inlay_duty_round_seconds", {"duty": "quick"}) == 0
    assert registry.get_sample_value("inlay_duty_round_seconds", {"duty": "slow"}) == 0
