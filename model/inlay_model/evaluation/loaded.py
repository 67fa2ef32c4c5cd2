"""Which checkpoints an evaluation loads, as its options name them, and how: device, precision, graphs."""

from dataclasses import dataclass, replace
from pathlib import Path

from inlay_model.adapters import read_adapter
from inlay_model.engine import Engine
from inlay_model.loading import find_folder, load, read_about
from inlay_model.provenance import digest_of_folder
from inlay_model.sibling import Sibling


@dataclass(frozen=True, slots=True)
class Placing:
    """How checkpoints are loaded. `device`: None is the first GPU, else the CPU.

    `precision` and `accelerate` (None: on a GPU) are of diffusion models; a sibling is always as it is stored.
    """

    device: str | None = None
    precision: str = "bf16"
    accelerate: bool | None = None


def diffusion(named: str, placing: Placing, *, dispute_threshold: float | None = None) -> Engine:
    """The engine of a diffusion checkpoint, or of `folder+adapter folder`; with another dispute threshold if given."""
    folder, adapter = parts_of(named)
    checkpoint = load(
        folder, device=placing.device, adapter=adapter, precision=placing.precision, accelerate=placing.accelerate
    )
    if dispute_threshold is not None:
        checkpoint = replace(checkpoint, about=replace(checkpoint.about, dispute_threshold=dispute_threshold))
    return Engine(checkpoint)


def autoregressive(named: str, placing: Placing) -> Sibling:
    """The sibling of an autoregressive checkpoint, or of `folder+adapter folder`."""
    folder, adapter = parts_of(named)
    return Sibling.load(folder, device=placing.device, adapter=adapter)


def parts_of(named: str) -> tuple[str, str | None]:
    """Checkpoint folder and adapter folder (or None) as they are named on the command line.

    A folder whose own name holds a plus sign is taken as it stands.
    """
    if Path(named).is_dir():
        return named, None
    folder, plus, adapter = named.rpartition("+")
    return (folder, adapter) if plus else (named, None)


def identity(named: str) -> dict[str, str]:
    """Which checkpoint it was: name and digest, those of its adapter, no path of this machine."""
    path, adapter = parts_of(named)
    folder = find_folder(path)
    found = {"name": read_about(folder, folder.name).name, "digest": digest_of_folder(folder)}
    return found | ({"adapter_digest": read_adapter(adapter).digest} if adapter else {})
