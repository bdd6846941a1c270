"""Gated DeltaNet's Triton kernels in the interpreter: beside plain PyTorch, and a token's bits over steps of any kind.

A program, not a test file: the interpreter is chosen by an environment variable before Triton is imported.
`test_interpreter_gated_delta.py` runs it.
"""

import random

import torch

from outrider.kernels import load_kernels
from tests.kernels import gated_delta_steps as steps
from tests.kernels.gated_delta_steps import Layer, Table, drive
from tests.kernels.ordered_products import use_ordered_products

HEADS = {"num_key_heads": 1, "num_value_heads": 2, "key_size": 16, "value_size": 32}
steps.NUM_ROWS = NUM_ROWS = 2
steps.LENGTH = LENGTH = 29


def wholes(stack: str) -> tuple[Layer, list[Table], list[torch.Tensor]]:
    """Each row's tokens in one step, alone."""
    layer = Layer(1, load_kernels((stack,)), heads=HEADS)
    tables = [Table(layer) for _ in range(NUM_ROWS)]
    outs = [table.step([(row, layer.projected[row, :LENGTH], 0)])[0] for row, table in enumerate(tables)]
    return layer, tables, outs


def main() -> None:
    _, wanted_tables, wanted = wholes("reference")
    layer, tables, outs = wholes("triton")
    for row in range(NUM_ROWS):
        torch.testing.assert_close(outs[row], wanted[row], rtol=2e-4, atol=2e-4)
        found, table = tables[row], wanted_tables[row]
        torch.testing.assert_close(found.cache.state[row], table.cache.state[row], rtol=1e-4, atol=1e-5)
        assert torch.equal(found.lengths, table.lengths) and torch.equal(found.known, table.known)
    accepted: set[int] = set()
    drive(layer, outs, random.Random(3), 3, accepted)
    assert len(accepted) > 1


use_ordered_products()
main()
print("all equal")
