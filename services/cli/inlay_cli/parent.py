"""Ends this process when the one that started it is gone, even by SIGKILL: no orphan keeps a port or a GPU."""

import ctypes
import os
import signal
import sys

# prctl(2): "set the parent-death signal of the calling process".
PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM at the parent's death; exits at once if it is dead already. Linux only, else no-op."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)
