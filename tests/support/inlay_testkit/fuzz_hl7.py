"""Coverage-guided fuzzing (atheris) of framing, reader, mapping: `python -m inlay_testkit.fuzz_hl7 [-runs=N ...]`.

The seeds are the messages of the corpus. A crash, a message without an answer, or a stream that is cut differently when
its bytes come one by one ends the process with the input that did it.
"""

from __future__ import annotations

from pathlib import Path

import atheris

with atheris.instrument_imports(include=["inlay_hl7"], enable_loader_override=False):
    from inlay_hl7.ack import acknowledge, answer_codes, read_acknowledgement
    from inlay_hl7.framing import FrameDecoder, encode
    from inlay_hl7.header import read_header
    from inlay_hl7.mapping.opening import interpreted, opened
    from inlay_hl7.mapping.refusals import Malformed, answer_of
    from inlay_hl7.senders import Sender

from inlay_testkit.core import MONDAY
from inlay_testkit.fuzzing import fuzz

CORPUS = Path(__file__).parents[2] / "data" / "hl7"
SENDER = Sender(charset="cp1252")


def take(data: bytes) -> None:
    """Whatever the bytes are, the message is read or refused with an answer that can be framed."""
    header = read_header(data)
    refusal: Malformed | None = None
    try:
        interpreted(*opened(data, header, SENDER), SENDER)
    except Malformed as error:
        refusal = error
    outcome, issues = answer_of(refusal)
    for code in answer_codes(header, outcome):
        answer = acknowledge(header, code, now=MONDAY, control_id="X", issues=issues)
        encode(answer)
        if read_acknowledgement(answer) is None:
            raise AssertionError("an answer that is none")
    whole, single = FrameDecoder(512, 64), FrameDecoder(512, 64)
    events = [*whole.feed(data), *whole.end()]
    if [*(event for byte in data for event in single.feed(bytes([byte]))), *single.end()] != events:
        raise AssertionError("the frames depend on how the stream was cut")


def main() -> None:
    """Fuzz."""
    fuzz(take, {path.stem: path.read_bytes().replace(b"\n", b"\r") for path in CORPUS.glob("*.hl7")})


if __name__ == "__main__":
    main()
