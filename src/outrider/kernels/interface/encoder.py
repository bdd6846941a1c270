"""Kernels of bidirectional encoders: passes over whole texts, of which nothing is kept. A stack may lack all of them;
encoders are refused on its platform then.

Legend: M tokens of all texts one after another, K input width, N output width, H heads, D head dim, I width of an MLP.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from outrider.kernels.interface.cache import DeviceCounts


class EncoderKernels(Protocol):
    """Kernels of the layers of encoders. Row-invariant: a token's result depends on its own text alone."""

    def text_linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
        whole_shape: tuple[int, int] | None = None,
    ) -> Tensor:
        """`linear` for many rows: the order of summation may be another one, and is the same in every pass."""

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """x [M, K], weight and bias [K] -> [M, K] = (x - mean) / sqrt(variance + eps) × weight + bias."""

    def gelu(self, x: Tensor) -> Tensor:
        """x [M, I] -> [M, I] = x × Φ(x), with the exact distribution function."""

    def gelu_and_mul(self, gate_up: Tensor) -> Tensor:
        """gate_up [M, 2I], gate columns first -> [M, I] = gelu(gate) × up."""

    def plan_texts(self, kv_lengths: Tensor, row_counts: tuple[int, ...] | DeviceCounts) -> Any:
        """The plan of a pass for `text_attention` of the same stack; it is shared by all layers.

        kv_lengths [M] int64: place of a token in its text, from 1; 0 for padding, which follows the tokens of a row.
        row_counts: tokens of each row, padding included. Every row is a whole text.
        """

    def text_attention(
        self, q: Tensor, k: Tensor, v: Tensor, plan: Any, *, scale: float, window: int | None = None
    ) -> Tensor:
        """q [M, H, D], k and v [M, G, D], H a multiple of G -> [M, H, D]: each token sees all tokens of its text.

        window: it sees this many, an odd number, with itself in the middle. Outputs of padding are 0.
        """
