"""The linear layers of a model in one graph, ours against cuBLAS."""

from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import Table, microseconds, save
from outrider.kernels.hopper.linear import empty_weight, linear

# name: (layers, {layer: (N, K)}, (N, K) of the head)
MODELS = {
    "Llama-3.1-8B": (
        32,
        {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)},
        (128256, 4096),
    ),
    "Qwen3-0.6B": (
        28,
        {"qkv": (4096, 1024), "o": (1024, 2048), "gate_up": (6144, 1024), "down": (1024, 3072)},
        (151936, 1024),
    ),
    "Qwen3-30B-A3B, attention only": (48, {"qkv": (5120, 2048), "o": (2048, 4096)}, (151936, 2048)),
}
TOKENS = (1, 4, 8, 16, 32, 64, 128, 256, 2048, 8192)


def _weights(count: int, shape: tuple[int, int]) -> list[Tensor]:
    weights = [empty_weight(*shape, dtype=torch.bfloat16, device=torch.device("cuda")) for _ in range(count)]
    return [weight.uniform_(-0.03, 0.03) for weight in weights]


def _ours(inputs: dict[int, Tensor], weights: list[Tensor]) -> None:
    for weight in weights:
        linear(inputs[weight.shape[1]], weight)


def _cublas(inputs: dict[int, Tensor], weights: list[Tensor]) -> None:
    for weight in weights:
        torch.mm(inputs[weight.shape[1]], weight.t())


def models() -> Table:
    """All layers of a model in one graph; the head is left out of prefill."""
    table = Table(
        "All linear layers of a model in one graph",
        ["model", "tokens", "ours ms", "cuBLAS ms", "ours / cuBLAS", "TB/s of weights", "TFLOP/s"],
    )
    for name, (num_layers, shapes, head_shape) in MODELS.items():
        weights = {layer: _weights(num_layers, shape) for layer, shape in shapes.items()}
        head = _weights(1, head_shape)
        for num_tokens in TOKENS:
            widths = {k for _, k in shapes.values()} | {head_shape[1]}
            inputs = {k: torch.randn(num_tokens, k, device="cuda").to(torch.bfloat16) for k in widths}
            sequence = [weights[layer][i] for i in range(num_layers) for layer in shapes]
            sequence += head if num_tokens <= 256 else []

            replays = 15 if num_tokens <= 256 else 5
            theirs = microseconds(partial(_cublas, inputs, sequence), replays=replays)
            mine = microseconds(partial(_ours, inputs, sequence), replays=replays)
            theirs = min(theirs, microseconds(partial(_cublas, inputs, sequence), replays=replays))
            elements = sum(weight.numel() for weight in sequence)
            table.add(
                name,
                num_tokens,
                mine / 1e3,
                theirs / 1e3,
                f"{mine / theirs:.3f}",
                2 * elements / mine / 1e6,
                2 * elements * num_tokens / mine / 1e6,
            )
        weights, head, sequence = {}, [], []
    return table


def layers() -> Table:
    """Each layer of the large model alone, weights rotated through more than the L2 holds."""
    table = Table(
        "Layer by layer, Llama-3.1-8B", ["layer", "N", "K", "tokens", "ours µs", "cuBLAS µs", "ours / cuBLAS"]
    )
    _, shapes, head_shape = MODELS["Llama-3.1-8B"]
    for layer, shape in [*shapes.items(), ("head", head_shape)]:
        weights = _weights(2 if layer == "head" else 8, shape)
        for num_tokens in TOKENS:
            if layer == "head" and num_tokens > 256:
                continue
            inputs = {shape[1]: torch.randn(num_tokens, shape[1], device="cuda").to(torch.bfloat16)}
            theirs = microseconds(partial(_cublas, inputs, weights), calls=len(weights))
            mine = microseconds(partial(_ours, inputs, weights), calls=len(weights))
            table.add(layer, *shape, num_tokens, mine, theirs, f"{mine / theirs:.3f}")
    return table


def main() -> None:
    save("gemm", "GEMM with the same bits for every batch", [models(), layers()])
