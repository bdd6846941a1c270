"""Compiles the portable stack for a GPU without having one, and says what each kernel needs of it.

A program, not a test file: `python -O ahead_of_time.py cuda:80` runs the conformance checks with a driver that only
compiles; -O leaves the checks' assertions out, because the results are whatever memory holds. The last line is JSON:
for each kernel the most shared memory and the most registers spilled, and what failed, by function.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

SHARED_BYTES = {
    "cuda:80": 163 << 10, "cuda:86": 99 << 10, "cuda:89": 99 << 10, "cuda:90": 227 << 10, "cuda:100": 227 << 10,
    "cuda:120": 99 << 10, "hip:gfx90a": 64 << 10, "hip:gfx942": 64 << 10,
}  # fmt: skip
"""Shared memory of one program, by kind of GPU."""


class _Driver:
    """A driver of the target without a device."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def target_of(name: str) -> GPUTarget:
    backend, _, arch = name.partition(":")
    return GPUTarget("cuda", int(arch), 32) if backend == "cuda" else GPUTarget("hip", arch, 64)


def spilled(kernel: Any) -> int:
    """Bytes of local memory of a thread on NVIDIA's GPUs, registers spilled on AMD's."""
    if "amdgcn" in kernel.asm:
        lines = kernel.asm["amdgcn"].splitlines()
        return sum(int(line.split(":")[1]) for line in lines if ".vgpr_spill_count" in line)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        told = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return max(int(part.split(":")[1]) for part in told.split() if part.startswith(("STACK:", "LOCAL:")))


def decode_long_contexts(kernels: Any) -> None:
    """Attention of one token of each of four requests, whose KV is split over programs."""
    for num_heads, num_kv_heads, head_dim in ((32, 8, 128), (16, 4, 64), (8, 2, 256)):
        plan = kernels.plan_attention(
            torch.zeros(4, 256, dtype=torch.int32),
            torch.full((4,), 3000),
            row_counts=(1, 1, 1, 1),
            kv_length_bound=4096,
        )
        cache = torch.zeros(8, 16, num_kv_heads, head_dim, dtype=torch.bfloat16)
        q = torch.zeros(4, num_heads, head_dim, dtype=torch.bfloat16)
        kernels.paged_attention(q, cache, cache, plan, scale=head_dim**-0.5)


def main(name: str) -> dict[str, Any]:
    driver.set_active(_Driver(target_of(name)))
    from outrider.kernels.triton import launch

    launch.num_sms = lambda device: 64
    launch.shared_bytes = lambda device: SHARED_BYTES[name]
    if name.startswith("hip"):
        launch.INSTRUCTION = {"matrix_instr_nonkdim": 16}
    from outrider.kernels import load_kernels
    from outrider.kernels.stacks import exports
    from tests.kernels.conformance import CHECKS
    from tests.kernels.subject import Subject

    found: dict[str, dict[str, int]] = {}
    seen: set[int] = set()
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, **options: Any) -> Any:
        kernel = run(self, *args, **options | {"warmup": True})
        if id(kernel) not in seen:
            seen.add(id(kernel))
            needs = found.setdefault(self.fn.__qualname__, {"shared": 0, "spilled": 0, "forms": 0})
            needs["shared"] = max(needs["shared"], kernel.metadata.shared)
            needs["spilled"] = max(needs["spilled"], spilled(kernel))
            needs["forms"] += 1
        return kernel

    JITFunction.run = compile_only
    torch.empty, torch.empty_like = torch.zeros, torch.zeros_like  # what no kernel wrote is an index that exists

    class Compiled(Subject):
        """Compares nothing."""

        def close(self, name: str, ours: Tensor, exact: Tensor, *, dtype: torch.dtype | None = None) -> None:
            """Nothing."""

        def same(self, name: str, ours: Tensor, expected: Tensor) -> None:
            """Nothing."""

    failed = {}
    extra = {"paged_attention": decode_long_contexts}
    kernels = load_kernels(("triton", "reference"))
    own = exports("triton")
    for function in own:
        if len(sys.argv) > 2 and function not in sys.argv[2:]:
            continue
        try:
            CHECKS[function](Compiled(kernels, dtype=torch.bfloat16))
            extra.get(function, lambda kernels: None)(kernels)
        except AssertionError:
            continue  # of torch.testing, about results
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            failed[function] = f"{type(cause).__name__}: {cause}"[-600:]
    return {"kernels": found, "failed": failed}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main(sys.argv[1])))
