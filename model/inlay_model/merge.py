"""`inlay model merge`: a checkpoint with an adapter added to its weights for good, in the ordinary format."""

import argparse
import json
import shutil
import sys
from pathlib import Path

from inlay_model.adapters import Added, check_base, is_tied_alike, read_adapter
from inlay_model.errors import AdapterProblem
from inlay_model.loading import Checkpoint, find_folder, kind_of, load
from inlay_model.parsing import folder_to_write
from inlay_model.provenance import ABOUT, digest_of_folder

# Parts of a small checkpoint stay small enough for a repository.
_SMALL_BYTES, _SMALL_PART, _PART = 256 * 2**20, "12MB", "5GB"
_EXAMPLES = """\
example, an adapter that was trained, added for good and served by itself:
  inlay model train --model models/base --data reports.jsonl --out run
  inlay model merge --model models/base --adapter run/adapter --out models/ours
  inlay model draft --model models/ours --image chest.dcm
"""
_REWRITTEN = {"config.json", "generation_config.json", "model.safetensors.index.json", ABOUT}


def merge(base: str | Path, adapter: str | Path, out: Path, *, revision: str | None = None, dtype: str = "") -> str:
    """Write the merged checkpoint into `out`; returns its digest.

    Each change is added once, in float32, and rounded to `dtype` (empty: the type that the base is stored in). Raises
    `AdapterProblem` for an adapter of another base, and for one that changes tied layers differently: such an adapter
    can be served but not stored, because the format has these weights once.
    """
    folder = find_folder(base, revision)
    if out.exists() and any(out.iterdir()):
        raise AdapterProblem(f"{out} is not empty; a merged checkpoint needs a folder of its own.")
    kind = kind_of(folder)
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("dtype") or "float32"
    checkpoint = load(folder, device="cpu", dtype=dtype or stored, kind=kind)
    read = read_adapter(adapter)
    check_base(read, checkpoint.about.name, checkpoint.weights_digest)
    if not is_tied_alike(checkpoint.model, read):
        raise AdapterProblem(
            f"The adapter {adapter} changes weights that encoder and decoder share, differently in each. It cannot be "
            "merged into one checkpoint; serve it beside its base instead (INLAY_ADAPTER)."
        )
    Added(checkpoint.model, {read.folder.name: read})
    _write(checkpoint, folder, out)
    about = {
        "name": f"{checkpoint.about.name}+{read.folder.name}",
        "merged": {"base_digest": checkpoint.digest, "adapter_digest": read.digest},
    }
    said = json.loads((folder / ABOUT).read_text(encoding="utf-8")) if (folder / ABOUT).exists() else {}
    (out / ABOUT).write_text(json.dumps(said | about, indent=2) + "\n", encoding="utf-8")
    return digest_of_folder(out)


def _write(checkpoint: Checkpoint, base: Path, out: Path) -> None:
    """Weights and configuration anew, everything else (tokenizer, image processor, template) as the base has it."""
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    checkpoint.model.save_pretrained(out, max_shard_size=_SMALL_PART if size < _SMALL_BYTES else _PART)
    for file in base.iterdir():
        if file.is_file() and not file.name.startswith(".") and not _is_rewritten(file):
            shutil.copyfile(file, out / file.name)


def _is_rewritten(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name in _REWRITTEN


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model merge`."""
    parser = argparse.ArgumentParser(
        prog="inlay model merge",
        description="Writes a checkpoint with an adapter added to its weights. Encoder and decoder share theirs, so\n"
        "each change is added once; PEFT's own merge adds it twice and gives another model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="base: checkpoint folder or hub id")
    parser.add_argument("--revision", help="commit hash, needed with a hub id")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of a PEFT adapter")
    parser.add_argument("--out", type=folder_to_write, required=True, help="new folder for the merged checkpoint")
    parser.add_argument("--dtype", default="", help="type of the weights, for example float32 (default: the base's)")
    arguments = parser.parse_args(argv)
    digest = merge(
        arguments.model, arguments.adapter, arguments.out, revision=arguments.revision, dtype=arguments.dtype
    )
    print(f"{arguments.out} {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
