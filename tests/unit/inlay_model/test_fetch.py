"""Fetching from a hub: pinned, whole, resumable, and noticed when it changes. Nothing here leaves the machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay_model import CheckpointProblem, UnpinnedRevision
from inlay_model.__main__ import main
from inlay_model.errors import FetchProblem
from inlay_model.fetch import fetch
from inlay_model.loading import load
from inlay_model.provenance import FETCHED, digest_of_folder
from inlay_testkit.hub import COMMIT, Hub, hub

FILES = {
    "config.json": b'{"model_type": "diffusion_gemma"}',
    "model.safetensors": bytes(range(256)) * 40,
    "pytorch_model.bin": b"pickle" * 300,
    "modeling.py": b"import os",
    ".gitattributes": b"* text",
    "diffusion-slake/adapter_config.json": b"{}",
    "diffusion-slake/adapter_model.safetensors": b"weights" * 500,
    "ar-slake/adapter_config.json": b"{}",
}
WANTED = {"config.json", "model.safetensors", *(name for name in FILES if "/" in name)}


@pytest.fixture(autouse=True)
def _no_progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture
def place() -> Iterator[Hub]:
    """A hub with a checkpoint and two adapters in folders."""
    with hub(FILES) as running:
        yield running


def test_everything_usable_comes_with_digests(place: Hub, tmp_path: Path) -> None:
    """All files but those that may hold code; each folder says where it is from and what its digest is."""
    digests = fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    visible = {name for name in found if not any(part.startswith(".") for part in Path(name).parts)}
    assert visible == WANTED
    assert all((tmp_path / name).read_bytes() == FILES[name] for name in WANTED)
    assert set(digests) == {".", "diffusion-slake", "ar-slake"}
    record = json.loads((tmp_path / FETCHED).read_text())
    assert (record["repository"], record["revision"]) == ("owner/name", COMMIT)
    assert record["digest"] == digests["."] == digest_of_folder(tmp_path)
    assert record["files"]["model.safetensors"]["bytes"] == len(FILES["model.safetensors"])


def test_a_part_of_a_repository_can_be_named(place: Hub, tmp_path: Path) -> None:
    """One adapter of a repository that holds several."""
    digests = fetch("owner/name", COMMIT, tmp_path, include=["diffusion-slake/*"], endpoint=place.endpoint)
    assert set(digests) == {"diffusion-slake"}
    assert {name for name, _ in place.sent} == {name for name in FILES if name.startswith("diffusion-slake/")}


def test_a_transfer_that_breaks_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the hub is back, only what is missing is asked for, and the file is whole."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr("time.sleep", lambda _: None)  # It tries five times.
    with hub(FILES, break_after=4096) as place:
        with pytest.raises(FetchProblem, match="Run it again"):
            fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
        place.down = False
        fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    asked = [wanted for name, wanted in place.sent if name == "model.safetensors"]
    assert asked == [None, "bytes=4096-"]
    assert (tmp_path / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_what_is_there_is_not_sent_again(place: Hub, tmp_path: Path) -> None:
    """A second run only checks."""
    fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    place.sent.clear()
    fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    assert place.sent == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused(place: Hub, tmp_path: Path, name: str) -> None:
    """By SHA-256 for large files, by git's name of the contents for small ones; the next run asks for it anew."""
    place.spoilt[name] = FILES[name][:-1] + b"X"
    with pytest.raises(FetchProblem, match=name):
        fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    assert not (tmp_path / name).exists()
    assert not (tmp_path / FETCHED).exists()
    place.spoilt.clear()
    fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    assert (tmp_path / name).read_bytes() == FILES[name]


def test_only_a_commit_hash_is_fetched(place: Hub, tmp_path: Path) -> None:
    """A branch or a short hash is refused before anything is asked."""
    for revision in ("main", COMMIT[:12]):
        with pytest.raises(UnpinnedRevision):
            fetch("owner/name", revision, tmp_path, endpoint=place.endpoint)
    assert place.sent == []


def test_what_cannot_be_fetched_is_a_named_error(place: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown repository or commit, patterns that fit nothing, a name that is none, a hub that does not answer."""
    for hub_id, revision in (("owner/other", COMMIT), ("owner/name", "f" * 40)):
        with pytest.raises(FetchProblem, match="refused"):
            fetch(hub_id, revision, tmp_path, endpoint=place.endpoint)
    with pytest.raises(FetchProblem, match="no file that fits"):
        fetch("owner/name", COMMIT, tmp_path, include=["nothing/*"], endpoint=place.endpoint)
    with pytest.raises(FetchProblem, match="no hub id"):
        fetch("a/b/c", COMMIT, tmp_path, endpoint=place.endpoint)
    monkeypatch.setattr("time.sleep", lambda _: None)  # It tries five times.
    with pytest.raises(FetchProblem, match="HF_ENDPOINT"):
        fetch("owner/name", COMMIT, tmp_path, endpoint="http://127.0.0.1:9")


def test_a_folder_that_changed_since_is_not_loaded(place: Hub, tmp_path: Path) -> None:
    """Loading compares the folder with what was fetched: wrong digest."""
    files = {"config.json": FILES["config.json"], "tokenizer.json": b"{}", "model.safetensors": b"x" * 2000}
    place.files = files
    fetch("owner/name", COMMIT, tmp_path, endpoint=place.endpoint)
    (tmp_path / "model.safetensors").write_bytes(b"y" * 2000)
    with pytest.raises(CheckpointProblem, match="wrong digest"):
        load(tmp_path, device="cpu")


def test_the_command_prints_folder_and_digest(place: Hub, tmp_path: Path) -> None:
    """One line per folder, for a run book; HF_ENDPOINT names the hub."""
    given = ["owner/name", "--revision", COMMIT, "--out", str(tmp_path), "--include", "ar-slake/*"]
    done = subprocess.run(
        [sys.executable, "-m", "inlay_model", "fetch", *given],
        env={**os.environ, "HF_ENDPOINT": place.endpoint},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [str(tmp_path / "ar-slake"), digest_of_folder(tmp_path / "ar-slake")]


def test_a_model_whose_hub_is_away_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pinned hub id that no hub gives: one line that says what to do, in the commands as in the engine."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)  # It tries five times.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FetchProblem, match=r"HF_ENDPOINT names another hub.*name a folder"):
        load("owner/name", COMMIT)
    assert main(["infill", "--section", "findings=[...]", "--model", "owner/name", "--revision", COMMIT]) == 2
    assert capsys.readouterr().err.endswith("[fetch-problem]\n")
