"""A row gives the same bits alone, in any crowd, in any order, with any work listed, on one thread or two.

And a row with drafts gives the bits of plain decoding after these drafts were committed.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from outrider.kernels.reference.row_sum import row_sum
from outrider.kernels.reference.sampling import choose as choosing
from outrider.kernels.reference.sampling import logits_processors
from outrider.sampling.params import SamplingTable
from outrider.sampling.sampler import SampleBatch, Sampled, Sampler

NUM_DRAFTS = 3


def to_bits(sampled: Sampled) -> Tensor:
    """Everything a sample gives: [num_samples, number of values] int64, floats as their bits."""

    def bits(values: Tensor | None) -> Tensor:
        assert values is not None
        values = values.contiguous().view(torch.int32) if values.is_floating_point() else values
        return values.to(torch.int64).view(sampled.token_ids.shape[0], -1)

    fields = (sampled.token_ids, sampled.logprobs, sampled.ranks, sampled.top_ids, sampled.top_logprobs)
    fields += (sampled.given_logprobs, sampled.given_ranks)
    return torch.cat([bits(field) for field in (*fields, sampled.logits_hashes)], dim=1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def crowds(samples: Sequence[tuple[int, int]], sizes: Sequence[int], seed: int) -> Iterator[list[tuple[int, int]]]:
    """Cuts of shuffled samples into batches of the given sizes, in turn, until every sample was in one."""
    rng = random.Random(seed)
    left = rng.sample(list(samples), len(samples))
    for size in itertools.cycle(sizes):
        if not left:
            return
        yield left[:size]
        left = left[size:]


@pytest.mark.parametrize(("vocab_size", "num_requests"), [(517, 22), (1024, 8)])
def test_a_sample_has_the_same_bits_in_every_batch(
    vocab_size: int, num_requests: int, make_crowd, make_batch, make_table
) -> None:
    cases = make_crowd(num_requests, vocab_size=vocab_size, num_drafts=NUM_DRAFTS, seed=vocab_size)
    table = make_table(cases, vocab_size=vocab_size)
    samples = list(itertools.product(range(len(cases)), range(NUM_DRAFTS + 1)))
    sampler = Sampler()
    expected = dict(zip(samples, to_bits(sampler(*make_batch(cases, samples), table)), strict=True))

    for num_threads, sizes in ((1, [1]), (2, [1]), (1, range(1, 70)), (2, [70, 3, 16])):
        with threads(num_threads):
            for number, crowd in enumerate(crowds(samples, sizes, seed=num_threads)):
                sampled = sampler(*make_batch(cases, crowd, lists_all=number % 3 == 2), table)
                assert torch.equal(to_bits(sampled), torch.stack([expected[sample] for sample in crowd]))


@pytest.mark.slow
def test_a_long_row_has_the_same_bits_in_every_batch(make_crowd, make_batch, make_table) -> None:
    vocab_size = 40_001  # above the size at which PyTorch splits one row over threads
    cases = make_crowd(6, vocab_size=vocab_size, num_drafts=0, seed=8)
    table = make_table(cases, vocab_size=vocab_size)
    samples = [(case, 0) for case in range(6)]
    with threads(2):
        expected = to_bits(Sampler()(*make_batch(cases, samples), table))
        for case in range(6):
            alone = to_bits(Sampler()(*make_batch(cases, [(case, 0)]), table))
            assert torch.equal(alone[0], expected[case])
    with threads(1):
        assert torch.equal(to_bits(Sampler()(*make_batch(cases, samples[::-1]), table)), expected.flip(0))


def test_the_number_of_top_logprobs_changes_nothing_else(make_crowd, make_batch, make_table) -> None:
    cases = make_crowd(16, vocab_size=301, num_drafts=0, seed=4)
    table = make_table(cases, vocab_size=301)
    samples = [(case, 0) for case in range(16)]
    most = Sampler()(*make_batch(cases, samples, num_logprobs=20), table)
    for count in (0, 1, 7, 19):
        fewer = Sampler()(*make_batch(cases, samples, num_logprobs=count), table)
        assert torch.equal(fewer.top_ids, most.top_ids[:, :count])
        assert torch.equal(fewer.top_logprobs, most.top_logprobs[:, :count])
        assert torch.equal(fewer.token_ids, most.token_ids) and torch.equal(fewer.ranks, most.ranks)


def plain_decoding(cases, table: SamplingTable, make_batch) -> Tensor:
    """Sample, commit the draft, sample again: [num_cases, k + 1, values]."""
    rows = torch.arange(len(cases))
    drafts = torch.tensor([case.drafts for case in cases])
    steps = []
    for offset in range(NUM_DRAFTS + 1):
        logits, batch = make_batch(cases, [(case, offset) for case in range(len(cases))])
        fields = {name: getattr(batch, name) for name in SampleBatch.__slots__}
        fields["offsets"] = torch.zeros_like(rows)
        fields["drafts"] = torch.zeros(len(cases), 0, dtype=torch.int64)
        for row, case in enumerate(cases):  # the drafts before are known tokens now
            fields["token_ids"][row, case.length : case.length + offset] = drafts[row, :offset]
        steps.append(to_bits(Sampler()(logits, SampleBatch(**fields), table)))
        if offset < NUM_DRAFTS:
            table.count(rows, drafts[:, offset : offset + 1], torch.ones_like(rows))
    return torch.stack(steps, dim=1)


def verified(cases, table: SamplingTable, make_batch) -> Tensor:
    """All rows of all requests in one call: [num_cases, k + 1, values]."""
    samples = list(itertools.product(range(len(cases)), range(NUM_DRAFTS + 1)))
    return to_bits(Sampler()(*make_batch(cases, samples), table)).view(len(cases), NUM_DRAFTS + 1, -1)


def test_a_row_with_drafts_equals_plain_decoding_after_them(make_crowd, make_batch, make_table) -> None:
    cases = make_crowd(160, vocab_size=61, num_drafts=NUM_DRAFTS, seed=21)
    one, other = (make_table(cases, vocab_size=61) for _ in range(2))
    assert torch.equal(verified(cases, one, make_batch), plain_decoding(cases, other, make_batch))
    assert torch.equal(one.output_counts, make_table(cases, vocab_size=61).output_counts), "drafts are not committed"


def test_drafts_beyond_the_offset_are_not_read(make_crowd, make_batch, make_table) -> None:
    cases = make_crowd(60, vocab_size=61, num_drafts=NUM_DRAFTS, seed=22)
    table = make_table(cases, vocab_size=61)
    samples = [(case, case % (NUM_DRAFTS + 1)) for case in range(60)]
    logits, batch = make_batch(cases, samples)
    fields = {name: getattr(batch, name) for name in SampleBatch.__slots__}
    is_read = torch.arange(NUM_DRAFTS) < batch.offsets[:, None]
    fields["drafts"] = torch.where(is_read, batch.drafts, 60 - batch.drafts)
    other = SampleBatch(**fields)
    assert torch.equal(to_bits(Sampler()(logits, batch, table)), to_bits(Sampler()(logits, other, table)))


def test_noise_keyed_by_batch_row_would_be_seen(make_crowd, make_batch, make_table, monkeypatch) -> None:
    cases = make_crowd(20, vocab_size=61, num_drafts=0, seed=23)
    table = make_table(cases, vocab_size=61)
    samples = [(case, 0) for case in range(20)]
    right = choosing.gumbel
    monkeypatch.setattr(
        choosing,
        "gumbel",
        lambda seeds, completion_indices, positions, size: right(seeds * 0, completion_indices, positions, size),
    )
    together = Sampler()(*make_batch(cases, samples), table).token_ids
    monkeypatch.setattr(
        choosing,
        "gumbel",
        lambda seeds, completion_indices, positions, size: right(seeds * 0, torch.arange(len(seeds)), positions, size),
    )
    by_row = Sampler()(*make_batch(cases, samples), table).token_ids
    backwards = Sampler()(*make_batch(cases, samples[::-1]), table).token_ids
    assert not torch.equal(by_row, together)
    assert not torch.equal(by_row, backwards.flip(0))


def test_penalties_blind_to_drafts_would_be_seen(make_crowd, make_batch, make_table, monkeypatch) -> None:
    cases = make_crowd(60, vocab_size=61, num_drafts=NUM_DRAFTS, seed=24)
    one, other = (make_table(cases, vocab_size=61) for _ in range(2))
    expected = plain_decoding(cases, other, make_batch)
    monkeypatch.setattr(logits_processors, "count_drafts", lambda counts, drafts, offsets: counts)
    assert not torch.equal(verified(cases, one, make_batch), expected)


def test_a_row_sum_has_the_same_bits_in_every_batch() -> None:
    values = torch.rand(8, 70_001, generator=torch.Generator().manual_seed(31))
    expected = row_sum(values)
    for num_threads in (1, 2):
        with threads(num_threads):
            assert torch.equal(row_sum(values.flip(0)), expected.flip(0))
            assert torch.equal(torch.cat([row_sum(row[None]) for row in values]), expected)
            assert torch.equal(row_sum(values[3:5, :]), expected[3:5])
