"""Impression written from locked Findings, with the image and without it: whether a model concludes from text alone.

The suite `phantom` asks checkpoints that were trained to do without; `python -m inlay_model.evaluation.text_alone`
asks any.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inlay_model.backend import Backend
from inlay_model.engine import Engine
from inlay_model.evaluation.known_findings import states_the_same
from inlay_model.evaluation.overlap import token_f1
from inlay_model.evaluation.own_command import measured
from inlay_model.phantom.grammar import PhantomReport, reference_report
from inlay_model.phantom.render import Phantom, phantom
from inlay_model.request import Gap, GenerationSettings, Lock, Section


@dataclass(frozen=True, slots=True)
class Concluded:
    """An Impression beside that of the reference: it states the same (`right`), in the same words (`exact`), F1."""

    right: bool
    exact: bool
    f1: float


def concluded(
    engine: Backend, shown: Phantom, report: PhantomReport, settings: GenerationSettings, *, image: bool
) -> Concluded:
    """Have Impression written from the report's Findings, with the phantom's image or without it."""
    body, end = (report.text(name) for name in ("findings", "impression"))
    asked = (Section("findings", (Lock(body),)), Section("impression", (Gap(),)))
    written = engine.infill([shown.image] if image else None, asked, settings=settings).sections[1].text
    return Concluded(states_the_same(written, end), written.strip() == end, token_f1(end, written))


def both_ways(engine: Backend, seed: int, steps: int = 16) -> tuple[Concluded, Concluded]:
    """One phantom's Impression with the image and without; the report is that of the suite `phantom`."""
    shown = phantom(seed)
    report = reference_report(seed, shown.findings)
    settings = GenerationSettings(steps=steps, seed=seed)
    seen, alone = (concluded(engine, shown, report, settings, image=image) for image in (True, False))
    return seen, alone


def table(found: Iterable[tuple[Concluded, Concluded]]) -> str:
    """The figures with the image and without it, as a Markdown table."""
    lines = ["| Impression from locked Findings | n | right | word for word | token-F1 |", "|---|---|---|---|---|"]
    for title, all_of in zip(("with the image", "without it"), zip(*found, strict=True), strict=True):
        means = [sum(getattr(one, name) for one in all_of) / len(all_of) for name in ("right", "exact", "f1")]
        lines.append(f"| {title} | {len(all_of)} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m inlay_model.evaluation.text_alone`: measure and print the table."""

    def measure(engine: Engine, seed: int) -> dict[str, Any]:
        seen, alone = both_ways(engine, seed)
        return {"seen": asdict(seen), "alone": asdict(alone)}

    found = measured("text_alone", __doc__, measure, argv)
    print(table((Concluded(**one["seen"]), Concluded(**one["alone"])) for one in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
