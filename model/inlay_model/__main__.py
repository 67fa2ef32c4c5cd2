"""`python -m inlay_model` and its commands, from draft to fetch. The help is written to be learnt from."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent

from inlay_model.asked import GAPS, REQUEST
from inlay_model.errors import ModelError
from inlay_model.parsing import at_least_one, file_to_write

_ABOUT = """\
Drafts radiology reports with DiffusionGemma and fills the gaps between locked text.

A diffusion language model writes a whole canvas at once: it starts from random tokens and makes them better in a few
steps. So text may be locked anywhere, and what is missing is written from both sides. Locked text comes back byte for
byte. Without --model the demonstration checkpoint is used: it knows synthetic phantom images only. Where the model is
installed without the service, `python -m inlay_model` is `inlay model`.
"""
_EXAMPLES = """\
phantoms to try it on, the first of which the examples call phantom.dcm:
  inlay model phantoms --reports 8 --out phantoms
  cp phantoms/images/1000000.dcm phantom.dcm

a draft of a phantom, every step shown:
  inlay model draft --image phantom.dcm --watch

keep two sentences, have the text between them and the impression written; [...] is a gap:
  inlay model infill --image phantom.dcm \\
      --section 'findings=The heart is normal in size. [...] No pneumothorax.' --section 'impression=[...]'

write down how a text came about, and make it again:
  inlay model draft --image phantom.dcm --seed 7 --record run.json
  inlay model replay run.json --image phantom.dcm

how fast is it here, and how good:
  inlay model bench
  inlay model eval --suite phantom --seed 1 --limit 64 --json
  inlay model eval --suite infill --sibling SIBLING_FOLDER --limit 64
"""
_DRAFT = """\
Writes a report about a study. The report goes to standard output, what is to be said of it to standard error.

Each section is written by the model; the text of --begin is locked and stands at the beginning of the first one.
"""
_DRAFTS = """\
examples:
  inlay model draft --image phantom.dcm
  inlay model draft --image frontal.dcm --image lateral.dcm --model FOLDER --precision fp8
  inlay model draft --image phantom.dcm --style concise --seed 7 --record draft.json
  inlay model draft --image phantom.dcm --begin 'The heart is normal in size. ' --json
"""
_INFILL = """\
Fills the gaps of a report. What is not a gap is locked: it comes back byte for byte, whatever the model thinks of it.

Locked words that the model holds to be wrong are listed as disputed, where the checkpoint was trained for that. The
report goes to standard output, disputes, alternatives and confidence to standard error, or all of it into --json.
"""
_INFILLS = f"""\
how gaps are written in --section:
{indent(GAPS, "  ")}
the same in the file of --request, where a gap may have any of these keys or none:
{indent(REQUEST, "  ")}
examples:
  inlay model infill --image phantom.dcm --alternatives 3 --confidence \\
      --section 'findings=The heart is normal in size. [...5-20 pleura] No pneumothorax.' --section 'impression=[...]'

write one section again from the others, which are locked:
  inlay model infill --image phantom.dcm --section 'findings=Large right pleural effusion.' \\
      --section 'impression=[...]'

go on from an earlier run: the same gaps with less work, or its report in another style:
  inlay model draft --image phantom.dcm --record draft.json
  inlay model infill --image phantom.dcm --earlier draft.json --warm-start 0.25
  inlay model infill --image phantom.dcm --earlier draft.json --rewrite --style concise
"""
_REPLAY = """\
Runs a recorded request again, with the settings of the record, and compares: the same text comes on the same device,
threads and library versions, with as many requests in a pass. Where checkpoint, adapter, precision, image, request or
text differ, the error says which.
"""
_REPLAYS = """\
example:
  inlay model draft --image phantom.dcm --seed 7 --record run.json
  inlay model replay run.json --image phantom.dcm
"""
# These have arguments of their own and a main(argv) in the module named.
_ELSEWHERE = {
    "bench": ("inlay_model.evaluation.bench", "measure drafts and infills against transformers' own generate"),
    "eval": ("inlay_model.evaluation.command", "measure how right drafts, infills and answers are, and how fast"),
    "phantoms": ("inlay_model.phantom.command", "write phantoms with reports or questions, to try, train and evaluate"),
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
    parser = argparse.ArgumentParser(prog="inlay model", description=_ABOUT, epilog=_EXAMPLES, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, about: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, parents=[_model()], help=text, description=about, epilog=examples, formatter_class=layout
        )

    _draft(command("draft", "write a report about an image", _DRAFT, _DRAFTS))
    text = "fill the gaps between locked text (without --image: from the text alone)"
    _infill(command("infill", text, _INFILL, _INFILLS))
    replay = command("replay", "run a recorded request again", _REPLAY, _REPLAYS)
    replay.add_argument("record_file", type=Path, metavar="RECORD", help="a file that --record wrote")
    for name, (_, text) in _ELSEWHERE.items():
        commands.add_parser(name, add_help=False, help=f"{text} ({name} --help)")
    return parser


def _draft(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sections", default="findings,impression", help="comma-separated (default: %(default)s)")
    add("--begin", default="", metavar="TEXT", help="locked text with which the first section begins")
    add(
        "--canvases",
        type=at_least_one,
        default=1,
        metavar="N",
        help="how many canvases a long report may fill, one after the other (default: %(default)s)",
    )
    _run(parser)


def _infill(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--section", action="append", metavar="NAME=TEXT", help="a section with its gaps, see below; repeat for more"
    )
    what.add_argument("--request", type=Path, metavar="FILE", help="the sections as JSON, see below")
    what.add_argument(
        "--earlier",
        type=Path,
        metavar="RECORD",
        help="the sections of an earlier run, by the file that --record wrote; gaps replace what it wrote there",
    )
    add = parser.add_argument
    add(
        "--alternatives",
        type=at_least_one,
        default=1,
        metavar="K",
        help="look for so many texts for every gap, best first (default: %(default)s)",
    )
    add("--confidence", action="store_true", help="say how probable the model finds each word that it wrote")
    add(
        "--warm-start",
        type=float,
        metavar="SHARE",
        help="begin from the texts that gaps replace, with this share of noise (above 0, at most 1); fewer steps",
    )
    add(
        "--rewrite",
        action="store_true",
        help="say what the gaps replace again in the style of --style, where the checkpoint was trained for it",
    )
    _run(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    """What decides a new run; a replay has it in its record."""
    add = parser.add_argument
    add("--style", help="site style that the checkpoint knows")
    add("--steps", type=at_least_one, default=16, help="denoising steps at most (default: %(default)s)")
    add("--seed", type=int, default=0, help="same seed, same text (default: %(default)s)")
    add("--watch", action="store_true", help="show the text after every step")
    add("--record", type=file_to_write, metavar="FILE", help="write request, run and answer, for replay and --earlier")


def _model() -> argparse.ArgumentParser:
    """What every one of these commands needs: images, a model, a device, a form of the answer."""
    shared = argparse.ArgumentParser(add_help=False)
    add = shared.add_argument
    add("--image", type=Path, action="append", help="DICOM or picture file, frontal view first; repeat for more views")
    add("--model", help="checkpoint folder or hub id (default: the demonstration checkpoint)")
    add("--revision", help="commit hash, needed with a hub id")
    add("--adapter", type=Path, help="folder of a PEFT adapter made for that checkpoint")
    add("--device", help="cpu, cuda, cuda:1, auto ... (default: the first GPU, else the CPU)")
    add("--precision", choices=["bf16", "fp8", "4bit"], help="how experts are held (default: bf16, as they are)")
    add(
        "--accelerate",
        action=argparse.BooleanOptionalAction,
        help="graphs and own kernels (default: on a GPU)",
    )
    add("--threads", type=at_least_one, help="CPU threads")
    add(
        "--json",
        action="store_true",
        help="print texts, pieces with digests, disputes, confidence, alternatives and run record as JSON",
    )
    add(
        "--demo-model-on-any-study",
        action="store_true",
        help="let the demonstration checkpoint see images that are no phantoms; its text then means nothing",
    )
    return shared


if __name__ == "__main__":
    sys.exit(main())
