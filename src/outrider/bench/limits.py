"""The memory-bandwidth limit of a decoding step: time to read all weights once and the KV cache of every request.

For a mixture of experts, the expected number of distinct experts under uniform routing counts; the real number depends
on the text. Bytes are counted from the engine; the bandwidth is measured per device or given by the caller.
"""

from dataclasses import dataclass

from torch import nn

from outrider.attention.caches.model_caches import ModelCaches
from outrider.engine.engine import Engine
from outrider.layers.grouped_moe import GroupedMoE
from outrider.layers.moe import MoE

READ_BANDWIDTH = {"NVIDIA H200": 4.37e12}
"""Device name to the bytes per second that a read-only kernel reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One decoding step compared with the read bandwidth."""

    bytes_per_step: int
    bandwidth: float | None
    """Bytes per second; None if unknown."""
    share: float | None
    """Time needed to read the bytes divided by the time of the step; None if the bandwidth is unknown."""
    note: str


def measure_limit(
    engine: Engine, *, num_requests: int, mean_length: float, step_seconds: float, read_bandwidth: float | None
) -> Limit:
    """`mean_length`: mean cached tokens per request; `read_bandwidth`: bytes per second, None to look it up."""
    num_bytes = bytes_per_step(engine, num_requests=num_requests, mean_length=mean_length)
    device = engine.worker.platform.summary
    bandwidth = read_bandwidth
    note = "limit from --read-bandwidth"
    if bandwidth is None:
        known = [name for name in READ_BANDWIDTH if device.startswith(name)]
        bandwidth = READ_BANDWIDTH[known[0]] if known else None
        note = (
            f"limit as measured on {known[0]}"
            if known
            else f"the read bandwidth of {device} is unknown: give --read-bandwidth for the share of the limit"
        )
    share = num_bytes / bandwidth / step_seconds if bandwidth is not None else None
    return Limit(bytes_per_step=num_bytes, bandwidth=bandwidth, share=share, note=note)


def bytes_per_step(engine: Engine, *, num_requests: int, mean_length: float) -> int:
    """Bytes that one decoding step must read: target weights, the drafter's passes, and all KV and states once."""
    worker = engine.worker
    model = worker.model
    config = worker.config
    kv_bytes = _kv_bytes(worker.caches, mean_length)
    num_bytes = weight_bytes(
        model, without=() if model.lm_head.weight is model.embed_tokens.weight else ("embed_tokens",)
    )
    for module in model.modules():
        if isinstance(module, (MoE, GroupedMoE)):
            chance = module.config.num_experts_per_tok / module.config.num_experts
            share_unread = (1 - chance) ** (num_requests * (1 + config.num_speculative_tokens))
            num_bytes -= round(weight_bytes(module.experts) * share_unread)
    if worker.drafter is not None:
        num_bytes += worker.drafter.bytes_per_step
        boundary = worker.drafter.extra_bytes_per_block / config.block_size * mean_length
        kv_bytes += (_kv_bytes(worker.drafter.caches, mean_length) + boundary) * config.num_speculative_tokens
    if worker.states is not None:
        num_bytes += num_requests * sum(spec.state_bytes for spec in worker.states.specs)
    return num_bytes + round(num_requests * kv_bytes)


def _kv_bytes(caches: ModelCaches, length: float) -> float:
    """Bytes that a token after `length` others reads in all layers: no more than the window of each."""
    total = 0.0
    for spec in caches.paged:
        num_tokens = length if spec.window is None else min(length, spec.window)
        total += spec.bytes_per_block(1) * num_tokens
    return total


def weight_bytes(module: nn.Module, *, without: tuple[str, ...] = ()) -> int:
    """Bytes of all weights except those whose name starts with a prefix in `without`; shared weights count once."""
    return sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in module.named_parameters()
        if not name.startswith(without or ("\0",))
    )
