"""Chunk sizes of a hybrid's state: error of the chunk form against the recurrence in fp64, and bytes.

    PYTHONPATH=src:. python -m benchmarks.gated_delta

Uses no model: inputs are random, with decays from immediate to very slow forgetting.
"""

import torch
from torch import Tensor

from outrider.kernels.reference.gated_delta import solve_chunk

NUM_TOKENS = 2048
KEY_HEADS, VALUE_HEADS, SIZE = 2, 4, 128


def recurrent(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, token by token, in the dtype of its arguments: [T, Vh, dv], and the last state."""
    group = v.shape[1] // k.shape[1]
    q, k = q.repeat_interleave(group, dim=1), k.repeat_interleave(group, dim=1)
    state = v.new_zeros(v.shape[1], k.shape[2], v.shape[2])
    outs = []
    for t in range(v.shape[0]):
        state = state * log_decay[t].exp()[:, None, None]
        delta = beta[t][:, None] * (v[t] - torch.einsum("hkv,hk->hv", state, k[t]))
        state = state + k[t][:, :, None] * delta[:, None, :]
        outs.append(torch.einsum("hkv,hk->hv", state, q[t]))
    return torch.stack(outs), state


def chunked(inputs: tuple[Tensor, ...], size: int, *, stored: torch.dtype) -> Tensor:
    """The chunk form in fp32; solved rows and the state pass through `stored` between chunks."""
    parts = [part.view(1, -1, size, *part.shape[1:]) for part in inputs]
    state = inputs[2].new_zeros(1, VALUE_HEADS, SIZE, SIZE)
    outs = []
    for i in range(NUM_TOKENS // size):
        q, k, v, log_decay, beta = (part[:, i] for part in parts)
        chunk = solve_chunk(q, k, v, log_decay, beta, state, torch.zeros_like(v), v.new_zeros(v.shape[:2]).bool())
        state = chunk.state.to(stored).float()
        outs.append(chunk.out[0])
    return torch.cat(outs)


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative RMS."""
    return float((found.double() - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt())


def inputs_of(decay: float, correlation: float) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    common = random(1, KEY_HEADS, SIZE)
    k = unit(random(NUM_TOKENS, KEY_HEADS, SIZE) * (1 - correlation) + common * correlation)
    q = unit(random(NUM_TOKENS, KEY_HEADS, SIZE)) * SIZE**-0.5
    v = random(NUM_TOKENS, VALUE_HEADS, SIZE)
    log_decay = -decay * torch.rand(NUM_TOKENS, VALUE_HEADS, generator=generator)
    return q, k, v, log_decay, torch.rand(NUM_TOKENS, VALUE_HEADS, generator=generator)


def main() -> None:
    torch.set_num_threads(1)
    print("| decay up to | keys alike | fp32 recurrence | C = 16 | C = 32 | C = 64 | C = 16, state in bf16 |")
    print("|---|---|---|---|---|---|---|")
    for decay, correlation in ((0.001, 0.0), (0.1, 0.0), (3.0, 0.0), (0.001, 0.9), (0.1, 0.9)):
        inputs = inputs_of(decay, correlation)
        wanted, _ = recurrent(*(part.double() for part in inputs))
        errors = [error(recurrent(*inputs)[0], wanted)]
        errors += [error(chunked(inputs, size, stored=torch.float32), wanted) for size in (16, 32, 64)]
        errors.append(error(chunked(inputs, 16, stored=torch.bfloat16), wanted))
        print(f"| {decay} | {correlation} | " + " | ".join(f"{value:.1e}" for value in errors) + " |")
    print("\nbytes a value head moves for one token of decoding (dk = dv = 128, state fp32, open rows fp32 and bf16):")
    state = 4 * SIZE * SIZE
    print(f"  recurrent: {2 * state} (state read and written)")
    for size in (16, 32, 64):
        rows = (size - 1) / 2 * (4 * SIZE + 2 * SIZE)
        print(f"  C = {size}: {state + rows + state / size:.0f} (state read, half a chunk of rows, state written once)")


if __name__ == "__main__":
    main()
