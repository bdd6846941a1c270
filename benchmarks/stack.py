"""A decoder stack, assembled: every layer, head and sampler of an 8B Llama shape as one graph, against its bytes.

M requests decode one token each after 640 tokens of context. The graph is the engine's own, replayed without the engine
around it. The parts are also measured alone, each in its own graph; the remainder is small kernels and gaps.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import decode
from benchmarks.step_times import CONTEXT, times_of
from benchmarks.timing import READ_BANDWIDTH, Table, microseconds, save
from outrider.attention.caches.model_caches import ModelCaches
from outrider.kernels.hopper.attention import AttentionPlan, paged_attention, plan_attention
from outrider.kernels.hopper.linear import linear

ROWS = (1, 4, 32, 256)


@torch.inference_mode()
def stack() -> Table:
    """One table; the engine is made once."""
    table = Table(
        "A decoder stack as one graph",
        ["rows", "ms", "byte limit ms", "of the limit", "linear layers ms", "attention ms", "the rest ms"],
    )
    with tempfile.TemporaryDirectory() as name:
        decode.write_configs(Path(name))
        llm = decode.make(Path(name), "none", max(ROWS))
    worker = llm.engine.worker
    state, model = worker.table, worker.model
    totals = times_of(llm, ROWS, 0)
    layers = list(model.layers)
    config = worker.model_config
    for num_rows, total in totals.items():
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
        plan = plan_attention(
            state.block_tables[0][:num_rows], lengths, row_counts=(1,) * num_rows, kv_length_bound=4096
        )
        q = torch.randn(num_rows, config.num_heads, config.head_dim, device="cuda", dtype=torch.bfloat16)

        def attend(q: torch.Tensor, plan: AttentionPlan, caches: ModelCaches) -> None:
            for cache in caches:
                paged_attention(q, cache.k, cache.v, plan, scale=config.head_dim**-0.5)

        attention = microseconds(partial(attend, q, plan, worker.caches)) / 1e3
        weight_bytes = sum(weight.numel() * 2 for weight in weights)
        kv_bytes = num_rows * CONTEXT * config.num_layers * config.num_kv_heads * config.head_dim * 4
        limit = (weight_bytes + kv_bytes) / READ_BANDWIDTH * 1e3
        table.add(num_rows, total, limit, f"{limit / total:.0%}", gemm, attention, total - gemm - attention)
    return table


def main() -> None:
    save("stack", "A decoder stack, assembled", [stack()])


if __name__ == "__main__":
    main()
