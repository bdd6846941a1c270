"""Heads on the hidden states of a model that pools: vectors in, numbers of labels out, in fp32.

They are products of rows, so a row's numbers depend on that row alone. What a vector is (a token's, a mean) and what
happens to the numbers afterwards is not known here.
"""

import torch
from torch import Tensor, nn

from outrider.core.pooler_config import REWARD_HEAD, PoolerConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear
from outrider.layers.weight_format import find_format


class Score(Linear):
    """One linear layer: a number for each label. Quantised checkpoints leave it plain."""

    def __init__(self, input_size: int, output_size: int, context: LayerContext, *, bias: bool) -> None:
        super().__init__(input_size, output_size, context, bias=bias, weight_format=find_format("plain"))

    def forward(self, x: Tensor, *, out_dtype: torch.dtype | None = torch.float32) -> Tensor:
        """x [M, input_size] -> [M, output_size] fp32."""
        return super().forward(x.to(self._context.dtype), out_dtype=out_dtype)


class Reward(nn.Module):
    """Two linear layers with biases and a ReLU between them, `0` and `2` in the checkpoint."""

    def __init__(self, hidden_size: int, num_labels: int, context: LayerContext) -> None:
        super().__init__()
        self.add_module("0", Score(hidden_size, hidden_size, context, bias=True))
        self.add_module("2", Score(hidden_size, num_labels, context, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        """x [M, hidden_size] -> [M, num_labels] fp32."""
        first, second = self.children()
        scored: Tensor = second(torch.relu(first(x)))
        return scored


def build_score(pooler: PoolerConfig, hidden_size: int, context: LayerContext) -> nn.Module:
    """The module `score` of a pooler whose head is "score" or "reward"."""
    num_labels = len(pooler.labels)
    if pooler.head == REWARD_HEAD:
        return Reward(hidden_size, num_labels, context)
    return Score(hidden_size, num_labels, context, bias=pooler.head_bias)


def answer_rows(lm_head: Linear, pooler: PoolerConfig, context: LayerContext) -> Tensor | None:
    """Rows of a filled `lm_head` for the tokens that mean no and yes, [2, hidden_size]; None if it is quantised."""
    assert pooler.answer_token_ids is not None, "the head has no tokens for no and yes"
    if lm_head.storage:
        return None
    weight = lm_head.weight
    rows = context.kernels.empty_weight(2, weight.shape[1], dtype=weight.dtype, device=weight.device)
    for row, token_id in enumerate(pooler.answer_token_ids):
        rows[row] = weight[token_id]
    return rows


def answer_logits(
    x: Tensor, rows: Tensor | None, *, lm_head: Linear, pooler: PoolerConfig, context: LayerContext
) -> Tensor:
    """x [M, hidden_size] -> [M, 1] fp32: the logit of yes minus that of no. `rows`: as `answer_rows` returns them."""
    assert pooler.answer_token_ids is not None, "the head has no tokens for no and yes"
    if rows is None:
        no, yes = (lm_head(x)[:, token_id] for token_id in pooler.answer_token_ids)
    else:
        no, yes = context.kernels.linear(x, rows, out_dtype=torch.float32).unbind(1)
    return (yes - no).unsqueeze(1)
