"""The table of docs/explain/capacity.md: `python -m inlay_testkit.capacity_table`. Seeded; the same everywhere.

With `--draft S --infill S` the row of your own GPU, `--studies N ...` your own numbers of studies a day.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from inlay_testkit.capacity import DAY_SECONDS, STAT, Study, gpus_needed, hospital_day, percentile, simulate

SEED = 20261128
# Seconds of a draft and of an infill: a fast and a slow GPU, or precision, or number of steps.
SERVICES = ((0.5, 0.3), (2.0, 1.0), (10.0, 5.0))
# A small hospital, a large one, a region of ten large ones, a country of a hundred large or a thousand small ones.
STUDIES = (200, 2_000, 20_000, 200_000)
PROMISE_SECONDS = 5.0
# Of one GPU, in any currency: an assumption, to be replaced by what is paid.
PRICE_PER_HOUR = 3.0
_HEAD = (
    *("draft, s", "infill, s", "studies a day", "GPUs", "load", "wait p50, s", "p95", "p99", "STAT p99"),
    *("GPU hours per 1,000 studies", "cost of a study"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=float, help="seconds of a draft, as `inlay model bench` measures them")
    parser.add_argument("--infill", type=float, help="seconds of an infill")
    parser.add_argument("--studies", type=int, nargs="+", default=STUDIES, help="a day")
    parser.add_argument("--price", type=float, default=PRICE_PER_HOUR, help=f"of a GPU hour ({PRICE_PER_HOUR:g})")
    given = parser.parse_args(arguments)
    if (given.draft is None) != (given.infill is None):
        parser.error("--draft and --infill go together")
    print(f"| {' | '.join(_HEAD)} |\n{'|---' * len(_HEAD)}|")
    for draft, infill in SERVICES if given.draft is None else ((given.draft, given.infill),):
        for studies in given.studies:
            day = hospital_day(SEED, studies, draft_seconds=draft, infills_per_study=1.0, infill_seconds=infill)
            print(row(day, (draft, infill, studies), given.price))


def row(day: list[Study], named: tuple[float, float, int], price: float = PRICE_PER_HOUR) -> str:
    """One day on the fewest GPUs that keep the promise."""
    gpus = gpus_needed(day, within_seconds=PROMISE_SECONDS)
    waits = simulate(day, gpus)
    load = sum(work.service for work in day) / (gpus * DAY_SECONDS)
    draft, infill, studies = named
    every = waits.all()
    all_of_them = [f"{percentile(every, share):.2f}" for share in (0.5, 0.95, 0.99)]
    stat = f"{percentile(waits.by_priority.get(STAT, []), 0.99):.2f}"
    hours = gpus * 24 / studies
    cells = (f"{draft:g}", f"{infill:g}", f"{studies:,}", str(gpus), f"{load:.1%}", *all_of_them, stat)
    return f"| {' | '.join((*cells, f'{hours * 1000:.1f}', f'{hours * price:.4f}'))} |"


if __name__ == "__main__":
    main()
