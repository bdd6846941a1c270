"""The kernels of Gated DeltaNet in a layer of Qwen3.5-9B: decode and verify rows, and chunks of prompts."""

from collections.abc import Callable

import torch

from benchmarks.timing import READ_BANDWIDTH, Table, microseconds, save
from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.kernels import load_kernels
from outrider.kernels.interface.state import CHUNK, CONV_WIDTH, StateRows

KEY_HEADS, VALUE_HEADS, SIZE, DRAFTS = 16, 32, 128, 3
LAYERS = 4
CASES = [(rows, tokens) for rows in (1, 8, 64, 256) for tokens in (1, 1 + DRAFTS)]
CASES += [(1, 512), (64, 128), (1, 8192)]

NOTES = """16 key and 32 value heads of 128, bf16, rings for 3 drafts. Decoding rows have 7 open tokens, half a chunk.
Bytes: the state once, the open tokens, and what comes in and goes out, at 4.37 TB/s; a prompt's state is written once.
Four layers in one graph, each with its own memory."""


def steps(rows: int, tokens: int) -> tuple[list[tuple[str, Callable[[], object]]], int]:
    """The three kernels of LAYERS layers, and the bytes of one layer."""
    device = torch.device("cuda")
    kernels = load_kernels(("hopper", "triton"))
    spec = DeltaState(
        num_key_heads=KEY_HEADS, num_value_heads=VALUE_HEADS, key_size=SIZE, value_size=SIZE, dtype=torch.bfloat16
    )
    caches = StateCache([spec] * LAYERS, rows + 1, num_drafts=DRAFTS, device=device)
    is_prompt = tokens > 1 + DRAFTS
    num_open = 0 if is_prompt else 7
    index = torch.arange(rows, device=device)
    starts = torch.full_like(index, 0 if is_prompt else CHUNK + num_open)
    sources = starts // CHUNK * CHUNK
    ends = starts + tokens
    at = StateRows(
        rows=index, starts=starts, counts=ends - starts, sources=sources,
        targets=ends // CHUNK * CHUNK if is_prompt else sources, known=ends, row_starts=index * tokens,
        token_row=index.repeat_interleave(tokens), row_counts=(tokens,) * rows, most_open=caches.most_open,
    )  # fmt: skip
    width = spec.num_channels + VALUE_HEADS * (SIZE + 2)
    projected = [torch.randn(rows * tokens, width, device=device).bfloat16() for _ in range(LAYERS)]
    conv = torch.randn(spec.num_channels, 1, CONV_WIDTH, device=device).bfloat16()
    a_log, dt_bias = torch.randn(2, VALUE_HEADS, device=device)
    norm = torch.ones(SIZE, device=device, dtype=torch.bfloat16)

    def inputs(i: int) -> tuple[torch.Tensor, ...]:
        return kernels.gated_delta_inputs(
            projected[i], caches[i].inputs, conv, a_log, dt_bias, at, num_key_heads=KEY_HEADS, key_size=SIZE,
            value_size=SIZE,
        )  # fmt: skip

    def rule(i: int, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        cache = caches[i]
        return kernels.gated_delta_rule(*parts, cache.state, cache.keys, cache.deltas, cache.log_decays, at)

    def finish(i: int, out: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        cache = caches[i]
        return kernels.finish_gated_delta(
            out, projected[i], parts[1], parts[3], norm, 1e-6, cache.inputs, cache.keys, cache.log_decays, at
        )

    made = [inputs(i) for i in range(LAYERS)]
    outs = [rule(i, made[i]) for i in range(LAYERS)]

    def layers() -> None:
        for i in range(LAYERS):
            parts = inputs(i)
            finish(i, rule(i, parts), parts)

    calls: list[tuple[str, Callable[[], object]]] = [
        ("inputs", lambda: [inputs(i) for i in range(LAYERS)]),
        ("rule", lambda: [rule(i, made[i]) for i in range(LAYERS)]),
        ("finish", lambda: [finish(i, outs[i], made[i]) for i in range(LAYERS)]),
        ("all three", layers),
    ]
    open_bytes = num_open * (SIZE * (KEY_HEADS * 2 + VALUE_HEADS * 4) + VALUE_HEADS * 4)
    moved = tokens * (2 * width + 4 * spec.num_channels + 3 * 2 * VALUE_HEADS * SIZE)
    return calls, rows * (spec.state_bytes // LAYERS + open_bytes + moved)


def main() -> None:
    table = Table(
        "One layer", ["rows", "tokens of each", "inputs µs", "rule µs", "finish µs", "all three µs", "bytes, µs"]
    )
    for rows, tokens in CASES:
        calls, num_bytes = steps(rows, tokens)
        times = [microseconds(call, calls=LAYERS) for _, call in calls]
        table.add(rows, tokens, *times, num_bytes / READ_BANDWIDTH * 1e6)
        del calls
        torch.cuda.empty_cache()
    save("state-kernels", "Gated DeltaNet", [table], NOTES, command="python3 -m benchmarks.kernels state_kernels")
