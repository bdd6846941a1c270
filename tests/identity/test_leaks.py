"""Leaks put in on purpose, one at a time: each must turn the suite red. A suite that cannot fail proves nothing.

The truth is made before the leak is put in, from the plain engine. Leaks test the suite, not the engine, so they run in
`make test-all`.
"""

from dataclasses import replace

import pytest
import torch

from outrider import SamplingParams
from outrider.attention.backends.oracle import Backend
from outrider.device.assemble import Assembler
from outrider.device.table import RequestTable
from outrider.kernels.reference.sampling import choose as choosing
from outrider.kernels.reference.sampling import logits_processors, logprobs
from outrider.layers.linear import Linear
from outrider.sampling.params import SamplingTable
from outrider.scheduler.prefix import PrefixCache
from outrider.scheduler.request_state import RequestState
from tests.support import request_mix


def found(target, speculative, cases, truth, *, warm: bool = False, **options) -> list[str]:
    """Differences in a mix of requests with real acceptance, in chunks, overlapped."""
    config = speculative["replay"] | {"num_speculative_tokens": 3}
    llm = request_mix.make(
        target, speculative_config=config, **{"max_num_batched_tokens": 41, "max_num_seqs": 16} | options
    )
    outputs = request_mix.run(llm, cases)
    if warm:
        outputs = request_mix.run(llm, cases)
    return request_mix.mismatches(cases, outputs, truth)


def test_without_a_leak_nothing_differs(target, speculative, cases, truth):
    assert found(target, speculative, cases, truth, warm=True) == []


@pytest.mark.slow
def test_a_stock_gemm(target, speculative, cases, monkeypatch):
    """Alone it sees one row at a time, in a crowd many: the library sums them in another order."""

    def forward(self, x, *, out_dtype=None):
        return torch.nn.functional.linear(x, self.weight, self.bias)

    monkeypatch.setattr(Linear, "forward", forward)
    some = cases[1:5]
    answers = request_mix.truth(target, some)
    assert found(target, speculative, some, answers)


@pytest.mark.slow
def test_noise_keyed_by_batch_row(target, speculative, cases, truth, monkeypatch):
    original = choosing.gumbel

    def gumbel(seeds, completion_indices, positions, vocab_size):
        return original(torch.arange(len(seeds)), completion_indices, positions, vocab_size)

    monkeypatch.setattr(choosing, "gumbel", gumbel)
    wrong = found(target, speculative, cases, truth)
    assert any("temperature 1" in line for line in wrong)
    assert not any(line.startswith("greedy") for line in wrong)


@pytest.mark.slow
def test_an_unconfirmed_block_is_published(target, monkeypatch):
    """A block is published with its last token known but not computed; the request ends there, another goes on."""
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    first = request_mix.Case("ends on a block", tuple(range(3, 27)), params)  # 24 + 40 = four blocks
    (answer,) = request_mix.truth(target, [first])
    second = request_mix.Case("goes on behind it", first.prompt + answer.token_ids + (9,), params)
    expected = request_mix.truth(target, [second])

    def outcome_of_second() -> list[str]:
        llm = request_mix.make(target)
        request_mix.run(llm, [first])
        return request_mix.mismatches([second], request_mix.run(llm, [second]), expected)

    assert outcome_of_second() == []
    original = PrefixCache.publish

    def publish(self, request):
        computed, request.num_computed_tokens = request.num_computed_tokens, request.num_tokens
        original(self, request)
        request.num_computed_tokens = computed

    monkeypatch.setattr(PrefixCache, "publish", publish)
    assert outcome_of_second() != []


@pytest.mark.slow
def test_penalties_blind_to_drafts(target, speculative, cases, truth, monkeypatch):
    monkeypatch.setattr(logits_processors, "count_drafts", lambda counts, drafts, offsets: counts)
    wrong = found(target, speculative, cases, truth)
    assert any("penalties" in line for line in wrong)
    assert not any("top-k" in line for line in wrong)


@pytest.mark.slow
def test_bad_words_blind_to_drafts(target, speculative, cases, truth, monkeypatch):
    original = logits_processors.output_tails

    def output_tails(token_ids, drafts, *, offsets, lengths, num_prompt_tokens, width):
        return original(
            token_ids, drafts, offsets=offsets * 0, lengths=lengths - offsets, num_prompt_tokens=num_prompt_tokens,
            width=width,
        )  # fmt: skip

    monkeypatch.setattr(logits_processors, "output_tails", output_tails)
    wrong = found(target, speculative, cases, truth)
    assert wrong and all(line.startswith("bad words") for line in wrong)


@pytest.mark.slow
def test_completions_that_share_their_noise(target, speculative, cases, truth, monkeypatch):
    original = SamplingTable.begin
    monkeypatch.setattr(SamplingTable, "begin", lambda self, entry: original(self, replace(entry, completion_index=0)))
    wrong = found(target, speculative, cases, truth)
    assert wrong and all(line.startswith("two of one prompt") for line in wrong)


@pytest.mark.slow
def test_prompt_logprobs_behind_a_prefix_hit(target, speculative, cases, truth, monkeypatch):
    """Tokens of cached blocks are not scored."""
    monkeypatch.setattr(RequestState, "num_unscored_tokens", property(lambda self: 0))
    wrong = found(target, speculative, cases, truth, warm=True)
    assert wrong and all(line.startswith(("prompt logprobs", "two of one prompt")) for line in wrong)


@pytest.mark.slow
def test_attention_that_depends_on_the_chunk(target, speculative, cases, truth, monkeypatch):
    """Rows of several tokens add their tiles in another order, as a split by query length would."""
    original = Backend.attend

    def attend(self, q, cache, batch, metadata, **kwargs):
        out = original(self, q, cache, batch, metadata, **kwargs)
        many = torch.tensor([count > 4 for count in batch.row_counts])
        rows = torch.repeat_interleave(many, torch.tensor(batch.row_counts))
        return torch.where(rows[:, None, None], torch.nextafter(out, out + 1), out)

    monkeypatch.setattr(Backend, "attend", attend)
    assert found(target, speculative, cases, truth)


@pytest.mark.slow
def test_padding_that_writes_into_a_block(target, speculative, cases, truth, monkeypatch):
    original = Assembler.build

    def build(self, layout, table):
        batch = original(self, layout, table)
        (group,) = batch.forward.groups.values()
        slots = torch.where(group.slots == 0, 16 + torch.arange(len(group.slots)) % 16, group.slots)
        object.__setattr__(group, "slots", slots)
        return batch

    monkeypatch.setattr(Assembler, "build", build)
    assert found(target, speculative, cases, truth)


@pytest.mark.slow
def test_drafts_keyed_by_batch_row(target, speculative, cases, truth, monkeypatch):
    """Lengths read by place in the batch instead of by request: right only until the batch changes."""
    original = RequestTable.commit

    def commit(self, batch, verified):
        original(self, batch, verified)
        rows = torch.arange(batch.num_rows)
        self.num_tokens[rows] = torch.where(batch.num_samples > 0, self.num_tokens[batch.rows], self.num_tokens[rows])

    monkeypatch.setattr(RequestTable, "commit", commit)
    with pytest.raises(AssertionError, match="the step emitted nothing for request"):
        found(target, speculative, cases, truth)


@pytest.mark.slow
def test_top_p_mass_in_floating_point_of_the_batch(target, speculative, cases, truth, monkeypatch):
    """Log-probabilities normalised over the whole batch: only `logprobs` shows it."""
    original = logprobs.row_sum

    def row_sum(values):
        return original(values) * (1 + 1e-6 * (values.shape[0] > 4))

    monkeypatch.setattr(logprobs, "row_sum", row_sum)
    wrong = found(target, speculative, cases, truth)
    assert wrong and all(": logprobs" in line or "prompt_logprobs" in line for line in wrong)
