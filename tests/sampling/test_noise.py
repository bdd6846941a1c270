"""Noise: known answers, an independent Philox, and statistical independence of everything in the key."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from outrider.kernels.philox import philox
from outrider.kernels.reference.sampling.noise import gumbel, gumbel_at, gumbel_of_bits

WORD = 0xFFFFFFFF

KNOWN_ANSWERS = [  # kat_vectors of Random123, philox4x32 10: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[Tensor]:
    return [torch.tensor([int(word, 16)]) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    result = philox(tuple(words(counter)), tuple(words(key)))
    assert " ".join(f"{int(word):08x}" for word in result) == expected


def slow_bits(seed: int, completion_index: int, position: int, token_id: int) -> int:
    """Philox-4x32-10 in Python integers."""
    word = [token_id >> 2, position & WORD, completion_index & WORD, 0]
    key = [seed & WORD, (seed >> 32) & WORD]
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * word[0], 1 << 32)
        high_1, low_1 = divmod(0xCD9E8D57 * word[2], 1 << 32)
        word = [high_1 ^ word[1] ^ key[0], low_1, high_0 ^ word[3] ^ key[1], low_0]
        key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
    return word[token_id & 3]


def test_gumbel_is_philox_keyed_by_seed_choice_position_and_token() -> None:
    seeds = torch.tensor([0, 1, -1, -(2**63), 2**63 - 1, 0x123456789ABCDEF])
    completion_indices = torch.tensor([0, 1, 0, 7, 2**31, 3])
    positions = torch.tensor([0, 5, 2**32 - 1, 131071, 9, 2**32 + 9])
    noise = gumbel(seeds, completion_indices, positions, 21)
    assert noise.shape == (6, 21) and noise.dtype == torch.float32
    for row in range(6):
        for token_id in range(21):
            bits = slow_bits(int(seeds[row]), int(completion_indices[row]), int(positions[row]), token_id)
            value = -math.log(-math.log1p(-(bits + 0.5) * 2.0**-32))
            assert float(noise[row, token_id]) == pytest.approx(value, rel=2e-6, abs=2e-6)


def test_extreme_words_give_finite_noise_with_a_long_upper_tail() -> None:
    bits = torch.tensor([0, 1, 2, 2**24 - 1, 2**31, 2**32 - 512, 2**32 - 2, 2**32 - 1])
    noise = gumbel_of_bits(bits)
    assert torch.isfinite(noise).all()
    assert float(noise[0]) == pytest.approx(33 * math.log(2), rel=1e-6)
    assert (noise.diff() <= 0).all() and (noise[:3].diff() < 0).all(), "smaller words give larger noise"
    assert float(noise[-1]) == pytest.approx(-math.log(24 * math.log(2)), rel=1e-5)


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 4, 5, 63, 1000])
def test_vocab_size_cuts_the_noise_and_changes_nothing(vocab_size: int) -> None:
    seeds, zeros = torch.arange(3), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(gumbel(seeds, zeros, seeds, vocab_size), gumbel(seeds, zeros, seeds, 1003)[:, :vocab_size])


def test_no_rows_give_no_noise() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert gumbel(none, none, none, 10).shape == (0, 10)
    assert gumbel_at(none, none, none, torch.arange(3)).shape == (0, 3)


def test_noise_at_chosen_ids_is_the_noise_of_those_ids() -> None:
    generator = torch.Generator().manual_seed(3)
    seeds = torch.randint(-(2**62), 2**62, (17,), generator=generator)
    completion_indices = torch.randint(0, 3, (17,), generator=generator)
    positions = torch.randint(0, 2**33, (17,), generator=generator)
    full = gumbel(seeds, completion_indices, positions, 4099)
    for size in (1, 2, 15, 700, 4099):
        token_ids = torch.randperm(4099, generator=generator)[:size]
        token_ids[size // 2] = token_ids[0]  # in any order, repeats allowed
        assert torch.equal(gumbel_at(seeds, completion_indices, positions, token_ids), full[:, token_ids])


def test_a_row_of_noise_does_not_know_its_batch() -> None:
    seeds, positions = torch.arange(70) * 0x9E3779B97F4A7, torch.arange(70) % 5
    completion_indices = torch.zeros_like(seeds)
    full = gumbel(seeds, completion_indices, positions, 1003)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(4))
    assert torch.equal(gumbel(seeds[order], completion_indices, positions[order], 1003), full[order])
    for row in range(70):
        one = slice(row, row + 1)
        assert torch.equal(gumbel(seeds[one], completion_indices[one], positions[one], 1003), full[one])


SIDE = 320
"""The noise under test is a [SIDE, SIDE] grid; its neighbours differ in one part of the key."""


def grid(*, seed: Tensor | int = 7, completion_index: Tensor | int = 0, position: Tensor | int = 11) -> Tensor:
    parts = (torch.as_tensor(part).expand(SIDE) for part in (seed, completion_index, position))
    return gumbel(*parts, SIDE)


COUNT = torch.arange(SIDE)
NEIGHBOURS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "positions": lambda: (grid(position=COUNT), grid(position=COUNT + 1)),
    "far positions": lambda: (grid(position=COUNT), grid(position=COUNT + 65536)),
    "seeds": lambda: (grid(seed=COUNT), grid(seed=COUNT + 1)),
    "high words of seeds": lambda: (grid(seed=COUNT), grid(seed=COUNT + 2**32)),
    "signs of seeds": lambda: (grid(seed=COUNT + 1), grid(seed=-COUNT - 1)),
    "completion indices": lambda: (grid(position=COUNT), grid(position=COUNT, completion_index=1)),
    "seed and position": lambda: (grid(seed=COUNT), grid(position=COUNT)),
    "completion index and position": lambda: (grid(completion_index=COUNT), grid(position=COUNT)),
    "token ids": lambda: (grid(position=COUNT)[:, :-1], grid(position=COUNT)[:, 1:]),
    "groups of four ids": lambda: (grid(position=COUNT)[:, :-4], grid(position=COUNT)[:, 4:]),
    "ids and positions": lambda: (grid(position=COUNT)[:-1, 1:], grid(position=COUNT)[1:, :-1]),
}


def to_uniform(noise: Tensor) -> Tensor:
    return torch.exp(-torch.exp(-noise.double()))


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_noise_is_independent_over(name: str, chi_square_limit: Callable[[int], float]) -> None:
    left, right = (to_uniform(noise).flatten() for noise in NEIGHBOURS[name]())
    size = left.numel()
    for power in (1, 2):
        correlation = torch.corrcoef(torch.stack([left**power, right**power]))[0, 1]
        assert abs(float(correlation)) < 4.5 / math.sqrt(size)
    bins = 16
    cells = torch.bincount(((left * bins).long() * bins + (right * bins).long()).clamp(max=bins**2 - 1))
    assert chi_square(cells, torch.full((bins**2,), size / bins**2)) < chi_square_limit(bins**2 - 1)


def test_the_independence_check_can_fail(chi_square_limit: Callable[[int], float]) -> None:
    left = to_uniform(grid(position=COUNT)).flatten()
    cells = torch.bincount((left * 16).long() * 16 + (left * 16).long(), minlength=256)
    assert chi_square(cells, torch.full((256,), left.numel() / 256)) > 10 * chi_square_limit(255)


def test_noise_has_the_gumbel_distribution(chi_square_limit: Callable[[int], float]) -> None:
    for noise in (grid(position=COUNT), grid(seed=COUNT), grid(seed=COUNT << 32)):
        counts = torch.histc(to_uniform(noise), bins=200, min=0.0, max=1.0)
        assert chi_square(counts, torch.full((200,), noise.numel() / 200)) < chi_square_limit(199)
    tail = (grid(position=COUNT).flatten() > 8.0).sum()  # mean 34
    assert 10 < int(tail) < 64
