"""`inlay model fetch`: a checkpoint or adapter from the hub into a local folder, pinned to a commit, with digests.

What the hub says of every file is compared with what arrived, and the digests are kept beside the files, so that a
folder that has changed since is noticed when it is loaded.
"""

import argparse
import fnmatch
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inlay_model.errors import FetchProblem, UnpinnedRevision
from inlay_model.parsing import folder_to_write
from inlay_model.provenance import FETCHED, digest_of_file, digest_of_folder

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Files that may run code when they are read, or hold the weights a second time in a form that is not used here.
LEFT_OUT = ("*.bin", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.py")
_BLOCK = 1 << 20
_EXAMPLES = """\
examples, COMMIT being the 40 digits that the hub shows of a revision:
  inlay model fetch google/diffusiongemma-26B-A4B-it --revision COMMIT --out models/diffusiongemma-26b
  inlay model fetch gevaertlab/diffusiongemma-radiology-vqa --revision COMMIT --out adapters \\
      --include 'diffusion-slake/*'
then: inlay model draft --model models/diffusiongemma-26b --adapter adapters/diffusion-slake --image chest.dcm
"""
# Where files are while they arrive; hidden, as it is no part of a checkpoint.
_PARTS = ".inlay-parts"


@dataclass(frozen=True, slots=True)
class Expected:
    """A file as the hub lists it: its size, and the SHA-256 of large files or the git blob id of small ones."""

    path: str
    size: int
    sha256: str | None
    blob: str

    def is_in(self, folder: Path) -> bool:
        """Whether the file in this folder is the one that the hub lists."""
        file = folder / self.path
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return digest_of_file(file) == self.sha256
        return _git_blob(file) == self.blob


def fetch(
    hub_id: str, revision: str, out: Path, *, include: Sequence[str] = (), endpoint: str | None = None
) -> dict[str, str]:
    """Bring the files of a commit into `out`; returns the digest of every folder written, by its path in `out`.

    What is there already is kept, and a file that broke off goes on where it was. `include` are patterns of paths, for
    instance `diffusion-slake/*`; without them everything comes but files that could hold code. Raises
    `UnpinnedRevision`, and `FetchProblem` where the hub does not answer, does not have it, or sends a file that
    differs from what it says of it.
    """
    if not _COMMIT.fullmatch(revision):
        raise UnpinnedRevision(f"{hub_id} needs --revision with 40 hexadecimal digits of a commit: names can move.")
    with asking_the_hub(hub_id, revision):
        expected = [file for file in _listed(hub_id, revision, endpoint) if _is_wanted(file.path, include)]
        if not expected:
            raise FetchProblem(f"{hub_id} has no file that fits {', '.join(include) or 'what can be used here'}.")
        for number, file in enumerate(expected, start=1):
            if not file.is_in(out):
                print(f"[{number}/{len(expected)}] {file.path}", file=sys.stderr)
                _transfer(file, hub_id, revision, out, endpoint)
    return _recorded(hub_id, revision, out, expected)


@contextmanager
def asking_the_hub(hub_id: str, revision: str) -> Iterator[None]:
    """What the hub's client raises inside becomes a `FetchProblem` that says what to do."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as problem:
        raise FetchProblem(f"{hub_id} is no hub id (owner/name).") from problem
    except HfHubHTTPError as problem:
        raise FetchProblem(f"The hub refused {hub_id} at {revision[:12]}: {_first_line(problem)}") from problem
    except (httpx2.HTTPError, OSError) as problem:
        raise FetchProblem(
            f"{hub_id} could not be fetched ({type(problem).__name__}). Run it again to go on; HF_ENDPOINT names "
            "another hub, HF_TOKEN lets private and gated repositories be read. Where no hub can be reached, name a "
            "folder that inlay model fetch has filled elsewhere."
        ) from problem


def _transfer(file: Expected, hub_id: str, revision: str, out: Path, endpoint: str | None) -> None:
    """One file, behind what of it is there already; the library's own download begins anew after an interruption."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    parts = out / _PARTS / revision
    part = parts / file.path
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as content:
        http_get(
            hf_hub_url(hub_id, file.path, revision=revision, endpoint=endpoint),
            content,
            resume_size=content.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
        )
    if not file.is_in(parts):
        part.unlink()
        raise FetchProblem(f"{file.path} differs from what the hub says of it; what was sent is deleted. Try again.")
    (out / file.path).parent.mkdir(parents=True, exist_ok=True)
    part.replace(out / file.path)


def _listed(hub_id: str, revision: str, endpoint: str | None) -> list[Expected]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    return [
        Expected(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in HfApi(endpoint=endpoint).list_repo_tree(hub_id, revision=revision, recursive=True)
        if isinstance(entry, RepoFile)
    ]


def _is_wanted(path: str, include: Sequence[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    if name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
        return False
    return not include or any(fnmatch.fnmatch(path, pattern) for pattern in include)


def _recorded(hub_id: str, revision: str, out: Path, expected: Sequence[Expected]) -> dict[str, str]:
    """Write into every folder what was fetched into it; the file is hidden, so that it is no part of the digest."""
    folders = sorted({(out / file.path).parent for file in expected})
    digests = {}
    for folder in folders:
        digest = digest_of_folder(folder)
        here = [out / file.path for file in expected if (out / file.path).parent == folder]
        record = {
            "repository": hub_id,
            "revision": revision,
            "digest": digest,
            "files": {file.name: {"bytes": file.stat().st_size, "sha256": digest_of_file(file)} for file in here},
        }
        (folder / FETCHED).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        digests[folder.relative_to(out).as_posix()] = digest
    return digests


def _git_blob(file: Path) -> str:
    # How git names contents; the hub gives nothing else for small files.
    digest = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _first_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0] if lines else type(problem).__name__


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model fetch`."""
    parser = argparse.ArgumentParser(
        prog="inlay model fetch",
        description="Brings a checkpoint or an adapter from the hub into a folder, pinned to a commit. Every file is\n"
        "compared with the hub's digest; run it again to go on after an interruption. Serving needs no network then.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hub_id", help="for example google/diffusiongemma-26B-A4B-it")
    parser.add_argument("--revision", required=True, help="commit hash, 40 hexadecimal digits")
    parser.add_argument("--out", type=folder_to_write, required=True, help="folder, made if it is not there")
    parser.add_argument(
        "--include", nargs="*", default=[], metavar="PATTERN", help="only these, e.g. 'diffusion-slake/*'"
    )
    arguments = parser.parse_args(argv)
    for folder, digest in fetch(arguments.hub_id, arguments.revision, arguments.out, include=arguments.include).items():
        print(f"{arguments.out / folder} {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
