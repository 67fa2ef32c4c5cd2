"""What the Dockerfiles promise, read off them; test_images_install.py follows their install steps."""

import re
from pathlib import Path

import pytest

from inlay_testkit.chart import CHART, ROOT

DOCKERFILES = sorted((ROOT / "services").glob("*/Dockerfile"))
LABELS = ("title", "description", "licenses", "version", "revision", "created")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and its words, continuation lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(name, re.sub(r"\s+", " ", words).strip()) for name, _, words in pairs]


def test_each_deployable_has_its_dockerfile() -> None:
    """API, gateway (listener and relay) and worker."""
    assert [path.parent.name for path in DOCKERFILES] == ["api", "gateway", "worker"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_runs_as_nobody_and_says_what_it_is(path: Path) -> None:
    """The last user is a number that is not root, which a cluster can check; labels and health check are there."""
    said = instructions(path)
    names = [name for name, _ in said]
    assert [words for name, words in said if name == "USER"][-1] == "10001:10001"
    labels = " ".join(words for name, words in said if name == "LABEL")
    assert [label for label in LABELS if f"org.opencontainers.image.{label}=" not in labels] == []
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD", "EXPOSE"} <= set(names)
    assert ("ENTRYPOINT", '["inlay"]') in said
    assert "ADD" not in names


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_can_be_built_again(path: Path) -> None:
    """Every stage stands on the one base that an argument names, and pip installs exact versions only."""
    said = instructions(path)
    bases = {words.split(" ")[0] for name, words in said if name == "FROM"}
    assert bases <= {"${PYTHON_IMAGE}", "cpu"}
    installs = [words for name, words in said if name == "RUN" and re.search(r"\bpip\b.* install ", words)]
    assert installs
    assert all("-c constraints.txt" in words for words in installs)


def test_only_the_worker_has_the_model() -> None:
    """API and gateway install the distribution without that extra, and leave the checkpoints out; all can trace."""
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        assert "traces]" in text
        assert ("[model,traces]" in text) == (path.parent.name == "worker")
        assert ("inlay_model/checkpoints" in text) == (path.parent.name != "worker")


def test_the_image_for_gpus_can_compile_where_it_runs() -> None:
    """Triton needs a C compiler, Python's headers, which the build tries, and folders that the chart makes writable."""
    text = (ROOT / "services" / "worker" / "Dockerfile").read_text(encoding="utf-8")
    stage = text[text.index("FROM cpu AS cuda") :]
    assert "gcc libc6-dev" in stage
    assert "#include <Python.h>" in stage
    assert {"HOME=/var/lib/inlay", "TRITON_CACHE_DIR=/tmp/triton"} <= set(stage.split())
    mounts = (CHART / "templates" / "_pod.tpl").read_text(encoding="utf-8")
    assert all(f"mountPath: {folder}\n" in mounts for folder in ("/var/lib/inlay", "/tmp"))


def test_what_torch_leaves_open_for_cuda_is_named() -> None:
    """Torch fixes most of its CUDA packages; those that it gives a range for would change with the day of a build."""
    said = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all(
        re.search(rf"^{name}==", said, re.MULTILINE)
        for name in ("cuda-bindings", "cuda-pathfinder", "nvidia-nvjitlink")
    )


def test_the_build_sees_the_sources_and_nothing_else() -> None:
    """.dockerignore leaves everything out and lets the sources back in: no data, no keys, no history."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!").rstrip("/") for line in rules if line.startswith("!")}
    assert allowed == {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "services", "integrations", "model"}
