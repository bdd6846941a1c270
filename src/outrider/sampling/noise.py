"""The only source of randomness: Gumbel noise as a pure function of (seed, choice, position, target token id).

Target and drafter read the same numbers on purpose: a draft is accepted by equality, never by a ratio test.
Nothing is consumed, so nothing depends on the batch, on drafts or on how often a number is asked for.
"""

from torch import Tensor

from outrider.kernels.reference import noise as kernel


def gumbel(seeds: Tensor, choices: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Standard Gumbel noise of every token: [num_rows, vocab_size] fp32.

    seeds, choices, positions: [num_rows] int64. `seeds` is the 64-bit seed as a signed number, `choices` the index
    of the completion, `positions` the absolute position of the token that is produced (its low 32 bits count).

    Philox-4x32-10 with key = (seed low, seed high), counter = (token_id >> 2, position, choice, 0) and lane
    token_id & 3; argmax(logits / T + noise) is then a sample of softmax(logits / T) (the Gumbel-max trick).
    """
    _check(seeds, choices, positions)
    return kernel.gumbel(seeds, choices, positions, vocab_size)


def gumbel_at(seeds: Tensor, choices: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """The numbers of `gumbel` at chosen target ids, bit for bit: [num_rows, num_ids] fp32.

    token_ids: [num_ids] int64, in any order. For drafters whose vocabulary is a part of the target's.
    """
    _check(seeds, choices, positions)
    return kernel.gumbel_at(seeds, choices, positions, token_ids)


def _check(seeds: Tensor, choices: Tensor, positions: Tensor) -> None:
    assert seeds.ndim == 1 and seeds.shape == choices.shape == positions.shape, (
        f"noise is keyed per row: seeds {tuple(seeds.shape)}, choices {tuple(choices.shape)},"
        f" positions {tuple(positions.shape)}"
    )
