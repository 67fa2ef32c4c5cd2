"""Fuzzers that are guided by coverage, for a while each; `python -m inlay_testkit.fuzz_...` goes on for longer."""

import subprocess
import sys

import pytest

# A fuzzer that hangs is found by this; how long it takes depends on what else the machine does.
SECONDS = 300
# Inputs and the length of the longest; to read one of DICOM takes far longer than the others.
FUZZERS = [("hl7", 3000, 1500), ("fhir", 1000, 2000), ("dicom", 500, 6000)]

pytestmark = pytest.mark.peers


@pytest.mark.parametrize(("fuzzer", "runs", "longest"), FUZZERS)
def test_a_fuzzer_that_is_guided_by_coverage_finds_no_crash(fuzzer: str, runs: int, longest: int) -> None:
    """Inputs that grow from whole ones are each taken or refused, with an answer, and the process lives."""
    command = [sys.executable, "-m", f"inlay_testkit.fuzz_{fuzzer}", f"-runs={runs}", f"-max_len={longest}", "-seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[said.find("Uncaught Python exception") :][:4000]
    assert f"Done {runs} runs" in done.stderr
