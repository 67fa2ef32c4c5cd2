"""The install steps of the images without the model, followed in a folder: what they install starts there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from inlay_testkit.chart import ROOT

pytestmark = [pytest.mark.peers, pytest.mark.slow]

SOURCES = ("constraints.txt", "pyproject.toml", "README.md", "LICENSE", "services", "integrations", "model")
# Downloads of a slow index included.
SECONDS = 900


def build_steps(dockerfile: Path, folder: Path) -> str:
    """The RUN lines of the first stage as one script below `folder`, with a base environment for the image's Python."""
    stage = dockerfile.read_text(encoding="utf-8").split("\nFROM ")[1]
    steps = re.findall(r"^RUN (.*)$", stage, flags=re.MULTILINE)
    script = "\n".join(steps).replace("/opt/inlay", f"{folder}/inlay").replace("/wheels", f"{folder}/wheels")
    return f"set -eux\nexport PATH={folder}/base/bin:$PATH\n{script}\n"


def inlay(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of what was installed."""
    home = {"INLAY_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"}
    program = str(folder / "inlay" / "bin" / "inlay")
    return subprocess.run([program, *words], env=home, capture_output=True, text=True, check=False, timeout=SECONDS)


def test_what_the_dockerfile_installs_serves_and_has_no_torch(tmp_path: Path) -> None:
    """The schema can be upgraded and every process but the worker's imports; torch and checkpoints are absent."""
    for name in SOURCES:
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "base")], check=True, timeout=SECONDS)
    script = build_steps(ROOT / "services" / "api" / "Dockerfile", tmp_path)
    subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path / "src", check=True, timeout=SECONDS)

    site = next((tmp_path / "inlay" / "lib").glob("python3.*")) / "site-packages"
    assert (site / "inlay_api" / "templates").is_dir()
    assert [name for name in ("torch", "transformers", "pip") if (site / name).exists()] == []
    assert not (site / "inlay_model" / "checkpoints").exists()

    assert inlay(tmp_path, "db", "upgrade").returncode == 0
    modules = "inlay_api.app, inlay_api.server, inlay_gateway.listen, inlay_gateway.relay, inlay_cli.commands.check"
    python = str(tmp_path / "inlay" / "bin" / "python")
    subprocess.run([python, "-c", f"import {modules}"], check=True, timeout=SECONDS, cwd=tmp_path)
    refused = inlay(tmp_path, "work")
    assert (refused.returncode, "inlay[model]" in refused.stderr) == (1, True), refused.stderr


def test_the_gateways_image_installs_what_the_apis_does(tmp_path: Path) -> None:
    """Their install steps are the same, so that following one is following both."""
    dockerfiles = [ROOT / "services" / name / "Dockerfile" for name in ("api", "gateway")]
    first, second = (build_steps(dockerfile, tmp_path) for dockerfile in dockerfiles)
    assert first == second
