"""The entry point `inlay`: finds the command and imports only that one, so that `inlay serve` starts without torch."""

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

from inlay_cli.parent import die_with_parent
from inlay_cli.parsing import CommandError
from inlay_core.domain.errors import DomainError

# name -> (module in inlay_cli.commands, what it does). The order is that of the help text: newcomers read from the top.
COMMANDS = {
    "demo": ("demo", "the whole flow on this machine: order, draft, locks, infill, sign-off, result"),
    "up": ("up", "run all processes on this machine, restarted when they die"),
    "serve": ("serve", "HTTP: FHIR, the workstation API and the page"),
    "listen": ("listen", "receive HL7 v2 orders over MLLP, and images over DICOM"),
    "work": ("work", "draft and infill reports with the model (one process per GPU)"),
    "relay": ("relay", "send what is waiting: wake-ups of workers, results to the RIS; sweep what was forgotten"),
    "db": ("db", "upgrade the database schema, or print its revision"),
    "check": ("check", "what is configured, and what of it can be reached"),
    "send": ("send", "send an HL7 v2 message over MLLP and print the acknowledgement"),
    "hl7": ("hl7", "explain a message, replay stored ones, see and send again what nobody took"),
    "token": ("token", "make a bearer token of the embedded mode for a role"),
    "status": ("status", "how it stands: queues, workers, switches, connections, what was parked"),
    "switch": ("switch", "stop generation at once, all of it or a part, and let it go on"),
    "stats": ("stats", "how drafts were used: kept, edited, deleted, times, disputes"),
    "study": ("study", "blinded reader studies: make, close, read out"),
    "audit": ("audit", "verify, sign or export the audit trail"),
    "purge": ("purge", "let go of what is older than the site keeps it; a dry run unless told otherwise"),
    "bench": ("bench", "measure the whole service on this machine, from the order to the draft and the infill"),
    "model": ("model", "draft, infill, train and measure with the model alone"),
}

# What the extra `model` brings; an installation that serves, listens or relays has none of it.
MODEL_PACKAGES = frozenset(
    {"accelerate", "huggingface_hub", "peft", "safetensors", "tokenizers", "torch", "tqdm", "transformers"}
)

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status (0 well, 1 failed, 2 misused, 130 interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        words = _follow_parent(words)
        if not words or words[0] in {"-h", "--help", "help"}:
            print(help_text())
            return 0 if words else MISUSED
        if words[0] in {"-V", "--version"}:
            print(f"inlay {metadata.version('inlay')}")
            return 0
        return _run(words[0], words[1:])
    except CommandError as error:
        print(f"inlay: {error}", file=sys.stderr)
        return error.status
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in MODEL_PACKAGES:
            raise
        print(f"inlay: {missing} is not installed; this command needs the model: 'inlay[model]'", file=sys.stderr)
        return FAILED
    except DomainError as error:
        # These name places and never values, so they can be shown as they are.
        print(f"inlay: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`inlay audit export | head`): nobody is left to tell.
        sys.stderr.close()
        return FAILED


def help_text() -> str:
    """What `inlay --help` prints."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return f"""usage: inlay COMMAND [options]

Inlay drafts radiology reports and fills the gaps between the text that a radiologist has locked.

commands:
{listed}

Start here:
  inlay demo                 everything by example, no hospital needed
  inlay up                   keep it running; data in ./var, settings in INLAY_... variables
  inlay COMMAND --help       options and examples of a command"""


def _run(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise CommandError(f"there is no command {name!r}; `inlay --help` lists them", status=MISUSED)
    module = importlib.import_module(f"inlay_cli.commands.{COMMANDS[name][0]}")
    status: int = module.main(arguments)
    return status


def _follow_parent(words: list[str]) -> list[str]:
    """Take `--parent PID` off the front: a supervised process ends with its supervisor, however that one ended."""
    if words[:1] == ["--parent"] and len(words) > 1:
        die_with_parent(int(words[1]))
        return words[2:]
    return words
