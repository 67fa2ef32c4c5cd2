import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
WEB = ROOT / "services/api/web"
STATIC = ROOT / "services/api/inlay_api/static"
BUILT = ("reading.js", "theme.js", "viewer.js", "worklist.js", "THIRD-PARTY.txt")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh checkout builds: the sources and the lock file in a folder of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    web, out = folder / "api/web", folder / "out"
    shutil.copytree(WEB, web, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(STATIC.parent / "texts", folder / "api/inlay_api/texts")
    out.mkdir()
    npm = ["npm", "ci", "--prefix", str(web), "--no-audit", "--no-fund", "--silent"]
    subprocess.run(npm, check=True)
    subprocess.run(["node", str(web / "build.mjs"), str(out)], check=True)  # noqa: S607 (peers are found on PATH)
    return out


@pytest.mark.parametrize("name", BUILT)
def test_what_is_served_is_what_the_sources_give(name: str, built: Path) -> None:
    """Byte for byte: whoever reads the sources knows what runs in the browser."""
    assert (STATIC / name).read_bytes() == (built / name).read_bytes(), "run `make web` and commit what it builds"


def test_every_part_has_its_licence(built: Path) -> None:
    """The list names each package with a permissive licence and its text."""
    text = (built / "THIRD-PARTY.txt").read_text()
    found = re.findall(r"^=+\n(\S+) \S+ \((.*)\)\n\n(.+)$", text, re.MULTILINE)
    assert {"prosemirror-view", "openseadragon"} <= {name for name, _, _ in found}
    assert {licence for _, licence, _ in found} <= {"MIT", "BSD-3-Clause"}


def test_the_first_load_is_small() -> None:
    """Scripts and style of the reading page, without the viewer, are below 400 KB compressed."""
    import gzip

    files = ("reading.js", "theme.js", "session.js", "inlay.css", "pages.css", "inlay.svg")
    assert sum(len(gzip.compress((STATIC / name).read_bytes())) for name in files) < 400_000
