"""Makes the fixtures of the test kit known to every test, and what holds for all of them."""

import os
from pathlib import Path

from hypothesis import settings

pytest_plugins = ["inlay_testkit.plugin"]

# The same examples in every run, and no limit on the time of one: neither luck nor a busy machine decides whether a
# change is taken in. `make test ARGS=--hypothesis-profile=default` looks for new ones.
settings.load_profile("ci")

# Without a GPU, kernels run in Triton's interpreter. That must be chosen before Triton is first imported, which torch
# does when it likes.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"
