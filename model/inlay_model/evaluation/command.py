"""`inlay model eval`: one command per table of the paper, on phantoms or on a local folder of published data."""

import argparse
import importlib
import sys
from pathlib import Path

from inlay_model.evaluation.interrupted import finish, part_of
from inlay_model.loading import DEMONSTRATION
from inlay_model.parsing import file_in_a_new_folder, file_to_write
from inlay_model.phantom.seeds import evaluation_seeds

_SUITES = ("phantom", "disputes", "infill", "alternatives", "vqa", "speed")
_ABOUT = """\
Measures models, and prints a Markdown table (or --json).

phantom       drafts, gaps, locks and disputes on phantoms whose findings are known
disputes      how much false and true locks are doubted, and the threshold that tells them apart
infill        what the text right of a gap is worth: {both sides, left only} x {diffusion, sibling} (Table 3)
alternatives  how often each of several texts for a gap is right, and how reliable their probabilities are
vqa           questions about images, a column per candidate, with McNemar's test of every pair (Table 1)
speed         latency of drafts, prefill and steps or tokens apart (Table 2)
"""
_EXAMPLES = """\
examples:
  inlay model eval --suite phantom --seed 1 --limit 64 --json
  inlay model eval --suite infill --sibling SIBLING --limit 64 --plot infill.svg
  inlay model eval --suite alternatives --model FOLDER --calibrate --plot reliability.svg
  inlay model eval --suite vqa --candidate base=FOLDER --candidate finetuned=FOLDER+ADAPTER
  inlay model eval --suite vqa --set vqa-rad=FOLDER --set slake=FOLDER --endpoints judges.toml --candidate ours=FOLDER
  inlay model eval --suite infill --set mimic-cxr=FOLDER --model FOLDER --sibling FOLDER --limit 249
  inlay model eval --suite speed --sibling SIBLING
"""
# What shells report of a program stopped by Ctrl-C.
_STOPPED = 130
# How many cases where --limit says nothing; None is all that there are.
_LIMITS = {"phantom": 512, "disputes": 256, "infill": 256, "alternatives": 512, "vqa": None, "speed": 8}
_SETS = {
    "phantom": ("phantom",),
    "disputes": ("phantom",),
    "infill": ("phantom", "mimic-cxr", "iu-xray"),
    "alternatives": ("phantom",),
    "vqa": ("phantom", "vqa-rad", "slake", "vqa-med-2019", "jsonl"),
    "speed": ("phantom",),
}


def main(argv: list[str] | None = None) -> int:
    """Run one suite; returns 0."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    limit = _LIMITS[arguments.suite] if arguments.limit is None else arguments.limit
    counts = (arguments.seed, arguments.steps, arguments.processes, limit)
    if any(count is not None and count < 1 for count in counts):
        parser.error("--seed, --limit, --steps and --processes must be at least 1")
    try:
        evaluation_seeds(arguments.seed, limit or 0)
    except ValueError as problem:
        parser.error(str(problem))
    arguments.limit = limit
    sets = arguments.set = arguments.set or [("phantom", None)]
    if any(name not in _SETS[arguments.suite] for name, _ in sets) or (arguments.suite != "vqa" and len(sets) > 1):
        parser.error(f"--suite {arguments.suite} takes --set {' or '.join(_SETS[arguments.suite])}")
    if arguments.calibrate and arguments.suite != "alternatives":
        parser.error("--calibrate goes with --suite alternatives")
    if arguments.write and arguments.suite != "disputes":
        parser.error("--write goes with --suite disputes")
    if arguments.endpoints and arguments.suite not in {"infill", "vqa"}:
        parser.error("--endpoints goes with --suite infill or vqa")
    if arguments.plot:
        from inlay_model.evaluation.plots import check

        check(arguments.plot)
    # Loaded here: --help and a mistyped option need no torch.
    suite = getattr(importlib.import_module("inlay_model.evaluation.suites"), arguments.suite)
    try:
        suite(arguments)
    except KeyboardInterrupt:
        kept = "Nothing is kept without --out."
        if arguments.out:
            kept = f"What is done is kept in {part_of(arguments.out)}: the same command goes on from there."
        print(f"\nStopped. {kept}", file=sys.stderr)
        return _STOPPED
    finish(arguments.out)
    return 0


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError("is written NAME=FOLDER")
    return name, value


def _set(text: str) -> tuple[str, Path | None]:
    name, _, place = text.partition("=")
    if not any(name in sets for sets in _SETS.values()):
        raise argparse.ArgumentTypeError(f"knows {', '.join(_SETS['vqa'])} and {', '.join(_SETS['infill'])}")
    if (name == "phantom") != (not place):
        raise argparse.ArgumentTypeError("is phantom, or written SET=FOLDER")
    return name, Path(place) if place else None


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="inlay model eval", description=_ABOUT, epilog=_EXAMPLES, formatter_class=layout
    )
    add = parser.add_argument
    add("--suite", choices=_SUITES, default="phantom", help="what to measure (default: %(default)s)")
    add("--model", default=str(DEMONSTRATION), help="diffusion checkpoint (default: the demonstration one)")
    add("--sibling", help="autoregressive checkpoint (default: the demonstration's sibling, where it is there)")
    add("--seed", type=int, default=1, help="which phantoms; none of any seed was used in training (default: 1)")
    add(
        "--limit",
        type=int,
        help="how many cases (default: phantom, alternatives 512, disputes, infill 256, vqa all or 360, speed 8)",
    )
    add("--steps", type=int, help="denoising steps (default: 16; speed: 16, 32 and 48)")
    add(
        "--processes",
        type=int,
        help="processes, one thread each; 1 is this one, with all its threads (default: 2 on a CPU, 1 on a GPU)",
    )
    add("--device", help="cpu, cuda, cuda:1 ... (default: the first GPU, else the CPU)")
    add(
        "--precision",
        choices=["bf16", "fp8", "4bit"],
        default="bf16",
        help="how the experts of diffusion models are held (default: %(default)s, as they are; siblings always are)",
    )
    add(
        "--accelerate",
        action=argparse.BooleanOptionalAction,
        help="graphs and own kernels for diffusion models (default: on a GPU)",
    )
    add("--write", action="store_true", help="disputes: write the threshold into the checkpoint's inlay.json")
    add("--json", action="store_true", help="print the figures as one JSON object")
    add(
        "--out",
        type=file_in_a_new_folder,
        help="also write every case, one JSON object a line; a run cut short goes on from it",
    )
    add("--table", type=file_to_write, help="also write the table to this file")
    add("--plot", type=file_to_write, help="also draw the figures, as .svg or .png (needs matplotlib)")
    add(
        "--set",
        type=_set,
        action="append",
        metavar="SET[=FOLDER]",
        help="the data (default: phantom); vqa: vqa-rad, slake, vqa-med-2019, jsonl (a file), repeat for more; "
        "infill: mimic-cxr, iu-xray",
    )
    add(
        "--calibrate",
        action="store_true",
        help="alternatives: write the curve from scores to probabilities into the checkpoint's inlay.json, which gives "
        "it another digest",
    )
    add("--split", choices=["train", "validate", "test"], default="test", help="of a published set (default: test)")
    add(
        "--candidate",
        type=_named,
        action="append",
        metavar="NAME=FOLDER[+ADAPTER]",
        help="vqa: a checkpoint of either kind, with an adapter's folder if it has one, as a column; repeat for more "
        "(default: --model and --sibling)",
    )
    add("--endpoints", type=Path, metavar="FILE.toml", help="OpenAI-compatible judges and candidates")
    cache = Path.home() / ".cache" / "inlay" / "endpoints"
    add("--cache", type=Path, default=cache, help="where their answers are kept (default: %(default)s)")
    add(
        "--controls",
        type=int,
        default=64,
        help="vqa: wrong answers of the same length given to the judges (default: 64)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
