"""A decoder stack, assembled: every layer, head and sampler of an 8B Llama shape as one graph, against its bytes.

M requests decode one token each behind 640 tokens of context. The graph is the engine's own; it is replayed without the
engine around it. Beside it the parts alone, each in a graph of its own: what is left are the small kernels and gaps.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
from benchmarks import decode
from benchmarks.timing import Table, microseconds, save

from outrider.attention.kv import KVCache
from outrider.device.graphs import Shape
from outrider.kernels.attention import AttentionPlan, paged_attention, plan_attention
from outrider.kernels.linear import linear
from outrider.sampling.params import Need

ROWS = (1, 4, 32, 256)
CONTEXT = 640


@torch.inference_mode()
def stack() -> Table:
    """One table; the engine is made once."""
    table = Table(
        "A decoder stack as one graph",
        ["rows", "ms", "byte limit ms", "of the limit", "linear layers ms", "attention ms", "the rest ms"],
    )
    with tempfile.TemporaryDirectory() as name:
        decode.write_configs(Path(name))
        worker = decode.make(Path(name), "none", max(ROWS)).engine.worker
    state, graphs, model = worker._table, worker._graphs, worker._step.model
    assert graphs is not None
    layers = list(model.layers)
    config = worker.model_config
    per_row = -(-4096 // 16)
    first = torch.arange(max(ROWS), device="cuda").unsqueeze(1) * per_row % (worker.num_blocks - per_row) + 1
    state.block_tables[: max(ROWS)] = (first + torch.arange(per_row, device="cuda")).int()
    for num_rows in ROWS:
        captured = graphs._get(Shape(num_rows, 4096, Need.NOTHING, 0, 0))
        captured.inputs[0] = torch.arange(num_rows, device="cuda")
        captured.inputs[1] = 0

        def reset() -> None:
            state.num_tokens[: max(ROWS)] = CONTEXT
            state.num_computed[: max(ROWS)] = CONTEXT - 1
            state.max_total[: max(ROWS)] = 4096

        times = []
        for _ in range(25):
            reset()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            captured.graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        total = sorted(times)[len(times) // 2]

        weights = [
            weight
            for layer in layers
            for weight in (
                layer.self_attn.qkv_proj.weight,
                layer.self_attn.o_proj.weight,
                layer.mlp.gate_up_proj.weight,
                layer.mlp.down_proj.weight,
            )
        ] + [model.lm_head.weight]
        inputs = {
            width: torch.randn(num_rows, width, device="cuda", dtype=torch.bfloat16)
            for width in {weight.shape[1] for weight in weights}
        }

        def products(inputs: dict[int, torch.Tensor], weights: list[torch.Tensor]) -> None:
            for weight in weights:
                linear(inputs[weight.shape[1]], weight)

        gemm = microseconds(partial(products, inputs, weights)) / 1e3
        lengths = torch.full((num_rows,), CONTEXT, device="cuda")
        plan = plan_attention(state.block_tables[:num_rows], lengths, row_counts=(1,) * num_rows, kv_length_bound=4096)
        q = torch.randn(num_rows, config.num_heads, config.head_dim, device="cuda", dtype=torch.bfloat16)

        def attend(q: torch.Tensor, plan: AttentionPlan, caches: KVCache) -> None:
            for cache in caches:
                paged_attention(q, cache.k, cache.v, plan, scale=config.head_dim**-0.5)

        attention = microseconds(partial(attend, q, plan, worker._step.caches)) / 1e3
        weight_bytes = sum(weight.numel() * 2 for weight in weights)
        kv_bytes = num_rows * CONTEXT * config.num_layers * config.num_kv_heads * config.head_dim * 4
        limit = (weight_bytes + kv_bytes) / decode.READ_BANDWIDTH * 1e3
        table.add(num_rows, total, limit, f"{limit / total:.0%}", gemm, attention, total - gemm - attention)
    return table


def main() -> None:
    save("stack", "A decoder stack, assembled", [stack()])


if __name__ == "__main__":
    main()
