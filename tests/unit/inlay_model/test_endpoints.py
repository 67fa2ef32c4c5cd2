"""OpenAI-compatible endpoints, against a server on this machine."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inlay_model.evaluation.endpoints import Chat, Endpoint, EndpointProblem, Kept, read_endpoints
from inlay_testkit.chat_server import Answer, chat_server

ASKED = [{"role": "user", "content": "What?"}]
SECRET = "sk-planted-secret"


def waits() -> tuple[list[float], Callable[[float], None]]:
    """A sleep that does not."""
    slept: list[float] = []
    return slept, slept.append


def test_a_question_is_sent_in_the_common_form_with_its_key() -> None:
    """Model, messages and temperature zero go to /chat/completions; further fields of the file go along."""
    with chat_server(lambda _: "An answer.") as server:
        endpoint = Endpoint("a", server.url, "model-1", key=SECRET, body={"seed": 7})
        assert Chat(endpoint).ask(ASKED) == "An answer."
    assert server.keys == [f"Bearer {SECRET}"]
    assert server.bodies == [
        {"model": "model-1", "messages": ASKED, "temperature": 0, "seed": 7, "path": "/v1/chat/completions"}
    ]


def test_answers_are_kept_by_everything_that_was_asked(tmp_path: Path) -> None:
    """An equal question is answered from disk; another model, message or field is another question."""
    with chat_server(lambda body: f"about {body['messages'][0]['content']} by {body['model']}") as server:
        chat = Chat(Endpoint("a", server.url, "m"), Kept(tmp_path))
        assert chat.ask(ASKED) == chat.ask(ASKED) == "about What? by m"
        assert len(server.bodies) == 1
        Chat(Endpoint("renamed", server.url, "m"), Kept(tmp_path)).ask(ASKED)
        assert len(server.bodies) == 1
        others = [
            Endpoint("a", server.url, "n"),
            Endpoint("a", server.url, "m", body={"seed": 1}),
            Endpoint("a", server.url.replace("127.0.0.1", "localhost"), "m"),
        ]
        for number, other in enumerate(others, start=2):
            Chat(other, Kept(tmp_path)).ask(ASKED)
            assert len(server.bodies) == number
        # A damaged file is asked for again.
        for file in tmp_path.rglob("*.json"):
            file.write_text("{half")
        assert chat.ask(ASKED) == "about What? by m"
    files = list(tmp_path.rglob("*.json"))
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".json"]


def test_the_key_stands_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the cache, not in an error, not in a representation, not in a log."""
    caplog.set_level(logging.DEBUG)
    with chat_server(lambda _: "yes") as server:
        endpoint = Endpoint("a", server.url, "m", key=SECRET)
        Chat(endpoint, Kept(tmp_path)).ask(ASKED)
    with chat_server(lambda _: (401, {})) as server, pytest.raises(EndpointProblem) as problem:
        Chat(Endpoint("a", server.url, "m", key=SECRET)).ask(ASKED)
    assert "401" in str(problem.value)
    assert problem.value.__cause__ is None
    shown = [repr(endpoint), repr(problem.value), caplog.text, *(file.read_text() for file in tmp_path.rglob("*.json"))]
    assert not [text for text in shown if SECRET in text]


def test_passing_faults_are_tried_again_and_others_are_not() -> None:
    """A busy endpoint is waited for, longer each time; a refusal is final."""
    slept, sleep = waits()
    answers: list[Answer] = [(503, {}), (429, {}), "at last"]
    with chat_server(lambda _: answers.pop(0)) as server:
        assert Chat(Endpoint("a", server.url, "m"), sleep=sleep).ask(ASKED) == "at last"
    assert slept == [1.0, 2.0]
    with chat_server(lambda _: (400, {})) as server:
        with pytest.raises(EndpointProblem, match="400"):
            Chat(Endpoint("a", server.url, "m"), sleep=sleep).ask(ASKED)
        assert len(server.bodies) == 1
    slept.clear()
    with pytest.raises(EndpointProblem, match="no answer"):
        Chat(Endpoint("a", server.url, "m"), sleep=sleep).ask(ASKED)
    assert len(slept) == 3


def test_a_redirect_is_refused() -> None:
    """The key goes to the host that was named, and to no other."""
    with chat_server(lambda _: "stolen") as thief, chat_server(lambda _: (307, {"Location": thief.url})) as server:
        with pytest.raises(EndpointProblem, match="307"):
            Chat(Endpoint("a", server.url, "m", key=SECRET)).ask(ASKED)
        assert thief.keys == []


@pytest.mark.parametrize(
    "reply", ["RAW no json", 'RAW {"choices": []}', 'RAW {"choices": [{"message": {"content": 5}}]}']
)
def test_an_answer_of_another_form_is_a_named_error(reply: str) -> None:
    """What is no chat completion is said to be none."""

    def raw(_: Any) -> str:
        return reply

    with chat_server(raw) as server, pytest.raises(EndpointProblem, match="the answer"):
        Chat(Endpoint("a", server.url, "m")).ask(ASKED)


def test_plain_http_is_for_this_machine_or_by_permission() -> None:
    """A key in clear text over a network needs to be asked for."""
    Endpoint("here", "http://localhost:8000/v1", "m")
    Endpoint("allowed", "http://gpu.hospital.example/v1", "m", allow_http=True)
    Endpoint("safe", "https://api.example/v1", "m")
    for url in ("http://gpu.hospital.example/v1", "ftp://api.example/v1", "file:///etc/passwd", "api.example/v1"):
        with pytest.raises(EndpointProblem, match="https"):
            Endpoint("odd", url, "m", allow_http=url.startswith(("ftp", "file")))


def test_endpoints_are_read_with_keys_from_file_or_environment(tmp_path: Path) -> None:
    """Roles in order; a key is named, never written; missing keys and unknown fields are said by name."""
    (tmp_path / "key").write_text(f"{SECRET}\n")
    file = tmp_path / "endpoints.toml"
    file.write_text(
        '[[judge]]\nname = "one"\nurl = "https://a.example/v1/"\nmodel = "m"\nkey_env = "ONE_KEY"\n'
        "body = { seed = 1 }\n"
        '[[judge]]\nurl = "https://b.example/v1"\nmodel = "n"\nkey_file = "key"\n'
        '[[candidate]]\nname = "vision"\nurl = "http://localhost:1/v1"\nmodel = "v"\ntimeout_s = 5\n'
    )
    found = read_endpoints(file, {"ONE_KEY": "from-environment"})
    assert [(e.name, e.url, e.key) for e in found["judge"]] == [
        ("one", "https://a.example/v1", "from-environment"),
        ("n", "https://b.example/v1", SECRET),
    ]
    assert (found["judge"][0].body, found["candidate"][0].timeout_s) == ({"seed": 1}, 5.0)
    with pytest.raises(EndpointProblem, match="ONE_KEY is not set"):
        read_endpoints(file, {})
    for wrong, said in (
        ('[[judge]]\nurl = "https://a"\n', "model"),
        ('[[judge]]\nurl = "https://a"\nmodel = "m"\nkey = "sk"\n', "key"),
        ("[[critic]]\n", "critic"),
        ("no toml", "no readable TOML"),
        ('[judge]\nurl = "https://a"\nmodel = "m"\n', r"headed \[\[judge\]\]"),
        ('[[judge]]\nurl = "https://a"\nmodel = "m"\ntimeout_s = "soon"\n', "timeout_s has a value"),
        ('[[judge]]\nurl = "https://["\nmodel = "m"\n', "has no address in url"),
        ('[[judge]]\nurl = "https://a:port"\nmodel = "m"\n', "has no address in url"),
    ):
        file.write_text(wrong)
        with pytest.raises(EndpointProblem, match=said):
            read_endpoints(file, {})
    (tmp_path / "key").unlink()
    file.write_text('[[judge]]\nurl = "https://a"\nmodel = "m"\nkey_file = "key"\n')
    with pytest.raises(EndpointProblem, match="key file"):
        read_endpoints(file, {})


def test_the_cache_holds_answers_and_no_questions(tmp_path: Path) -> None:
    """What was asked may name a study; only its digest is kept, with the answer."""
    request = {"url": "u", "model": "m", "messages": [{"role": "user", "content": "Findings of a study"}]}
    Kept(tmp_path).put(request, "yes")
    (file,) = tmp_path.rglob("*.json")
    assert json.loads(file.read_text()) == {"model": "m", "answer": "yes"}
    assert Kept(tmp_path).get(request) == "yes"
