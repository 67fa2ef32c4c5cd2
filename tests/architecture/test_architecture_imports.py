"""Who may import whom: the contracts of pyproject.toml hold, and each one breaks when a violation is planted."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = [
    "services/core",
    "services/api",
    "services/gateway",
    "services/worker",
    "services/cli",
    "integrations/hl7",
    "integrations/fhir",
    "integrations/dicom",
    "integrations/otel",
    "model",
]

# contract id -> (module to add, its source); one line that a hurried person might write.
PLANTED = {
    "layers": ("services/gateway/inlay_gateway/planted.py", "import inlay_api\n"),
    "core-layers": ("services/core/inlay_core/domain/planted.py", "import inlay_core.persistence\n"),
    "domain-pure": ("services/core/inlay_core/domain/planted.py", "import inlay_core.settings\n"),
    "integrations-see-domain-and-ports": (
        "integrations/hl7/inlay_hl7/planted.py",
        "import inlay_core.domain.errors\n",
    ),
    "model-alone": ("model/inlay_model/planted.py", "import inlay_core.domain.errors\n"),
    "api-imports": ("services/api/inlay_api/planted.py", "import inlay_hl7\n"),
    "worker-imports": ("services/worker/inlay_worker/planted.py", "import flask\n"),
    "gateway-imports": ("services/gateway/inlay_gateway/planted.py", "import flask\n"),
    "no-torch": ("services/core/inlay_core/planted.py", "def late() -> None:\n    import torch\n"),
    "sql-in-persistence": ("services/api/inlay_api/planted.py", "import sqlalchemy\n"),
    "otel-apart": ("services/core/inlay_core/planted.py", "def late() -> None:\n    import opentelemetry.trace\n"),
}


def lint(root: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on a tree, as `make lint` does."""
    search_path = [str(root / source) for source in SOURCE_ROOTS]
    flags = [flag for contract in contracts for flag in ("--contract", contract)]
    script = f"import sys; sys.path[:0] = {search_path!r}; from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", script, "--no-cache", "--no-logo", *flags],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source roots and the contracts, to be spoiled."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for source in SOURCE_ROOTS:
        shutil.copytree(
            ROOT / source,
            copy / source,
            ignore=lambda _folder, names: [n for n in names if "." in n and not n.endswith(".py")] + ["__pycache__"],
        )
    return copy


def contract_ids() -> list[str]:
    """The ids of all contracts in pyproject.toml."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["id"] for contract in settings["tool"]["importlinter"]["contracts"]]


def test_every_contract_has_a_planted_violation() -> None:
    """No contract is only written down: each has a violation below that must break it."""
    assert sorted(contract_ids()) == sorted(PLANTED)


def test_contracts_hold(tree: Path) -> None:
    """The code as it stands keeps every contract."""
    result = lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("contract", sorted(PLANTED))
def test_contract_breaks_on_a_planted_violation(tree: Path, contract: str) -> None:
    """A violation of a contract fails the check, and it is this contract that is reported broken."""
    path, source = PLANTED[contract]
    planted = tree / path
    planted.write_text(source)
    try:
        result = lint(tree, contract)
    finally:
        planted.unlink()
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout
    assert "planted" in result.stdout


def test_domain_uses_the_standard_library_only() -> None:
    """Every import in inlay_core.domain is of the standard library or of the domain itself."""
    foreign = [
        f"{path.name}: {name}"
        for path in (ROOT / "services/core/inlay_core/domain").rglob("*.py")
        for name in imported_names(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("inlay_core.domain")
    ]
    assert foreign == []


def imported_names(path: Path) -> list[str]:
    """Absolute module names that a file imports, at any depth."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


LIGHT_MODULES = [
    "inlay_api",
    "inlay_api.app",
    "inlay_gateway",
    "inlay_core.bootstrap",
    "inlay_cli.main",
    "inlay_cli.commands.serve",
    "inlay_cli.commands.listen",
    "inlay_cli.commands.relay",
    "inlay_cli.commands.db",
]


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_processes_load_no_torch(module: str) -> None:
    """Importing what `inlay serve`, `listen`, `relay` and `db` run loads neither torch nor transformers."""
    check = f"import sys, {module}; print([n for n in ('torch', 'transformers', 'peft') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_processes_load_no_opentelemetry() -> None:
    """Importing what every process runs loads nothing of OpenTelemetry: where traces are off it costs nothing."""
    modules = "inlay_api.app, inlay_gateway.listen, inlay_gateway.relay, inlay_worker.celery_app, inlay_otel"
    check = f"import sys, {modules}; print([n for n in sys.modules if n.startswith('opentelemetry')])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_site_packages_get_no_generic_names() -> None:
    """The wheel adds packages that start with inlay_ only: nothing called `model` or `services`."""
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    packages = [path for path in wheel["only-include"] if not path.startswith("model/checkpoints/")]
    assert {Path(path).name[:6] for path in packages} == {"inlay_"}
    moved = {path: rule for path in wheel["only-include"] for rule in wheel["sources"] if path.startswith(rule)}
    assert set(moved) == set(wheel["only-include"])
    assert set(wheel["dev-mode-dirs"]) == {str(Path(path).parent) for path in packages} | {"tests/support"}
