"""`inlay model random`: a checkpoint folder with random weights, in the ordinary format, to measure a service with.

It writes full stops, so that what it writes stands when it is looked at again, as a trained model's text mostly does.
It calls itself a demonstration, so that it is refused on every study that is no phantom.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from inlay_model.accelerator.random_weights import TOY, diffusion_config, random_model, settle
from inlay_model.errors import BadRequest
from inlay_model.loading import default_checkpoint, make_image_processor
from inlay_model.provenance import ABOUT
from inlay_model.tokens import encode_plain

SHAPES = ("26b", "toy")
# Soft tokens of an image at most: what the 26B model is used with, and the smallest that the library allows.
_SOFT_TOKENS = {"26b": 280, "toy": 70}
# One part at a time passes through main memory, twice: 13 parts of the 26B shape.
_PART = "4GB"
_WRITES = "."


def main(argv: list[str]) -> int:
    """Write the folder, or leave one of the same shape as it is."""
    parser = argparse.ArgumentParser(prog="inlay model random", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True, help="26b: 52 GB, made on the GPU if there is one")
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the first GPU, else the CPU)")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    written = write_checkpoint(arguments.shape, arguments.out, device, arguments.seed)
    said = f"written in {time.monotonic() - began:.0f} s" if written else "is there already"
    print(f"{arguments.out}: the {arguments.shape} shape with random weights, {said}", file=sys.stderr)
    return 0


def write_checkpoint(shape: str, out: Path, device: str, seed: int = 0) -> bool:
    """Write the checkpoint, whole or not at all; False where there is one of this shape and seed.

    Raises `BadRequest` where the folder holds something else.
    """
    card = {
        "demonstration": True,
        "name": f"random-{shape}",
        "kind": "diffusion",
        "locked_in_prompt": False,
        "random_weights": {"shape": shape, "seed": seed, "writes": _WRITES},
    }
    if out.exists() and any(out.iterdir()):
        if not (out / ABOUT).is_file() or json.loads((out / ABOUT).read_text(encoding="utf-8")) != card:
            raise BadRequest(f"{out} holds something else than the {shape} shape with random weights of seed {seed}.")
        return False
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tokenizer = widened_tokenizer(int(shape_config(shape).text_config.vocab_size))
    model = random_model(shape_config(shape), device, torch.bfloat16, seed)
    settle(model, encode_plain(tokenizer, _WRITES)[-1])
    model.save_pretrained(partial, max_shard_size=_PART)
    del model
    tokenizer.save_pretrained(partial)
    make_image_processor(max_soft_tokens=_SOFT_TOKENS[shape]).save_pretrained(partial)
    (partial / ABOUT).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return True


def shape_config(shape: str) -> Any:
    """Configuration of a shape, with the control tokens of the demonstration checkpoint's tokenizer."""
    config = diffusion_config(**(TOY if shape == "toy" else {}))
    config.dtype = "bfloat16"
    if shape == "toy":
        config.canvas_length = 128
        config.vision_config.num_hidden_layers = 1
    own = json.loads((default_checkpoint() / "config.json").read_text(encoding="utf-8"))
    for name in ("boi_token_id", "eoi_token_id", "image_token_id"):
        setattr(config, name, own[name])
    return config


def widened_tokenizer(words: int) -> Any:
    """The demonstration checkpoint's tokenizer with so many words altogether; those that are added mean nothing."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for file in default_checkpoint().glob("*token*"):
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        said = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        known = said["model"]["vocab"]
        known.update({f"▁w{index}": index for index in range(len(known), words)})
        (Path(folder) / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")
        template = default_checkpoint() / "chat_template.jinja"
        (Path(folder) / template.name).write_bytes(template.read_bytes())
        return AutoTokenizer.from_pretrained(folder)
