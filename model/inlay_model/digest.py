"""`inlay model digest`: which checkpoint lies in a folder, by what INLAY_MODEL_DIGEST and run records say of it."""

import argparse
import sys

from inlay_model.loading import DEMONSTRATION, find_folder
from inlay_model.provenance import digest_of_folder

_EXAMPLES = """\
examples:
  inlay model digest
  inlay model digest models/ours
  INLAY_MODEL=models/ours INLAY_MODEL_DIGEST=$(inlay model digest models/ours | cut -d ' ' -f 2) inlay work
"""


def main(argv: list[str] | None = None) -> int:
    """Command line of `inlay model digest`; prints folder and digest, as `inlay model fetch` does."""
    parser = argparse.ArgumentParser(
        prog="inlay model digest",
        description="Prints a folder and its digest: SHA-256 over names and contents of its files, without hidden\n"
        "ones and sub-folders. A worker whose INLAY_MODEL_DIGEST is another one refuses the folder.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", default=str(DEMONSTRATION), help="default: the demonstration checkpoint")
    folder = find_folder(parser.parse_args(argv).folder)
    print(f"{folder} {digest_of_folder(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
