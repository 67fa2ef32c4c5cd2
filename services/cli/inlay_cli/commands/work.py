"""`inlay work`: the worker that drafts and infills; the only process that loads the model."""

from collections.abc import Sequence

from inlay_cli.environment import read_settings
from inlay_cli.parsing import command_parser

EXAMPLES = """
inlay work                                         with the demonstration model that is shipped
INLAY_MODEL=/models/diffusiongemma inlay work      with another checkpoint
CUDA_VISIBLE_DEVICES=1 inlay work                  on the second GPU; start one worker per GPU
"""


def main(arguments: Sequence[str]) -> int:
    """Work until SIGTERM; a job in progress goes back to the queue."""
    command_parser("work", "Drafts and infills reports with the model.", EXAMPLES).parse_args(arguments)
    settings = read_settings()

    from inlay_worker.celery_app import run

    return run(settings)
