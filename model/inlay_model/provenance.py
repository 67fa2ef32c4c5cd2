"""The run record: everything needed to say what wrote a text, and to write it again. It holds digests, never text."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay_model.errors import CheckpointProblem
from inlay_model.request import Comparison, Filled, Gap, GenerationSettings, Lock, PromptContext, Section

# What `inlay model fetch` leaves in a folder: where it came from, and its digest.
FETCHED = ".inlay-fetch.json"

# What Inlay says of a checkpoint or an adapter, in its folder.
ABOUT = "inlay.json"

# Digests of files already read, by path, size and modification time: a checkpoint is hashed once per process.
_SEEN: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What one draft or infill used. Equal inputs on the same device and threads give `text_digest` again.

    `kind` is draft or infill. `gap_lengths` are the lengths that gaps had on the canvas, in tokens and in reading
    order; a text that was cut afterwards has fewer. `steps_taken` counts denoising steps of the text that was returned,
    `forward_passes` every pass of the decoder, the search included. `batch` is the number of canvases denoised together
    (a part of the numerics). `second_looks` is how often a text was looked at once more, `doubted` how many of these
    texts did not stand. `seconds` is informative. `comparison_digest` is that of the earlier examinations that the
    prompt told of, empty for none. `precision` is how the experts are held (bf16: as all else is, in `dtype`), None in
    records of versions that did not say.
    """

    kind: str
    model: str
    model_digest: str
    revision: str | None
    adapter_digest: str | None
    demonstration: bool
    seed: int
    settings: Mapping[str, Any]
    context: Mapping[str, Any]
    steps_taken: int
    forward_passes: int
    gap_lengths: tuple[int, ...]
    prompt_digest: str
    image_digests: tuple[str, ...]
    request_digest: str
    text_digest: str
    canvas_length: int
    batch: int
    device: str
    dtype: str
    threads: int
    versions: Mapping[str, str]
    seconds: float
    second_looks: int = 0
    doubted: int = 0
    comparison_digest: str = ""
    precision: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON-able dictionary."""
        plain = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunRecord":
        """The record that `to_json` gave; keys of later versions are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names
        }
        return cls(**known)

    def generation_settings(self) -> GenerationSettings:
        """The settings to run it again with; records of versions that knew no second look had none."""
        return GenerationSettings(**{"second_look": False, **self.settings})

    def prompt_context(self, comparison: Sequence[Comparison] = ()) -> PromptContext:
        """The context to run it again with; `comparison` is not in the record."""
        return PromptContext(**self.context, comparison=tuple(comparison))


def sha256_of(*chunks: bytes) -> str:
    """Hexadecimal SHA-256 of the chunks, each preceded by its length so that their borders count."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "big"))
        digest.update(chunk)
    return digest.hexdigest()


def digest_of_ids(ids: Iterable[int]) -> str:
    """Digest of a token sequence."""
    return sha256_of(",".join(map(str, ids)).encode())


def request_json(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """A request as JSON: sections of items, each a lock with its text or a gap with its bounds."""
    return [
        {
            "name": section.name,
            "items": [
                {"lock": item.text} if isinstance(item, Lock) else {"gap": _gap_json(item)} for item in section.items
            ],
        }
        for section in sections
    ]


def _gap_json(gap: Gap) -> dict[str, Any]:
    plain = dataclasses.asdict(gap)
    # Left out where nothing is replaced, so that earlier requests keep their digest.
    return plain if gap.replaces is not None else {key: plain[key] for key in plain if key != "replaces"}


def digest_of_request(sections: Sequence[Section]) -> str:
    """Digest of what was asked."""
    return sha256_of(json.dumps(request_json(sections), sort_keys=True).encode())


def digest_of_text(filled: Filled | Sequence[Any]) -> str:
    """Digest of an answer: section names, and kind and text of every piece."""
    sections = filled.sections if isinstance(filled, Filled) else filled
    plain = [[s.name, [[p.kind, p.text] for p in s.pieces]] for s in sections]
    return sha256_of(json.dumps(plain).encode())


def digest_of_folder(folder: Path) -> str:
    """Digest of a checkpoint: over names and SHA-256 of its files in sorted order.

    Hidden files and sub-folders do not count: download tools leave their bookkeeping there.
    """
    return _digest_of_files(_files_of(folder))


def digest_of_weights(folder: Path) -> str:
    """The same without `inlay.json`: what an adapter is made for.

    A threshold or a curve that is found afterwards changes the checkpoint, but not what its adapters do.
    """
    return _digest_of_files(path for path in _files_of(folder) if path.name != ABOUT)


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _digest_of_files(files: Iterable[Path]) -> str:
    return sha256_of(*(f"{path.name}:{digest_of_file(path)}".encode() for path in files))


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file; kept in memory until its size or modification time changes."""
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns)
    if key not in _SEEN:
        with path.open("rb") as file:
            _SEEN[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _SEEN[key]


def fetched(folder: Path) -> Mapping[str, Any]:
    """What was written down when this folder was fetched from a hub; empty where it was not.

    Raises `CheckpointProblem` where the folder's files are not those that were fetched.
    """
    file = folder / FETCHED
    if not file.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = str(record["digest"])
    except (ValueError, KeyError, TypeError) as problem:
        raise CheckpointProblem(f"{file} is no record of a fetch; fetch the folder again.") from problem
    if known != digest_of_folder(folder):
        raise CheckpointProblem(
            f"The files of {folder} have changed since they were fetched (wrong digest). Fetch them again, or delete "
            f"{FETCHED} if the change is wanted."
        )
    return record
