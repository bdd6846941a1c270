"""Kernels of latent attention, and the router that comes with it. A stack may lack any of them: models that need them
are then refused by name.

Keys and values of a token are products of one row [rank + rope_size] with a matrix of each head. The kernels work on
rows: the matrices are applied to queries before, and to the result after (`project_heads`), so the cache holds rows
alone, and a token's result comes from the same products whether its step is a prompt, a chunk or a draft.

Legend: M tokens, H heads, R rank of the latent part, S width of the rotated part, E experts.
"""

from typing import Literal, Protocol

from torch import Tensor

from outrider.kernels.interface.cache import AttentionPlan
from outrider.kernels.interface.model import Routing


class LatentKernels(Protocol):
    """Kernels on rows [R + S] of a cache [num_blocks, block_size, R + S]."""

    def project_heads(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [M, H, K], weight [H, N, K] in any layout -> [M, H, N], one product for each head, in x's dtype."""

    def rotary_and_write_latent(
        self,
        q: Tensor,
        latent: Tensor,
        norm: Tensor,
        positions: Tensor,
        cos_sin: Tensor,
        cache: Tensor,
        slots: Tensor,
        *,
        eps: float,
        is_interleaved: bool,
    ) -> Tensor:
        """q [M, H, S], latent [M, R + S] -> rotated q [M, H, S]; the row of each token goes to the cache.

        norm [R]        weight of an RMSNorm of the latent part; the rest of the row is rotated
        is_interleaved  pairs (2i, 2i + 1) of q and of the row are rotated; they become elements i and S / 2 + i
        """

    def latent_attention(
        self, q: Tensor, cache: Tensor, plan: AttentionPlan, *, rank: int, scale: float, kv_start: int = 0
    ) -> Tensor:
        """q [M, H, R + S] -> [M, H, R]: the softmax over q · row, of the latent parts of the rows.

        Token t sees rows [kv_start, length); one that sees nothing gives zeros. The plan is that of `plan_attention`.
        Slots that no token sees may hold anything, NaN included.
        """


class GroupedRouterKernels(Protocol):
    """The router of experts in groups."""

    def route_grouped(
        self,
        logits: Tensor,
        bias: Tensor | None = None,
        *,
        top_k: int,
        scoring: Literal["sigmoid", "softmax"],
        num_groups: int,
        num_chosen_groups: int,
        is_normalized: bool,
        scale: float,
    ) -> Routing:
        """logits [M, E] fp32, bias [E] fp32 -> the top_k experts of each token, as `experts` of the same stack takes.

        An expert's score is the sigmoid of its logit, or the softmax; the bias is added for the choice alone. A group
        is worth the sum of its two best experts with sigmoid, its best expert with softmax. Experts are chosen by
        (score descending, expert ascending) in the best groups, by (worth descending, group ascending). Weights are
        scores, divided by (their sum + 1e-20) if normalized, times `scale`.
        """
