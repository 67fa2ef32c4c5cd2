"""Language models as judges: what makes their verdicts robust, shown with judges of known failings."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from inlay_model.evaluation.endpoints import Chat, Endpoint
from inlay_model.evaluation.judge import (
    Judged,
    Task,
    Unreadable,
    agreement,
    controls,
    facts_of,
    judge,
    judge_all,
    read_verdicts,
)
from inlay_model.evaluation.overlap import tokens_of
from inlay_testkit.chat_server import ChatServer, chat_server

# How a judge of the tests makes up its mind: from a fact, the answer, and whether the answer was shown first.
Mind = Callable[[str, str, bool], bool]


def shown(body: dict[str, Any]) -> tuple[list[str], str, bool]:
    """Facts, answer, and whether the answer came first, as they stand in a request."""
    text = body["messages"][1]["content"]
    facts = re.findall(r"^\d+\. (.*)$", text, re.MULTILINE)
    answer = text.split("-----")[1].strip()
    return facts, answer, text.index("-----") < text.index("Reference facts:")


def fair(fact: str, answer: str, _: bool) -> bool:
    """Right where every word of the fact is in the answer."""
    return set(tokens_of(fact)) <= set(tokens_of(answer))


def likes_length(_fact: str, answer: str, _: bool) -> bool:
    """Convinced by anything long."""
    return len(answer.split()) > 8


def likes_what_comes_first(fact: str, answer: str, answer_first: bool) -> bool:
    """Agrees with whatever answer it reads before the facts."""
    return answer_first or fair(fact, answer, answer_first)


@pytest.fixture
def ask() -> Iterator[Callable[[Mind], tuple[Chat, ChatServer]]]:
    """Makes chats with judges of a given mind; their servers run until the test ends."""
    with ExitStack() as running:

        def make(mind: Mind, name: str = "judge") -> tuple[Chat, ChatServer]:
            def answer(body: dict[str, Any]) -> str:
                facts, text, first = shown(body)
                return "Sure:\n```json\n" + json.dumps({"facts": [mind(fact, text, first) for fact in facts]}) + "\n```"

            server = running.enter_context(chat_server(answer))
            return Chat(Endpoint(name, server.url, "m")), server

        yield make


SEEN = Task("What is seen?", "right effusion and pacemaker", "A pacemaker, and an effusion on the right.")


@pytest.mark.parametrize(
    ("reference", "facts"),
    [
        ("Yes", ["Yes"]),
        ("Lung, Spinal Cord", ["Lung", "Spinal Cord"]),
        ("right effusion and pacemaker; scar", ["right effusion", "pacemaker", "scar"]),
        ("1,000 ml", ["1,000 ml"]),
        ("There is an effusion. The heart is large.", ["There is an effusion.", "The heart is large."]),
        (
            "There is a small effusion on the left, with atelectasis, and the heart is enlarged.",
            ["There is a small effusion on the left, with atelectasis, and the heart is enlarged."],
        ),
        ("", [""]),
    ],
)
def test_a_reference_is_cut_into_facts(reference: str, facts: list[str]) -> None:
    """Short answers are lists, longer ones sentences; a number stays whole."""
    assert facts_of(reference) == facts


def test_an_answer_is_right_if_every_fact_is_stated_in_both_orders(ask: Any) -> None:
    """Facts are asked twice, the second time in reverse and after the answer, and nothing tells who answered."""
    chat, server = ask(fair)
    assert judge(chat, SEEN) == Judged(right=True, facts=(True, True), steady=True)
    orders = [shown(body) for body in server.bodies]
    assert [first for *_, first in orders] == [False, True]
    assert orders[0][0] == orders[1][0][::-1] == ["right effusion", "pacemaker"]
    partly = judge(chat, Task(SEEN.question, SEEN.reference, "A pacemaker."))
    assert (partly.right, partly.facts) == (False, (False, True))


def test_length_gains_nothing(ask: Any) -> None:
    """The same facts in a few words or among many others are judged alike."""
    chat, _ = ask(fair)
    long = "There is a pacemaker. " + "The bones are intact. " * 30 + "There is also an effusion on the right."
    assert judge(chat, Task(SEEN.question, SEEN.reference, long)).right
    padded = "The bones are intact. " * 40
    assert not judge(chat, Task(SEEN.question, SEEN.reference, padded)).right


def test_a_judge_swayed_by_order_convinces_nobody(ask: Any) -> None:
    """A fact that is found in one order alone does not count, and the judge's unsteadiness is reported."""
    chat, _ = ask(likes_what_comes_first)
    wrong = Task("Is there a nodule?", "yes", "no")
    verdict = judge(chat, wrong)
    assert (verdict.right, verdict.steady) == (False, False)
    found = agreement([judge_all([chat], [wrong, SEEN])[0]], ["swayed"])
    assert found["swayed"]["same_in_both_orders"] == 0.5


def test_controls_show_a_judge_that_length_convinces(ask: Any) -> None:
    """Answers of other questions, of the same length, are accepted by that judge and by no fair one."""
    tasks = [
        Task(f"Question {n}?", f"finding{n}", f"One can see finding{n} here, as far as the image can show it.")
        for n in range(6)
    ]
    false = controls(tasks, 4)
    assert len(false) == 4
    for task, control in zip(tasks, false, strict=False):
        assert (control.question, control.reference) == (task.question, task.reference)
        assert control.answer != task.answer
        assert len(tokens_of(control.answer)) == len(tokens_of(task.answer))
    judges = [ask(fair)[0], ask(likes_length)[0]]
    fair_ones, swayed = judge_all(judges, false)
    assert not any(verdict.right for verdict in fair_ones)
    assert all(verdict.right for verdict in swayed)


def test_no_control_is_right_by_chance() -> None:
    """An answer that holds the words of the reference is no control for it."""
    tasks = [Task("a", "yes", "yes"), Task("b", "no", "yes, surely"), Task("c", "no", "no")]
    assert [(control.question, control.answer) for control in controls(tasks, 9)] == [
        ("a", "no"),
        ("b", "yes"),
        ("c", "yes"),
    ]


def test_two_judges_agree_or_not(ask: Any) -> None:
    """Their kappa is that of their verdicts; each judge's own share is reported beside it."""
    tasks = [SEEN, Task("What?", "effusion", "A rather long answer that says nothing of any use whatever at all.")]
    names = ["fair", "length"]
    verdicts = judge_all([ask(fair, "fair")[0], ask(likes_length, "length")[0]], tasks)
    found = agreement(verdicts, names)
    assert (found["fair"]["right"], found["length"]["right"]) == (0.5, 0.5)
    assert found["agreement"] == {"share": 0.0, "kappa": -1.0}
    assert agreement([verdicts[0], verdicts[0]], names)["agreement"] == {"share": 1.0, "kappa": 1.0}


def test_a_reply_of_another_form_is_asked_for_once_more() -> None:
    """The judge is told what was wrong; if that does not help, the verdict is wrong and counted as unreadable."""
    replies = ["Well, I think so.", '{"facts": [true]}', '{"facts": [true]}', "no", "no", "no", "no"]
    task = Task("Is there a nodule?", "yes", "yes")
    with chat_server(lambda _: replies.pop(0)) as server:
        chat = Chat(Endpoint("a", server.url, "m"))
        assert judge(chat, task).right
        assert len(server.bodies[1]["messages"]) == 4
        verdict = judge(chat, task)
    assert (verdict.right, verdict.readable) == (False, False)
    assert agreement([[verdict]], ["a"])["a"]["unreadable"] == 1


def test_an_empty_answer_needs_no_judge() -> None:
    """Nothing was said, so nothing is stated, and nobody is asked."""
    unreachable = Chat(Endpoint("a", "http://127.0.0.1:9/v1", "m"))
    assert judge(unreachable, Task("What?", "effusion; scar", "  ")).facts == (False, False)


def test_verdicts_are_read_from_json_with_anything_around_it() -> None:
    """Prose and fences do no harm; a wrong count, or anything but booleans, is unreadable."""
    assert read_verdicts('{"thoughts": "x"} then {"facts": [true, false]}.', 2) == (True, False)
    for reply in ('{"facts": [true]}', '{"facts": [1, 0]}', '{"facts": "yes"}', "true, false", '{"facts": [true,'):
        with pytest.raises(Unreadable):
            read_verdicts(reply, 2)
