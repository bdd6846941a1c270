"""The hash of a row of logits: any change shows, the batch does not."""

import pytest
import torch

from outrider.core.digest import fold
from outrider.kernels.reference.sampling.row_hash import hash_rows

MASK = (1 << 64) - 1


def slow_hash(bits: list[int]) -> int:
    def mix(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
        return word ^ (word >> 31)

    total = sum(mix((word | (column << 32)) ^ 0x9E3779B97F4A7C15) for column, word in enumerate(bits))
    return mix((total + len(bits)) & MASK)


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9)) * 5


def test_hash_is_that_of_plain_integers() -> None:
    rows = logits(5, 77)
    rows[0, :4] = torch.tensor([0.0, -0.0, float("inf"), float("nan")])
    for row, value in zip(rows, hash_rows(rows), strict=True):
        bits = [word & 0xFFFFFFFF for word in row.view(torch.int32).tolist()]
        assert int(value) & MASK == slow_hash(bits)


def test_every_single_bit_changes_the_hash() -> None:
    row = logits(1, 97)
    flips = (torch.ones(32, dtype=torch.int64) << torch.arange(32)).to(torch.int32)
    changed = row.view(torch.int32).repeat(97 * 32, 1)
    places = torch.arange(97).repeat_interleave(32)
    changed[torch.arange(97 * 32), places] ^= flips.repeat(97)
    hashes = hash_rows(torch.cat([row.view(torch.int32), changed]).view(torch.float32))
    assert hashes.unique().numel() == 97 * 32 + 1


def test_every_swap_of_columns_changes_the_hash() -> None:
    row = logits(1, 60)
    left, right = torch.triu_indices(60, 60, offset=1)
    swapped = row.repeat(left.numel(), 1)
    number = torch.arange(left.numel())
    swapped[number, left], swapped[number, right] = row[0, right], row[0, left]
    assert hash_rows(torch.cat([row, swapped])).unique().numel() == left.numel() + 1


def test_small_opposite_changes_do_not_cancel() -> None:
    row = logits(1, 64)
    hashes = [hash_rows(row)]
    for step in range(1, 30):
        bits = row.view(torch.int32).clone()
        bits[0, step] += 1
        bits[0, step + 1] -= 2
        bits[0, step + 2] += 1
        hashes.append(hash_rows(bits.view(torch.float32)))
    assert torch.cat(hashes).unique().numel() == 30


def test_zeros_of_both_signs_nan_payloads_and_widths_differ() -> None:
    words = torch.tensor([[0], [-(2**31)], [0x7FC00000], [0x7FC00001], [-0x400000]], dtype=torch.int32)
    assert hash_rows(words.view(torch.float32)).unique().numel() == 5
    assert int(hash_rows(torch.zeros(1, 3))) != int(hash_rows(torch.zeros(1, 4)))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_hash_does_not_know_its_batch(num_threads: int) -> None:
    rows = logits(70, 3001)
    expected = hash_rows(rows)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for row in range(70):
            assert torch.equal(hash_rows(rows[row : row + 1]), expected[row : row + 1])
        assert torch.equal(hash_rows(rows.flip(0)), expected.flip(0))
    finally:
        torch.set_num_threads(before)


def test_hash_reads_strided_rows() -> None:
    rows = logits(6, 50)
    assert torch.equal(hash_rows(rows[::2, 5:40]), hash_rows(rows[::2, 5:40].clone()))


def test_the_digest_of_a_request_depends_on_the_order_of_its_rows() -> None:
    first, second = (int(value) for value in hash_rows(logits(2, 8)))
    assert fold(fold(0, first), second) != fold(fold(0, second), first)
    assert fold(0, first) != fold(0, second)
    assert fold(fold(0, first), first) != fold(0, first)
