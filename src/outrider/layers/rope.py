"""Tables of cos and sin for rotary position embedding, made once from the config.

Frequencies and angles are computed in fp32 on the host, so the table has the same bits on every device.
"""

import math

import torch
from torch import Tensor, nn

from outrider.core.model_config import RopeConfig
from outrider.layers.context import LayerContext


class Rope(nn.Module):
    """The table by which query and key heads are rotated, for positions below `max_positions`."""

    cos_sin: Tensor  # [max_positions, width] fp32: cos of width / 2 angles, then sin

    def __init__(self, config: RopeConfig, width: int, max_positions: int, context: LayerContext) -> None:
        super().__init__()
        if context.device.type == "meta":
            table = torch.empty(max_positions, width, device="meta")
        else:
            table = rope_table(config, width, max_positions).to(context.device)
        self.register_buffer("cos_sin", table, persistent=False)


def rope_table(config: RopeConfig, width: int, max_positions: int) -> Tensor:
    """[max_positions, width] fp32."""
    inverse, factor = inverse_frequencies(config, width, max_positions=max_positions)
    angles = torch.arange(max_positions, dtype=torch.float32)[:, None] * inverse
    return torch.cat([angles.cos() * factor, angles.sin() * factor], dim=1)


def inverse_frequencies(config: RopeConfig, width: int, *, max_positions: int) -> tuple[Tensor, float]:
    """[width / 2] fp32 angles per position, and the factor on cos and sin.

    max_positions: positions that can occur, by which longrope chooses its factors, once for all requests.
    """
    frequencies = config.theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    inverse = 1.0 / frequencies
    if config.rope_type == "linear":
        return inverse / config.factor, 1.0
    if config.rope_type == "llama3":
        return _llama3(config, inverse), 1.0
    if config.rope_type == "yarn":
        return _yarn(config, frequencies), _yarn_attention_factor(config)
    if config.rope_type == "longrope":
        factors = config.long_factor if is_long(config, max_positions) else config.short_factor
        return 1.0 / (torch.tensor(factors) * frequencies), _longrope_attention_factor(config)
    assert config.rope_type == "default", f"rope_type={config.rope_type!r} passed the config's check"
    return inverse, 1.0


def is_long(config: RopeConfig, max_positions: int) -> bool:
    """True where longrope has its long factors: tokens at more positions than the model was first trained on.

    arXiv 2402.13753 chooses by the length of each request. The angles of its first tokens would then change while it
    grows, so its tokens would depend on how it was cut into steps.
    """
    return config.rope_type == "longrope" and max_positions > config.original_max_position_embeddings


def _longrope_attention_factor(config: RopeConfig) -> float:
    if config.attention_factor is not None:
        return config.attention_factor
    if config.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(config.factor) / math.log(config.original_max_position_embeddings))


def _llama3(config: RopeConfig, inverse: Tensor) -> Tensor:
    """Wavelengths above original / low are stretched by factor, those below original / high are kept."""
    original, low, high = config.original_max_position_embeddings, config.low_freq_factor, config.high_freq_factor
    wavelengths = 2 * math.pi / inverse
    blend = (original / wavelengths - low) / (high - low)
    between = (1 - blend) * inverse / config.factor + blend * inverse
    outer = torch.where(wavelengths > original / low, inverse / config.factor, inverse)
    is_between = (wavelengths >= original / high) & (wavelengths <= original / low)
    return torch.where(is_between, between, outer)


def _yarn(config: RopeConfig, frequencies: Tensor) -> Tensor:
    """arXiv 2309.00071: a ramp over dimensions from kept to stretched by factor."""
    width = 2 * frequencies.shape[0]

    def dimension(num_rotations: float) -> float:
        turns = config.original_max_position_embeddings / (num_rotations * 2 * math.pi)
        return width * math.log(turns) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(width // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    kept = 1 - ramp
    return 1.0 / (config.factor * frequencies) * (1 - kept) + 1.0 / frequencies * kept


def _yarn_attention_factor(config: RopeConfig) -> float:
    if config.attention_factor is not None:
        return config.attention_factor

    def growth(scale: float) -> float:
        return 1.0 if config.factor <= 1 else 0.1 * scale * math.log(config.factor) + 1.0

    if config.mscale and config.mscale_all_dim:
        return growth(config.mscale) / growth(config.mscale_all_dim) * config.attn_factor
    return growth(1.0) * config.attn_factor
