"""`python -m inlay_model` and its commands, from draft to fetch. The help is written to be learnt from."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from inlay_model.errors import ModelError

_ABOUT = """\
Drafts radiology reports with DiffusionGemma and fills the gaps between locked text.

A diffusion language model writes a whole canvas at once: it starts from random tokens and makes them better in a few
steps. So text may be locked anywhere, and what is missing is written from both sides. Locked text comes back byte for
byte. Without --model the demonstration checkpoint is used: it knows synthetic phantom images only.
"""
_EXAMPLES = """\
a draft of a phantom, every step shown:
  python -m inlay_model draft --image phantom.dcm --watch

keep two sentences, have the text between them and the impression written; [...] is a gap:
  python -m inlay_model infill --image phantom.dcm \\
      --section 'findings=The heart is normal in size. [...] No pneumothorax.' --section 'impression=[...]'

write down how a text came about, and make it again:
  python -m inlay_model draft --image phantom.dcm --seed 7 --record run.json
  python -m inlay_model replay run.json --image phantom.dcm

how fast is it here, and how good:
  python -m inlay_model bench
  python -m inlay_model eval --suite phantom --seed 1 --limit 64 --json
  python -m inlay_model eval --suite infill --sibling SIBLING_FOLDER --limit 64
"""
# These have arguments of their own and a main(argv) in the module named.
_ELSEWHERE = {
    "bench": ("inlay_model.evaluation.bench", "measure drafts and infills against transformers' own generate"),
    "eval": ("inlay_model.evaluation.command", "measure how right drafts, infills and answers are, and how fast"),
    "phantoms": ("inlay_model.phantom.command", "write questions about phantoms, for training and evaluation"),
    "train": ("inlay_model.training.command", "train a checkpoint or an adapter"),
    "random": ("inlay_model.accelerator.random_checkpoint", "write a checkpoint with random weights, to measure with"),
    "merge": ("inlay_model.merge", "add an adapter to a checkpoint's weights for good"),
    "digest": ("inlay_model.digest", "print the digest of a checkpoint, to be compared or expected"),
    "fetch": ("inlay_model.fetch", "bring a checkpoint from the hub, pinned and with digests"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 where a named error was printed."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given and given[0] in _ELSEWHERE:
            other: Callable[[list[str]], int | None] = importlib.import_module(_ELSEWHERE[given[0]][0]).main
            return other(given[1:]) or 0
        arguments = _parser().parse_args(given)
        chosen: Callable[[argparse.Namespace], int] = getattr(
            importlib.import_module("inlay_model.commands"), arguments.command
        )
        return chosen(arguments)
    except ModelError as problem:
        print(f"error: {problem} [{problem.code}]", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="inlay_model", description=_ABOUT, epilog=_EXAMPLES, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _shared()
    draft = commands.add_parser("draft", parents=[shared], help="write a report about an image")
    draft.add_argument("--sections", default="findings,impression", help="comma-separated (default: %(default)s)")
    infill = commands.add_parser(
        "infill", parents=[shared], help="fill the gaps between locked text (without --image: from the text alone)"
    )
    what = infill.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--section",
        action="append",
        metavar="NAME=TEXT",
        help="a section; [...] is a gap, [...20] one of at most 20 tokens; repeat for more",
    )
    what.add_argument("--request", type=Path, metavar="FILE", help="the sections as JSON: items are lock or gap")
    replay = commands.add_parser("replay", parents=[shared], help="run a recorded request again")
    replay.add_argument("record_file", type=Path, help="a file that --record wrote")
    for name, (_, text) in _ELSEWHERE.items():
        commands.add_parser(name, add_help=False, help=f"{text} ({name} --help)")
    return parser


def _shared() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--image", type=Path, action="append", help="DICOM or picture file, frontal view first")
    shared.add_argument("--model", help="checkpoint folder or hub id (default: the demonstration checkpoint)")
    shared.add_argument("--revision", help="commit hash, needed with a hub id")
    shared.add_argument("--adapter", type=Path, help="folder of a PEFT adapter made for that checkpoint")
    shared.add_argument("--style", help="site style that the checkpoint knows")
    shared.add_argument("--steps", type=int, default=16, help="denoising steps at most (default: %(default)s)")
    shared.add_argument("--seed", type=int, default=0, help="same seed, same text (default: %(default)s)")
    shared.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the first GPU, else the CPU)")
    shared.add_argument("--threads", type=int, help="CPU threads")
    shared.add_argument("--watch", action="store_true", help="show the text after every step")
    shared.add_argument("--json", action="store_true", help="print text, pieces with digests and run record as JSON")
    shared.add_argument("--record", type=Path, metavar="FILE", help="write the request and its run record, for replay")
    shared.add_argument(
        "--demo-model-on-any-study",
        action="store_true",
        help="let the demonstration checkpoint see images that are no phantoms; its text then means nothing",
    )
    return shared


if __name__ == "__main__":
    sys.exit(main())
