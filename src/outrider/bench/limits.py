"""How far a decoding step is from the time that its bytes need: weights once, and the KV cache of every request.

Of a mixture's experts those count that would be chosen if every token chose evenly; how many are, depends on the text.
The bytes are counted from the engine, the bandwidth is what was measured on a device, or what the caller says.
"""

from dataclasses import dataclass

from torch import nn

from outrider.engine.engine import Engine
from outrider.layers.moe import MoE

READ_BANDWIDTH = {"NVIDIA H200": 4.37e12}
"""Bytes a second that a kernel which only reads has reached, by the device's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One decoding step against the read bandwidth."""

    bytes_per_step: int
    bandwidth: float | None
    """Bytes a second; None where it is not known."""
    share: float | None
    """Time that the bytes need over the time that the step took."""
    note: str


def measure_limit(
    engine: Engine, *, num_requests: int, mean_length: float, step_seconds: float, read_bandwidth: float | None
) -> Limit:
    """`mean_length`: tokens in the cache of a request, on average; `read_bandwidth` in bytes a second, or None."""
    num_bytes = bytes_per_step(engine, num_requests=num_requests, mean_length=mean_length)
    device = engine.worker.platform.summary
    bandwidth = read_bandwidth
    note = "read bandwidth as given"
    if bandwidth is None:
        known = [name for name in READ_BANDWIDTH if device.startswith(name)]
        bandwidth = READ_BANDWIDTH[known[0]] if known else None
        note = f"measured on {known[0]}" if known else f"the read bandwidth of {device} is not known: --read-bandwidth"
    share = num_bytes / bandwidth / step_seconds if bandwidth is not None else None
    return Limit(bytes_per_step=num_bytes, bandwidth=bandwidth, share=share, note=note)


def bytes_per_step(engine: Engine, *, num_requests: int, mean_length: float) -> int:
    """Bytes that one decoding step has to read: the target's weights, the drafter's passes, all KV and states once."""
    worker = engine.worker
    model = worker._step.model
    config = worker.config
    kv_bytes = worker.kv_spec.bytes_per_block / config.block_size
    num_bytes = weight_bytes(
        model, without=() if model.lm_head.weight is model.embed_tokens.weight else ("embed_tokens",)
    )
    for module in model.modules():
        if isinstance(module, MoE):
            chance = module.config.num_experts_per_tok / module.config.num_experts
            share_unread = (1 - chance) ** (num_requests * (1 + config.num_speculative_tokens))
            num_bytes -= round(weight_bytes(module.experts) * share_unread)
    if worker.drafter is not None:
        num_bytes += worker.drafter.bytes_per_step
        kv_bytes += worker.drafter.bytes_per_block / config.block_size * config.num_speculative_tokens
    if worker.state_spec is not None:
        num_bytes += num_requests * worker.state_spec.state_bytes
    return num_bytes + round(num_requests * mean_length * kv_bytes)


def weight_bytes(module: nn.Module, *, without: tuple[str, ...] = ()) -> int:
    """Bytes of all weights whose name starts with none of `without`; a shared one counts once."""
    return sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in module.named_parameters()
        if not name.startswith(without or ("\0",))
    )
