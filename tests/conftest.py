"""Makes the fixtures of the test kit known to every test."""

import os
from pathlib import Path

pytest_plugins = ["inlay_testkit.plugin"]

# Without a GPU, kernels run in Triton's interpreter. That must be chosen before Triton is first imported, which torch
# does when it likes.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"
