"""The table of docs/explain/capacity.md: `python -m inlay_testkit.capacity_table`. Seeded; the same everywhere."""

from __future__ import annotations

from inlay_testkit.capacity import DAY_SECONDS, STAT, Study, gpus_needed, hospital_day, percentile, simulate

SEED = 20261128
# Seconds of a draft and of an infill: a fast and a slow GPU, or precision, or number of steps.
SERVICES = ((0.5, 0.3), (2.0, 1.0), (10.0, 5.0))
# A small hospital, a large one, a region of ten large ones.
STUDIES = (200, 2_000, 20_000)
PROMISE_SECONDS = 5.0


def main() -> None:
    """Print Markdown."""
    print("| draft, s | infill, s | studies a day | GPUs | load | wait p50, s | p95 | p99 | STAT p99 |")
    print("|---" * 9 + "|")
    for draft, infill in SERVICES:
        for studies in STUDIES:
            day = hospital_day(SEED, studies, draft_seconds=draft, infills_per_study=1.0, infill_seconds=infill)
            print(row(day, (draft, infill, studies)))


def row(day: list[Study], named: tuple[float, float, int]) -> str:
    """One day on the fewest GPUs that keep the promise."""
    gpus = gpus_needed(day, within_seconds=PROMISE_SECONDS)
    waits = simulate(day, gpus)
    load = sum(work.service for work in day) / (gpus * DAY_SECONDS)
    draft, infill, studies = named
    all_of_them = [f"{percentile(waits.all(), share):.2f}" for share in (0.5, 0.95, 0.99)]
    stat = f"{percentile(waits.by_priority.get(STAT, []), 0.99):.2f}"
    return f"| {draft:g} | {infill:g} | {studies:,} | {gpus} | {load:.1%} | {' | '.join(all_of_them)} | {stat} |"


if __name__ == "__main__":
    main()
