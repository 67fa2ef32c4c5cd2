"""Asks of several threads that are done as one: nobody waits for company, and nobody pays for another's failure."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from inlay_core.domain.errors import Unavailable
from inlay_core.together import Together

SECONDS = 20


class Desk:
    """Doubles numbers. The first group is held until `others` more asks wait; refuses 13, and groups that hold 13."""

    def __init__(self, others: int = 0) -> None:
        self.groups: list[list[int]] = []
        self.together: Together[int, int] = Together(self.do)
        self._others = others

    def do(self, asked: Sequence[int]) -> list[int | Exception]:
        """The doubles."""
        self.groups.append(list(asked))
        if len(self.groups) == 1 and self._others:
            waited = threading.Event()
            while len(self.together._queue) < self._others:
                waited.wait(0.001)
        if 13 in asked:
            raise ValueError("13")
        if 0 in asked:
            raise Unavailable("database-unavailable", "It is away.")
        return [ArithmeticError("odd") if each % 2 else each * 2 for each in asked]


def asked_beside(desk: Desk, *numbers: int) -> list[object]:
    """What each number got that was asked for while the first ask (of 2) was answered."""

    def ask(number: int) -> object:
        try:
            return desk.together.ask(number)
        except Exception as error:  # noqa: BLE001 (what was raised is what is looked at)
            return error

    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        first = pool.submit(ask, 2)
        answers = [pool.submit(ask, number) for number in numbers]
        assert first.result(SECONDS) == 4
        return [answer.result(SECONDS) for answer in answers]


def test_a_lone_ask_waits_for_nobody() -> None:
    """One after the other, each is a group of its own."""
    desk = Desk()
    assert [desk.together.ask(2), desk.together.ask(4)] == [4, 8]
    assert desk.groups == [[2], [4]]


def test_what_waits_meanwhile_is_the_next_group() -> None:
    """All that came while the first was answered are done at once, and each gets its own answer."""
    desk = Desk(others=5)
    assert asked_beside(desk, 4, 6, 8, 10, 12) == [8, 12, 16, 20, 24]
    assert [sorted(group) for group in desk.groups[1:]] == [[4, 6, 8, 10, 12]]


def test_an_exception_in_the_place_of_an_answer_is_raised_where_it_was_asked() -> None:
    """The others of the group have their answers."""
    answers = asked_beside(Desk(others=3), 4, 7, 8)
    assert [answers[0], answers[2]] == [8, 16]
    assert isinstance(answers[1], ArithmeticError)


def test_a_group_that_fails_is_asked_one_by_one() -> None:
    """The one that cannot be answered is told so, the others are answered."""
    desk = Desk(others=3)
    answers = asked_beside(desk, 4, 13, 8)
    assert [answers[0], answers[2]] == [8, 16]
    assert isinstance(answers[1], ValueError)
    assert sorted(len(group) for group in desk.groups) == [1, 1, 1, 1, 3]


def test_a_database_that_is_away_is_asked_once() -> None:
    """Unavailable is the answer to the whole group: nobody fares better alone."""
    desk = Desk(others=3)
    answers = asked_beside(desk, 4, 0, 8)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert [len(group) for group in desk.groups] == [1, 3]


def test_whoever_comes_after_a_failure_is_answered() -> None:
    """A failed ask leaves nothing behind that others would wait for."""
    desk = Desk()
    with pytest.raises(ValueError, match="13"):
        desk.together.ask(13)
    assert desk.together.ask(2) == 4
