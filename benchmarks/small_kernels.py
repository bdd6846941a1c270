"""The small kernels of a decoder layer, in chains as a graph runs them, with and without overlapping launches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

from benchmarks.timing import READ_BANDWIDTH, Table, microseconds, save
from outrider.kernels.triton.activation import silu_and_mul
from outrider.kernels.triton.embedding import embedding
from outrider.kernels.triton.kv import rotary_and_write_kv, write_kv
from outrider.kernels.triton.norm import add_rms_norm, rms_norm
from outrider.kernels.triton.rope import rotary

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCAB_SIZE = 4096, 32, 8, 128, 14336, 128256
CHAIN = 24
TOKENS = (1, 4, 64, 256, 2048)

NOTES = """Shapes of Llama-3.1-8B, bf16. Each figure is one of a chain of calls in one graph, data rotated. "Bytes":
what must be read and written at 4.37 TB/s. PDL: programmatic dependent launch, by which a kernel starts before the one
ahead of it ends."""


@contextmanager
def without_overlap() -> Iterator[None]:
    run = JITFunction.run

    def run_plainly(self: JITFunction, *args: object, **options: object) -> object:
        return run(self, *args, **{**options, "launch_pdl": False})

    JITFunction.run = run_plainly
    yield
    JITFunction.run = run


def _bf16(*shape: int) -> list[Tensor]:
    return [torch.randn(shape, device="cuda").bfloat16() for _ in range(CHAIN)]


def _cases(num_tokens: int) -> Iterator[tuple[str, int, Callable[[int], object]]]:
    """Name, bytes moved, and the i-th call."""
    x, residual = _bf16(num_tokens, HIDDEN), _bf16(num_tokens, HIDDEN)
    weight = torch.ones(HIDDEN, device="cuda", dtype=torch.bfloat16)
    size = num_tokens * HIDDEN * 2
    yield "rms_norm", 2 * size, lambda i: rms_norm(x[i], weight, 1e-5)
    yield "add_rms_norm", 4 * size, lambda i: add_rms_norm(x[i], residual[i], weight, 1e-5)

    heads = _bf16(num_tokens, HEADS + 2 * KV_HEADS, HEAD_DIM)
    angles = torch.rand(8192, HEAD_DIM, device="cuda")
    positions = torch.randint(0, 8192, (num_tokens,), device="cuda")
    slots = torch.randperm(4096, device="cuda")[:num_tokens]
    caches = torch.zeros(2, 256, 16, KV_HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    head_weight = torch.ones(HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    all_heads = 2 * num_tokens * (HEADS + 2 * KV_HEADS) * HEAD_DIM * 2

    def apart(i: int) -> None:
        q, k, v = heads[i].split([HEADS, KV_HEADS, KV_HEADS], dim=1)
        rotary(q, positions, angles)
        write_kv(rotary(k, positions, angles), v, caches[0], caches[1], slots)

    yield "rotary q, rotary k, write_kv", all_heads, apart
    yield (
        "rotary_and_write_kv",
        all_heads,
        lambda i: rotary_and_write_kv(heads[i], positions, angles, *caches, slots),
    )
    yield (
        "rotary_and_write_kv, head norms",
        all_heads,
        lambda i: rotary_and_write_kv(
            heads[i], positions, angles, *caches, slots, norms=(head_weight, head_weight), eps=1e-6
        ),
    )
    gate_up = _bf16(num_tokens, 2 * MLP)
    yield "silu_and_mul", num_tokens * MLP * 6, lambda i: silu_and_mul(gate_up[i])
    table = torch.randn(VOCAB_SIZE, HIDDEN, device="cuda").bfloat16()
    ids = torch.randint(0, VOCAB_SIZE, (CHAIN, num_tokens), device="cuda")
    yield "embedding", 2 * size, lambda i: embedding(ids[i], table)


def main() -> None:
    table = Table("Small kernels", ["tokens", "kernel", "µs", "µs without PDL", "bytes, µs"])
    for num_tokens in TOKENS:
        for name, num_bytes, call in _cases(num_tokens):

            def chain(call: Callable[[int], object] = call) -> None:
                for i in range(CHAIN):
                    call(i)

            time = microseconds(chain, calls=CHAIN)
            with without_overlap():
                plain = microseconds(chain, calls=CHAIN)
            table.add(num_tokens, name, time, plain, num_bytes / READ_BANDWIDTH * 1e6)
    command = "python3 -m benchmarks.kernels small_kernels"
    save("small-kernels", "Small kernels of a layer", [table], NOTES, command=command)
