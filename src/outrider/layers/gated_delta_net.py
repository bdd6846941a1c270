"""Gated DeltaNet, the linear attention of Qwen3-Next and Qwen3.5: projections, a short convolution, a state per head.

Its arithmetic, and what a state is, are in `kernels/reference/gated_delta.py`.
"""

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.delta_state import DeltaState, LayerState
from outrider.core.model_config import ModelConfig
from outrider.kernels.interface.state import CONV_WIDTH
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear, empty_parameter
from outrider.layers.norm import RMSNorm


class Convolution(nn.Module):
    """The weight of a causal convolution, one filter per channel."""

    def __init__(self, num_channels: int, context: LayerContext) -> None:
        super().__init__()
        self.weight = empty_parameter(num_channels, 1, CONV_WIDTH, context=context)


class GatedDeltaNet(nn.Module):
    """One layer's linear attention."""

    def __init__(self, config: ModelConfig, context: LayerContext) -> None:
        super().__init__()
        shape = config.gated_delta
        assert shape is not None, "the config of a model with linear attention gives its widths"
        self.shape = shape
        keys, values = shape.num_key_heads * shape.key_size, shape.num_value_heads * shape.value_size
        heads = shape.num_value_heads
        pieces = (
            ("in_proj_qkv", 2 * keys + values),
            ("in_proj_z", values),
            ("in_proj_b", heads),
            ("in_proj_a", heads),
        )
        self.in_proj = Linear(
            config.hidden_size,
            sum(rows for _, rows in pieces),
            context,
            pieces=pieces,
            sensitive=("in_proj_b", "in_proj_a"),
        )
        self.conv1d = Convolution(2 * keys + values, context)
        self.A_log, self.dt_bias = (
            nn.Parameter(torch.empty(heads, dtype=torch.float32, device=context.device), requires_grad=False)
            for _ in range(2)
        )
        self.norm = RMSNorm(shape.value_size, config.norm_eps, context)
        self.out_proj = Linear(values, config.hidden_size, context)
        self._kernels, self._dtype = context.kernels, context.dtype

    @property
    def cache_spec(self) -> DeltaState:
        """Shape of this layer's state."""
        return DeltaState(
            num_key_heads=self.shape.num_key_heads,
            num_value_heads=self.shape.num_value_heads,
            key_size=self.shape.key_size,
            value_size=self.shape.value_size,
            dtype=self._dtype,
        )

    def forward(self, x: Tensor, batch: ForwardBatch, cache: LayerState, attention: StepAttention) -> Tensor:
        """x [M, H] -> [M, H]; moves the states of the batch's rows."""
        at = batch.states
        assert at is not None, "the batch does not say where its states stand"
        projected = self.in_proj(x)
        q, k, v, log_decay, beta = self._kernels.gated_delta_inputs(
            projected,
            cache.inputs,
            self.conv1d.weight,
            self.A_log,
            self.dt_bias,
            at,
            num_key_heads=self.shape.num_key_heads,
            key_size=self.shape.key_size,
            value_size=self.shape.value_size,
        )
        out = self._kernels.gated_delta_rule(
            q, k, v, log_decay, beta, cache.state, cache.keys, cache.deltas, cache.log_decays, at
        )
        gated = self._kernels.finish_gated_delta(
            out,
            projected,
            k,
            log_decay,
            self.norm.weight,
            self.norm.eps,
            cache.inputs,
            cache.keys,
            cache.log_decays,
            at,
        )
        return self.out_proj(gated)
