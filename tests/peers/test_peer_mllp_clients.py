import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay_core.bootstrap import Services, bootstrap, upgrade_database
from inlay_core.settings import Settings
from inlay_testkit.mllp import listening, order_message

NPM = Path(__file__).parents[1] / "support" / "npm-hl7"
SECONDS = 60

pytestmark = pytest.mark.peers


@pytest.fixture
def services(postgres_url: str, tmp_path: Path) -> Iterator[Services]:
    """Services on PostgreSQL."""
    settings = Settings(home=tmp_path, database_url=postgres_url)
    upgrade_database(settings)
    services = bootstrap(settings)
    yield services
    services.close()


def accessions(services: Services, *numbers: str) -> list[int]:
    """How many orders have each accession number."""
    with services.reader() as uow:
        return [len(uow.orders.by_accession(None, f"A{number}")) for number in numbers]


@pytest.mark.parametrize("loose", [False, True])
def test_python_hl7s_mllp_send_reads_a_true_answer(services: Services, tmp_path: Path, loose: bool) -> None:
    """The command of python-hl7 sends a file, with CRLF in its loose mode, prints AA, and the order is on disk."""
    file = tmp_path / "order.hl7"
    message = order_message("1")
    file.write_bytes(message.replace(b"\r", b"\r\n") if loose else b"\x0b" + message + b"\x1c\r")
    program = Path(sys.executable).parent / "mllp_send"
    with listening(services, threads=4) as port:
        command = [str(program), "--port", str(port), "--file", str(file), *(["--loose"] if loose else []), "127.0.0.1"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
    assert b"MSA|AA|C1" in done.stdout
    assert accessions(services, "1") == [1]


def test_an_npm_client_sends_several_orders_on_one_connection(services: Services) -> None:
    """@medplum/hl7 matches each answer to its message; a refused message is answered AE and the next one is taken."""
    node = shutil.which("node")
    assert node is not None, "node is not installed; `make test-peers` installs it or says what to install"
    assert (NPM / "node_modules").is_dir(), "npm packages are missing; `make test-peers` installs them"
    messages = [order_message("1"), order_message("2").replace(b"|NW|", b"|QQ|"), order_message("3")]
    with listening(services, threads=4) as port:
        sent = json.dumps([message.decode() for message in messages])
        command = [node, str(NPM / "send.mjs"), str(port)]
        done = subprocess.run(command, input=sent, capture_output=True, text=True, check=True, timeout=SECONDS)
    codes = [answer.split("\r")[1].split("|")[:3] for answer in json.loads(done.stdout)]
    assert codes == [["MSA", "AA", "C1"], ["MSA", "AE", "C2"], ["MSA", "AA", "C3"]]
    assert accessions(services, "1", "2", "3") == [1, 0, 1]
