"""Compiles the kernels for a Hopper GPU (compute capability 9.0) at the 26B shape, without a GPU.

`python -m inlay_testkit.hopper` prints one JSON line per kernel: shared memory, spilled bytes, matrix instructions.
Triton's interpreter must be off, so it runs as a process of its own.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

# Never touched: the operating system gives no memory to what is only addressed.
_EMPTY = torch.empty


def main() -> int:
    """Launch every kernel with its real shapes; each launch is compiled and reported instead of run."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    class Device:
        """What the compiler asks of a driver."""

        launcher_cls = utils = None

        def get_current_target(self) -> Any:
            """Hopper."""
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            """The first."""
            return 0

        def get_current_stream(self, *_: Any) -> int:
            """The default one."""
            return 0

        def map_python_to_cpp_type(self, _: Any) -> str:
            """Asked for, not used."""
            return "void"

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

    def compiled(self: Any, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            made = self.run(*arguments, grid=grid, warmup=True, **options)
            made = made.result() if hasattr(made, "result") else made
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(made.asm["cubin"])
                file.flush()
                said = subprocess.run(
                    [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
                ).stdout
            stack = re.search(r"STACK:(\d+)", said)
            report = {
                "kernel": self.__name__,
                "shared": made.metadata.shared,
                "stack": int(stack[1]) if stack else None,
                "wgmma": made.asm["ptx"].count("wgmma.mma_async"),
            }
            print(json.dumps(report), flush=True)

        return launch

    driver.set_active(Device())
    JITFunction.__getitem__ = compiled
    _launch_all()
    return 0


def _launch_all() -> None:
    from inlay_model.accelerator.fused import Fused, Tuning
    from inlay_model.accelerator.packing import Experts
    from inlay_model.accelerator.reference import Heads, Joint, Room

    def wide(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return _EMPTY(shape, dtype=dtype)

    kernels, number, byte = Fused(), torch.float32, torch.uint8
    x_TH, norm = wide(256, 2816), wide(2816)
    kernels.rms_norm(x_TH, norm, 1e-6)
    kernels.add_norm(x_TH, x_TH, 1e-6)
    kernels.gate(wide(256, 4224))
    kernels.after_attention(x_TH, x_TH, (norm, norm, norm), norm, 1e-6)
    joint = Joint(norm, norm, norm, wide(1), norm)
    kernels.combine(wide(2048, 2816), wide(256, 8, dtype=number), x_TH, x_TH, joint, 1e-6)
    lengths, slots = wide(1, dtype=torch.int32), wide(256, dtype=torch.int32)
    for width, kv_heads, own, columns in ((256, 8, True, 32), (512, 2, False, 18)):
        heads = Heads(wide(width), wide(width), 16, kv_heads, width, own)
        room = Room(wide(1, kv_heads, 768, width), wide(1, kv_heads, 768, width), 512)
        turn = (wide(256, width), wide(256, width))
        q_TAW = kernels.heads(wide(256, columns * width), heads, turn, slots, room, 1e-6)
        kernels.attend(q_TAW, room, lengths)
        kernels.attend(q_TAW, room, lengths, slots)
        many = Room(wide(8, kv_heads, 768, width), wide(8, kv_heads, 768, width), 512)
        kernels.attend(wide(2048, 16, width), many, wide(8, dtype=torch.int32))
    numbers, flags = wide(256, dtype=number), wide(256, dtype=byte)
    drawn = kernels.draw(wide(256, 262_144), numbers, numbers, 30.0, wide(262_144, dtype=byte), flags)
    kernels.weighed(wide(16, 256, 2816, dtype=number), drawn)
    kernels.route(wide(256, 128), wide(128), 8)
    little = Fused(Tuning(rest={(16, 128): 32, (8, 64): 16, (4, 64): 16}))
    for these, tokens in ((kernels, 256), (kernels, 1024), (kernels, 2048), (little, 2048)):
        chosen, rows = wide(tokens, 8, dtype=torch.int32), wide(tokens, 2816)
        one = wide(1, dtype=number)
        these.experts(rows, chosen, Experts(wide(128, 1408, 2816), wide(128, 2816, 704), one, one, 16))
        eight = [wide(*shape, dtype=torch.float8_e4m3fn) for shape in ((128, 1408, 2816), (128, 2816, 704))]
        scales = wide(128, 1408, dtype=number), wide(128, 2816, dtype=number)
        these.experts(rows, chosen, Experts(eight[0], eight[1], *scales, 8))
        four = [wide(*shape, dtype=byte) for shape in ((128, 1408, 1408), (128, 2816, 352))]
        these.experts(rows, chosen, Experts(four[0], four[1], wide(128, 1408, 88), wide(128, 2816, 22), 4))


if __name__ == "__main__":
    sys.exit(main())
