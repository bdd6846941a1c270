"""Each processor, and the sampler as a whole, against slow Python that looks at one row at a time.

The slow side works on lists with loops, sets, `sorted` and `math`; it rounds to fp32 where the definition does.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import NoBadWordsLogitsProcessor

from outrider.core.sampling_params import SamplingParams
from outrider.kernels.reference.row_sum import row_sum
from outrider.kernels.reference.sampling.choose import argmax
from outrider.kernels.reference.sampling.logits_processors import (
    add_bias,
    apply_mask,
    count_drafts,
    forbid,
    forbid_words,
    output_tails,
    penalize,
)
from outrider.kernels.reference.sampling.noise import gumbel
from outrider.kernels.reference.sampling.row_max import below_max
from outrider.kernels.reference.sampling.sort_keys import finite, order_keys
from outrider.kernels.reference.sampling.topk_topp import truncate
from outrider.sampling.sampler import Sampler

INFINITY = math.inf
LARGEST = float(np.finfo(np.float32).max)


def f32(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def slow_finite(row: list[float]) -> list[float]:
    return [-INFINITY if math.isnan(value) else min(value, LARGEST) for value in row]


def slow_order(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda token_id: (-row[token_id], token_id))


def slow_bias(row: list[float], bias: dict[int, float]) -> list[float]:
    row = list(row)
    for token_id, value in bias.items():
        row[token_id] = min(f32(row[token_id] + f32(value)), LARGEST)
    return row


def slow_forbid(row: list[float], token_ids: tuple[int, ...]) -> list[float]:
    return [-INFINITY if token_id in set(token_ids) else value for token_id, value in enumerate(row)]


def slow_bad_ends(output: tuple[int, ...], words: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Last tokens of the words whose other tokens end the output."""
    text = "".join(chr(100 + token_id) for token_id in output)
    return tuple(word[-1] for word in words if text.endswith("".join(chr(100 + token_id) for token_id in word[:-1])))


def slow_penalize(
    row: list[float], prompt: tuple[int, ...], output: tuple[int, ...], params: SamplingParams
) -> list[float]:
    repetition, presence, frequency = (
        f32(value) for value in (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
    )
    counts = Counter(output)
    result = []
    for token_id, value in enumerate(row):
        if token_id in counts or token_id in set(prompt):
            value = f32(value / repetition) if value > 0 else f32(value * repetition)
        if token_id in counts:
            value = f32(value - f32(frequency * counts[token_id]))
            value = f32(value - presence)
        result.append(min(value, LARGEST))
    return result


def slow_scale(row: list[float], temperature: float) -> list[float]:
    largest = max(row)
    if largest == -INFINITY:
        return list(row)
    return [f32(f32(value - largest) / f32(temperature)) for value in row]


def slow_kept(row: list[float], scaled: list[float], *, top_k: int, top_p: float, min_p: float) -> set[int]:
    """Ids that min_p, top_k and top_p leave, in this order."""
    least = f32(math.log(f32(min_p))) if min_p > 0 else -INFINITY
    kept = [token_id for token_id in slow_order(row) if scaled[token_id] >= least]
    if top_k > 0:
        kept = kept[:top_k]
    if top_p < 1.0 and kept:
        masses = [math.exp(scaled[token_id]) for token_id in kept]
        needed = f32(top_p) * math.fsum(masses)
        before = [0.0, *itertools.accumulate(masses)][:-1]
        kept = [token_id for token_id, mass in zip(kept, before, strict=True) if mass < needed][: len(kept)]
    return set(kept or slow_order(row)[:1])


def slow_logprob(row: list[float], token_id: int) -> float:
    largest = max(row)
    if row[token_id] == -INFINITY:
        return -INFINITY
    return row[token_id] - largest - math.log(math.fsum(math.exp(value - largest) for value in row))


def slow_sample(case, offset: int) -> int:
    """The token of one row, as plain decoding after `offset` accepted drafts would choose it."""
    params = case.params
    output = case.output + case.drafts[:offset]
    row = slow_finite(case.logits[offset].tolist())
    row = slow_bias(row, params.logit_bias or {})
    if len(output) < params.min_tokens:
        row = slow_forbid(row, case.stop_token_ids)
    row = slow_penalize(row, case.prompt, output, params)
    if params.allowed_token_ids is not None:
        row = slow_forbid(row, tuple(set(range(len(row))) - set(params.allowed_token_ids)))
    row = slow_forbid(row, slow_bad_ends(output, case.bad_words))
    if params.temperature < 1e-5:
        return slow_order(row)[0]
    scaled = slow_scale(row, params.temperature)
    kept = slow_kept(row, scaled, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p)
    key = (torch.tensor([number]) for number in (case.seed, 0, len(case.prompt) + len(output)))
    noise = gumbel(*key, len(row))[0].tolist()
    noisy = [f32(value + noise[token_id]) if token_id in kept else -INFINITY for token_id, value in enumerate(scaled)]
    return slow_order(noisy)[0]


@pytest.mark.parametrize("vocab_size", [1, 2, 37, 128])
def test_sampler_equals_slow_python(vocab_size: int, make_crowd, make_batch, make_table) -> None:
    num_drafts, num_top = 3, 5
    cases = make_crowd(64, vocab_size=vocab_size, num_drafts=num_drafts, seed=vocab_size)
    samples = list(itertools.product(range(len(cases)), range(num_drafts + 1)))
    logits, batch = make_batch(cases, samples, num_logprobs=num_top)
    kept = logits.clone()
    sampled = Sampler()(logits, batch, make_table(cases, vocab_size=vocab_size))
    assert torch.equal(logits.view(torch.int32), kept.view(torch.int32)), "logits are not changed"

    expected = [slow_sample(cases[case], offset) for case, offset in samples]
    assert sampled.token_ids.tolist() == expected
    for place, token_id in enumerate(expected):
        row = slow_finite(logits[place].tolist())
        order = slow_order(row)
        top = order[: min(num_top, vocab_size)]
        assert int(sampled.ranks[place]) == order.index(token_id) + 1
        assert sampled.top_ids[place].tolist() == top
        given = cases[samples[place][0]].params.logprob_token_ids or []
        assert sampled.given_ranks[place].tolist()[: len(given)] == [order.index(token_id) + 1 for token_id in given]
        by_id = sampled.given_logprobs[place].tolist()[: len(given)]
        assert by_id == pytest.approx([slow_logprob(row, token_id) for token_id in given], rel=1e-5, abs=1e-5)
        logprobs = [float(sampled.logprobs[place]), *sampled.top_logprobs[place].tolist()]
        assert logprobs == pytest.approx([slow_logprob(row, i) for i in (token_id, *top)], rel=1e-5, abs=1e-5)


def ids_kept(
    logits: Tensor, *, top_k: list[int], top_p: list[float], min_p: list[float], temperature: float = 1.0
) -> list[set[int]]:
    scaled = below_max(logits) / temperature
    result = truncate(logits, scaled, top_k=torch.tensor(top_k), top_p=torch.tensor(top_p), min_p=torch.tensor(min_p))
    assert torch.equal(result[result > -INFINITY], scaled[result > -INFINITY]), "what is kept keeps its bits"
    return [set(row.nonzero().flatten().tolist()) for row in result > -INFINITY]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_truncation_keeps_what_slow_python_keeps(temperature: float) -> None:
    rng = random.Random(5)
    logits = torch.randn(400, 61, generator=torch.Generator().manual_seed(6)) * 3
    logits[::2] = (logits[::2] * 2).round() / 2
    top_k = [rng.choice((-1, 0, 1, 2, 5, 60, 61, 62, 2**31 - 1)) for _ in logits]
    top_p = [rng.choice((1e-9, 0.1, 0.5, 0.9, 0.99, 1.0, 1.0)) for _ in logits]
    min_p = [rng.choice((0.0, 0.0, 1e-4, 0.1, 0.999, 1.0)) for _ in logits]
    kept = ids_kept(logits, top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    for place, row in enumerate(logits.tolist()):
        scaled = slow_scale(row, temperature)
        expected = slow_kept(row, scaled, top_k=top_k[place], top_p=top_p[place], min_p=min_p[place])
        assert kept[place] == expected, (top_k[place], top_p[place], min_p[place])


def test_ties_at_every_cut_go_to_the_lower_id() -> None:
    row = torch.tensor([1.0, 3.0, 3.0, 0.0, 3.0, -0.0, 1.0, 3.0])
    order = [1, 2, 4, 7, 0, 6, 3, 5]
    for count in range(1, 9):
        assert ids_kept(row[None], top_k=[count], top_p=[1.0], min_p=[0.0]) == [set(order[:count])]
    equal = torch.zeros(1, 16)
    for count in range(1, 17):
        assert ids_kept(equal, top_k=[0], top_p=[count / 16], min_p=[0.0]) == [set(range(count))]
        assert ids_kept(equal, top_k=[count], top_p=[0.5], min_p=[0.0]) == [set(range((count + 1) // 2))]
    assert ids_kept(row[None], top_k=[0], top_p=[1.0], min_p=[1.0]) == [{1, 2, 4, 7}]


def test_at_least_one_token_is_kept() -> None:
    row = torch.tensor([[0.0, 5.0, 5.0, -INFINITY]])
    assert ids_kept(row, top_k=[0], top_p=[1e-30], min_p=[0.0]) == [{1}]
    assert ids_kept(row, top_k=[1], top_p=[1e-30], min_p=[1.0]) == [{1}]


def test_neutral_truncation_keeps_tokens_without_mass() -> None:
    row = torch.tensor([[0.0, -1000.0, -90.0]])
    assert ids_kept(row, top_k=[0], top_p=[1.0], min_p=[0.0]) == [{0, 1, 2}]
    assert ids_kept(row, top_k=[2], top_p=[1.0], min_p=[0.0]) == [{0, 2}]


def test_top_p_is_a_share_of_what_top_k_and_min_p_leave() -> None:
    row = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    assert ids_kept(row, top_k=[0], top_p=[0.65], min_p=[0.0]) == [{0, 1}]
    assert ids_kept(row, top_k=[2], top_p=[0.55], min_p=[0.0]) == [{0}]  # 4/7 reaches it
    assert ids_kept(row, top_k=[0], top_p=[0.55], min_p=[0.6]) == [{0}]


def test_argmax_gives_the_lowest_id_among_ties() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(0, 3, (300, 129), generator=generator).float()
    values[0], values[1] = 0.0, -INFINITY
    values[2, ::2] = -0.0
    expected = [row.index(max(row)) for row in values.tolist()]
    assert argmax(values).tolist() == expected


def test_order_keys_sort_like_floats_and_are_unique() -> None:
    values = torch.tensor([[0.0, -0.0, 1e-45, -1e-45, LARGEST, -LARGEST, -INFINITY, 1.0, -1.0, 1.0, -INFINITY]])
    keys = order_keys(values)
    assert keys.unique().numel() == values.numel()
    assert keys[0].argsort(descending=True).tolist() == slow_order(values[0].tolist())


def test_bias_and_forbidden_ids_touch_only_what_the_count_covers() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0], [-INFINITY, LARGEST, 0.0]])
    ids = torch.tensor([[2, 0, 1], [1, 0, 0]])
    values = torch.tensor([[1.5, 9.0, 9.0], [3e38, 5.0, 9.0]])
    counts = torch.tensor([1, 2])
    assert add_bias(logits, ids, values, counts).tolist() == [
        [0.5, -1.0, 3.5],
        [-INFINITY, LARGEST, 0.0],
    ]
    assert forbid(logits, ids, counts).tolist() == [[0.5, -1.0, -INFINITY], [-INFINITY, -INFINITY, 0.0]]
    nothing = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(add_bias(logits, ids, values, nothing), logits)
    assert torch.equal(forbid(logits, ids, nothing), logits)


def test_penalties_equal_slow_python_bit_for_bit(make_crowd, make_table) -> None:
    cases = make_crowd(64, vocab_size=41, num_drafts=4, seed=12)
    table = make_table(cases, vocab_size=41)
    logits = finite(torch.stack([case.logits[0] for case in cases]))
    drafts = torch.tensor([case.drafts for case in cases])
    for offset in range(5):
        counts = count_drafts(table.output_counts, drafts, torch.full((64,), offset))
        result = penalize(
            logits,
            counts,
            table.prompt_mask,
            repetition=table.columns["repetition"],
            presence=table.columns["presence"],
            frequency=table.columns["frequency"],
        )
        expected = [
            slow_penalize(row, case.prompt, case.output + case.drafts[:offset], case.params)
            for row, case in zip(logits.tolist(), cases, strict=True)
        ]
        assert torch.equal(result, torch.tensor(expected))


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65, 1000])
def test_row_sum_is_close_to_the_exact_sum(width: int) -> None:
    values = torch.rand(5, width, generator=torch.Generator().manual_seed(width))
    exact = [math.fsum(row) for row in values.tolist()]
    result = row_sum(values)
    assert result.shape == (5, 1) and result.flatten().tolist() == pytest.approx(exact, rel=1e-6)


def test_no_samples_give_empty_results(make_crowd, make_batch, make_table) -> None:
    cases = make_crowd(1, vocab_size=9, num_drafts=2, seed=1)
    logits, batch = make_batch(cases, [(0, 0)])
    fields = {name: getattr(batch, name)[:0] for name in ("rows", "offsets", "lengths", "drafts")}
    empty = type(batch)(**fields, lists={}, num_logprobs=3, wants_digest=True)
    sampled = Sampler()(logits[:0], empty, make_table(cases, vocab_size=9))
    assert sampled.token_ids.shape == (0,) and sampled.logits_hashes.shape == (0,)
    assert sampled.top_ids.shape == (0, 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_is_left_the_choice_is_token_0(temperature: float, make_crowd, make_batch, make_table) -> None:
    case = make_crowd(1, vocab_size=7, num_drafts=0, seed=1)[0]
    params = SamplingParams(temperature=temperature, top_p=0.5, top_k=3, min_p=0.1)
    for value in (math.nan, -INFINITY):
        hopeless = type(case)(
            params=params,
            seed=3,
            prompt=(1,),
            output=(),
            drafts=(),
            stop_token_ids=(),
            logits=torch.full((1, 7), value),
        )
        logits, batch = make_batch([hopeless], [(0, 0)])
        sampled = Sampler()(logits, batch, make_table([hopeless], vocab_size=7))
        assert sampled.token_ids.tolist() == [0]
        assert sampled.logprobs.tolist() == [-INFINITY] and sampled.ranks.tolist() == [1]


def test_without_wishes_there_are_no_logprobs_and_no_digest(make_crowd, make_batch, make_table) -> None:
    cases = make_crowd(3, vocab_size=9, num_drafts=0, seed=1)
    make: Callable = Sampler()
    table = make_table(cases, vocab_size=9)
    plain = make(*make_batch(cases, [(0, 0), (1, 0)], num_logprobs=None, wants_digest=False), table)
    assert plain.logprobs is plain.ranks is plain.top_ids is plain.top_logprobs is plain.logits_hashes is None
    chosen_only = make(*make_batch(cases, [(0, 0), (1, 0)], num_logprobs=0), table)
    assert chosen_only.logprobs.shape == (2,) and chosen_only.top_ids.shape == (2, 0)


def test_bad_words_are_those_of_transformers() -> None:
    """Its processor sees whole sequences; here the prompt is left out, so the outputs alone are given to it."""
    rng = random.Random(8)
    vocab_size, num_rows = 9, 40
    for _ in range(30):
        words = [[rng.randrange(vocab_size) for _ in range(rng.randrange(1, 5))] for _ in range(5)]
        outputs = [[rng.randrange(vocab_size) for _ in range(12)] for _ in range(num_rows)]
        logits = torch.randn(num_rows, vocab_size)
        theirs = NoBadWordsLogitsProcessor(words)(torch.tensor(outputs), logits)
        offsets = torch.tensor([rng.randrange(4) for _ in range(num_rows)])
        known = torch.tensor([[*output, 0, 0, 0] for output in outputs], dtype=torch.int32)
        drafts = torch.zeros(num_rows, 3, dtype=torch.int64)
        for row, offset in enumerate(offsets.tolist()):  # the last tokens are drafts, and not in the table
            known[row, 12 - offset : 12] = 7
            drafts[row, :offset] = torch.tensor(outputs[row][12 - offset :], dtype=torch.int64)
        tails = output_tails(
            known, drafts, offsets=offsets, lengths=torch.full((num_rows,), 12),
            num_prompt_tokens=torch.zeros(num_rows, dtype=torch.int64), width=4,
        )  # fmt: skip
        padded = torch.tensor([[-1] * (5 - len(word)) + word for word in words], dtype=torch.int32)
        ours = forbid_words(logits, tails, padded.expand(num_rows, -1, -1), torch.full((num_rows,), len(words)))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 500])
def test_a_mask_of_bits_keeps_the_tokens_whose_bits_are_set(vocab_size: int) -> None:
    logits = torch.randn(6, vocab_size)
    is_allowed = torch.rand(6, vocab_size) < 0.5
    words = np.packbits(is_allowed.numpy(), axis=1, bitorder="little")
    words = np.pad(words, ((0, 0), (0, -words.shape[1] % 4))).view(np.int32)
    masked = apply_mask(logits, torch.from_numpy(words))
    assert torch.equal(masked, logits.masked_fill(~is_allowed, -INFINITY))


def test_a_bad_word_that_begins_in_the_prompt_is_not_seen() -> None:
    """The tail holds output only, tokens and accepted drafts; a place before the output has -1, which ends no word."""
    prompt, output, drafts = [3, 4], [5, 6], [7, 8]
    token_ids = torch.tensor([prompt + output + [0] * 4], dtype=torch.int32)

    def tail(num_output: int, num_accepted: int, width: int) -> list[int]:
        known = len(prompt) + num_output
        return output_tails(
            token_ids, torch.tensor([drafts]), offsets=torch.tensor([num_accepted]),
            lengths=torch.tensor([known + num_accepted]), num_prompt_tokens=torch.tensor([len(prompt)]), width=width,
        ).tolist()[0]  # fmt: skip

    assert tail(0, 0, 2) == [-1, -1]
    assert tail(1, 0, 2) == [-1, 5]
    assert tail(0, 1, 2) == [-1, 7]
    assert tail(2, 2, 4) == [5, 6, 7, 8]
    assert tail(2, 2, 6) == [-1, -1, 5, 6, 7, 8]
