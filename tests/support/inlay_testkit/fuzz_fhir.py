"""Coverage-guided fuzzing (atheris) of FHIR JSON that clients send: `python -m inlay_testkit.fuzz_fhir [-runs=N ...]`.

The seeds are the resources of `tests/data/fhir`. An input is sent to each place that takes a resource in; one that is
not answered, or is answered as a fault of ours, ends the process.
"""

from __future__ import annotations

import json

import atheris

with atheris.instrument_imports(include=["inlay_fhir"], enable_loader_override=False):
    from inlay_testkit.incoming import KINDS, resource, sent

from inlay_testkit.fuzzing import fuzz


def take(data: bytes) -> None:
    """Whatever the body is, each answer is JSON and below 500."""
    for kind in KINDS:
        answer = sent(kind, data)
        if not 200 <= answer.status < 500:
            raise AssertionError(f"{kind} was answered {answer.status}")
        json.loads(answer.body)


def main() -> None:
    """Fuzz."""
    fuzz(take, {kind: resource(kind) for kind in KINDS})


if __name__ == "__main__":
    main()
