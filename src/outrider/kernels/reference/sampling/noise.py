"""Counter-based Gumbel noise in plain PyTorch: Philox-4x32-10 in int64 arithmetic, then two logarithms.

The only source of randomness: a pure function of (seed, completion index, position, target token id). Target and
drafter read the same numbers on purpose: a draft is accepted by equality, never by a ratio test. No generator state
advances, so a number does not depend on the batch, on drafts or on how often it is read. Knows nothing of requests.

The words are those of Random123 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) and of Triton: `tl.philox(seed, token_id >> 2, position, completion_index, 0)` returns the same four words, of
which `token_id & 3` is the one of this token.
"""

import torch
from torch import Tensor

from outrider.kernels.philox import philox

_WORD = 0xFFFFFFFF

_BELOW_ONE = 1.0 - 2.0**-24
"""The largest fp32 under 1."""


def gumbel_of_bits(bits: Tensor) -> Tensor:
    """Standard Gumbel numbers, fp32, of random words (int64 in [0, 2^32)), any shape.

    g = -log(-log1p(-v)) with v = (bits + 1/2) 2^-32, clamped below 1. Large g comes from v near 0, where fp32 is
    fine-grained: the largest number is 22.9, the smallest -2.9.
    """
    uniform = ((bits.to(torch.float32) + 0.5) * 2.0**-32).clamp(max=_BELOW_ONE)
    return -torch.log(-torch.log1p(-uniform))


def gumbel(seeds: Tensor, completion_indices: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Standard Gumbel noise of every token: [num_rows, vocab_size] fp32.

    seeds, completion_indices, positions: [num_rows] int64. `seeds` is the 64-bit seed as a signed number,
    `completion_indices` the index among the completions of a prompt, `positions` the absolute
    position of the token that is produced (its low 32 bits count).
    argmax(logits / T + noise) is then a sample of softmax(logits / T) (the Gumbel-max trick).
    """
    _check(seeds, completion_indices, positions)
    groups = torch.arange((vocab_size + 3) // 4, device=seeds.device).unsqueeze(0)
    words = _words(seeds, completion_indices, positions, groups)
    return gumbel_of_bits(torch.stack(words, dim=-1).flatten(1))[:, :vocab_size]


def gumbel_at(seeds: Tensor, completion_indices: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """[num_rows, num_ids] fp32: the numbers `gumbel` gives at `token_ids` (int64 [num_ids]), bit for bit."""
    _check(seeds, completion_indices, positions)
    token_ids = token_ids.unsqueeze(0)
    words = torch.stack(_words(seeds, completion_indices, positions, token_ids >> 2), dim=-1)
    lanes = (token_ids & 3).unsqueeze(-1).expand(words.shape[0], -1, 1)
    return gumbel_of_bits(words.gather(-1, lanes).squeeze(-1))


def _check(seeds: Tensor, completion_indices: Tensor, positions: Tensor) -> None:
    assert seeds.ndim == 1 and seeds.shape == completion_indices.shape == positions.shape, (
        f"noise is keyed per row: seeds {tuple(seeds.shape)}, completion_indices {tuple(completion_indices.shape)},"
        f" positions {tuple(positions.shape)}"
    )


def _words(
    seeds: Tensor, completion_indices: Tensor, positions: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words, each [num_rows, num_groups] int64, for groups [1, num_groups] of four token ids."""
    seeds, completion_indices, positions = seeds.unsqueeze(1), completion_indices.unsqueeze(1), positions.unsqueeze(1)
    counter = (groups, positions & _WORD, completion_indices & _WORD, torch.zeros_like(completion_indices))
    return philox(counter, (seeds & _WORD, (seeds >> 32) & _WORD))
