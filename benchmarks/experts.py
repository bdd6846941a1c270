"""A mixture of experts, against the time of reading the weights of the experts that were chosen."""

import torch
from torch import Tensor

from benchmarks.timing import Table, microseconds, save
from outrider.kernels.hopper.experts import empty_expert_weights, experts
from outrider.kernels.hopper.linear import empty_weight, linear
from outrider.kernels.triton.routing import route

# name: (experts, experts of a token, hidden, width, layers in memory)
MODELS = {"Qwen3-30B-A3B": (128, 8, 2048, 768, 8), "gpt-oss-20b": (32, 4, 2880, 2880, 6)}
TOKENS = (1, 4, 8, 16, 32, 64, 128, 256, 2048)

READ_RATE = 4.37
"""TB/s, measured pure read of this card."""


def _fill(weights: Tensor, width: int) -> Tensor:
    return weights.normal_(std=width**-0.5)


class Model:
    """Layers of random weights; at one token even the chosen experts of all layers are more than the L2 holds."""

    def __init__(self, shape: tuple[int, int, int, int, int]) -> None:
        self.num_experts, self.top_k, self.hidden, self.width, self.num_layers = shape
        make = {"dtype": torch.bfloat16, "device": torch.device("cuda")}
        self.layers = [
            (
                _fill(empty_weight(self.num_experts, self.hidden, **make), self.hidden),
                _fill(empty_expert_weights(self.num_experts, 2 * self.width, self.hidden, **make), self.hidden),
                _fill(empty_expert_weights(self.num_experts, self.hidden, self.width, **make), self.width),
            )
            for _ in range(self.num_layers)
        ]

    def measure(self, num_tokens: int, *, is_skewed: bool) -> tuple[float, float, float, float, float]:
        """Distinct experts of a layer, bytes of them, µs of a layer: all, without the router's GEMM, experts only."""
        x = torch.randn(num_tokens, self.hidden, device="cuda").to(torch.bfloat16)
        if is_skewed:
            x = x[:1].repeat(num_tokens, 1)
        logits = [linear(x, router, out_dtype=torch.float32) for router, _, _ in self.layers]
        routings = [route(row, top_k=self.top_k, is_normalized=True) for row in logits]
        distinct = sum(routing.ids.unique().numel() for routing in routings) / self.num_layers
        num_bytes = distinct * 3 * self.hidden * self.width * 2

        def whole() -> None:
            for router, gate_up, down in self.layers:
                routing = route(linear(x, router, out_dtype=torch.float32), top_k=self.top_k, is_normalized=True)
                experts(x, gate_up, down, routing)

        def routed() -> None:
            for row, (_, gate_up, down) in zip(logits, self.layers, strict=True):
                experts(x, gate_up, down, route(row, top_k=self.top_k, is_normalized=True))

        def alone() -> None:
            for routing, (_, gate_up, down) in zip(routings, self.layers, strict=True):
                experts(x, gate_up, down, routing)

        times = [microseconds(run, calls=self.num_layers) for run in (whole, routed, alone)]
        return distinct, num_bytes, times[0], times[1], times[2]


def main() -> None:
    table = Table(
        "One layer's experts",
        [
            "model",
            "tokens",
            "routing",
            "distinct experts",
            "MB",
            "floor µs",
            "experts µs",
            "+ routing µs",
            "+ router GEMM µs",
            "experts: % of read rate",
            "all: % of read rate",
            "TFLOP/s of experts",
        ],
    )
    for name, shape in MODELS.items():
        model = Model(shape)
        for num_tokens in TOKENS:
            for is_skewed in (False, True) if num_tokens in (8, 64) else (False,):
                distinct, num_bytes, whole, routed, alone = model.measure(num_tokens, is_skewed=is_skewed)
                floor = num_bytes / READ_RATE / 1e6
                operations = 6 * num_tokens * model.top_k * model.hidden * model.width
                table.add(
                    name,
                    num_tokens,
                    "all alike" if is_skewed else "random",
                    distinct,
                    num_bytes / 1e6,
                    floor,
                    alone,
                    routed,
                    whole,
                    f"{100 * floor / alone:.0f}",
                    f"{100 * floor / whole:.0f}",
                    operations / alone / 1e6,
                )
    notes = (
        f"Floor: the bytes of the distinct experts at {READ_RATE} TB/s. Experts: gathering of rows (more than 8 "
        "tokens), both GEMMs and the weighted sum; routing: choice, weights and lists of work. All layers in one graph."
    )
    save("experts", "Mixture of experts with the same bits for every batch", [table], notes)
