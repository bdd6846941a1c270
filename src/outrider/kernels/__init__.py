"""The kernels: their interface, and stacks that implement it.

A stack is a folder beside this file: `reference` in plain PyTorch, `triton` for GPUs of any kind, `hopper`
for NVIDIA's Hopper. A platform names the stacks it takes functions from, in order; `load_kernels` joins them.
"""

from outrider.kernels.interface import ENCODER_FUNCTIONS, FUNCTIONS, OPTIONAL_FUNCTIONS, Kernels
from outrider.kernels.stacks import describe_stacks, kernels_of_texts, load_kernels, stack_names

__all__ = [
    "ENCODER_FUNCTIONS",
    "FUNCTIONS",
    "OPTIONAL_FUNCTIONS",
    "Kernels",
    "describe_stacks",
    "kernels_of_texts",
    "load_kernels",
    "stack_names",
]
