"""The portable kernel stack, in plain Triton: for GPUs of any kind that Triton compiles for.

`hopper` takes everything from it that needs no instruction of Hopper's own.
"""

DEVICE = "cuda"
"""The kind of device that its functions run on."""

NEEDS_GPU: dict[str, str] = {}
"""Functions that Triton's interpreter cannot run on a CPU, with the reason."""
