"""What the settings say of the model reaches the loader; nothing is loaded here."""

from pathlib import Path
from typing import Any

import pytest

from inlay_core.domain.errors import Unavailable
from inlay_core.settings import Settings
from inlay_model import loading
from inlay_model.errors import AdapterProblem, CheckpointProblem
from inlay_worker.wiring import load_model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the loader was last asked for; it has no checkpoint."""
    found: dict[str, Any] = {}

    def load(_folder: Path, **wanted: Any) -> None:
        found.update(wanted)
        raise CheckpointProblem("There is none here.")

    monkeypatch.setattr(loading, "load", load)
    return found


@pytest.mark.parametrize(("said", "wanted"), [("", None), ("auto", None), ("true", True), ("false", False)])
def test_the_device_decides_on_graphs_and_kernels_unless_the_setting_does(
    asked: dict[str, Any], said: str, wanted: bool | None
) -> None:
    """None is what the loader takes for: on a GPU. A worker that nobody configured is as fast as the command line."""
    with pytest.raises(Unavailable):
        load_model(Settings.from_env({"INLAY_ACCELERATE": said}))
    assert asked["accelerate"] is wanted


@pytest.mark.parametrize(
    ("adapter", "adapters", "place"),
    [
        (True, False, "INLAY_ADAPTER"),
        (False, True, "INLAY_ADAPTERS"),
        (True, True, "INLAY_ADAPTER or INLAY_ADAPTERS"),
    ],
)
def test_an_adapter_that_does_not_fit_names_the_setting_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, adapter: bool, adapters: bool, place: str
) -> None:
    """Where the file of rules names it, that is where to look; where both are given, the message has the folder."""

    def load(_folder: Path, **_: Any) -> None:
        raise AdapterProblem("The adapter /x was made for another base.")

    monkeypatch.setattr(loading, "load", load)
    rules = tmp_path / "adapters.toml"
    rules.write_text('[[adapter]]\nfolder = "/x"\n')
    with pytest.raises(Unavailable) as refused:
        load_model(Settings(adapter="/x" if adapter else "", adapters=str(rules) if adapters else ""))
    assert refused.value.place == place
