"""The interface of a trainable drafter, and the attention that all of its draft steps share.

`eagle3.py` and `mtp.py` are the two drafters. Nothing here knows how the texts were made.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Head(Protocol):
    """A drafter that reads the target's features, as training and measuring use it."""

    @property
    def draft_ids(self) -> Tensor:
        """[draft_vocab_size] the target id of each draft id."""
        ...

    def unroll(self, features: Tensor, ids: Tensor, embedding: Tensor, *, num_steps: int) -> list[Tensor]:
        """Logits [rows, length, draft_vocab_size] of each draft step, with the true tokens as earlier drafts.

        Row j of step i stands for the draft of token j + 2 + i, made when token j + 1 was the newest.
        features [rows, length, the target's width of features]; ids [rows, length]; the last i + 1 rows of step i
        are void.
        """
        ...


def attend_unrolled(q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Row j of the newest draft step sees the true rows up to j, and row j of each draft step since.

    q, and one entry of keys and values per step, the true rows first: [rows, num_heads, length, head_dim].
    """
    if len(keys) == 1:
        return functional.scaled_dot_product_attention(q, keys[0], values[0], is_causal=True)
    length, scale = q.shape[2], q.shape[3] ** -0.5
    hidden_above = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    true_rows = (q @ keys[0].mT * scale).float().masked_fill(hidden_above, -torch.inf)
    own_rows = torch.stack([(q.float() * own.float()).sum(-1) * scale for own in keys[1:]], dim=-1)
    weights = torch.cat((true_rows, own_rows), dim=-1).softmax(dim=-1).to(values[0].dtype)
    mixed = weights[..., :length] @ values[0]
    for index, own in enumerate(values[1:]):
        mixed = mixed + weights[..., length + index, None] * own
    return mixed
