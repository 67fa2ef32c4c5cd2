import json
import os
import platform
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")

# What one program may have of a Hopper multiprocessor's shared memory.
_SHARED = 227 * 1024
# Bytes a thread may spill: attention over wide heads of many canvases is fastest with a few registers too many.
_SPILLED = {"attend_kernel": 128}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's tools are there for x86-64")
def test_every_kernel_compiles_for_the_target_gpu_at_the_26b_shape() -> None:
    """Within its shared memory, hardly anything spilled, and the expert matmuls on Hopper's own matrix instructions."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "inlay_testkit.hopper"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    names = {report["kernel"] for report in reports}
    assert len(names) == 15, names
    for report in reports:
        assert report["shared"] <= _SHARED, report
        assert report["stack"] <= _SPILLED.get(report["kernel"], 0), report
        if report["kernel"] in {"experts_up_kernel", "experts_down_kernel"}:
            assert report["wgmma"] > 0, report
