"""Sampling kernels against the plain PyTorch of the sampler on the same GPU, and rows in any company."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels import load_kernels
from outrider.kernels.reference.sampling import choose as reference_choose
from outrider.kernels.reference.sampling import logprobs as reference_logprobs
from outrider.kernels.reference.sampling import noise as reference_noise
from outrider.kernels.reference.sampling import row_max as reference_row_max
from outrider.kernels.reference.sampling import sort_keys as reference_sort_keys
from outrider.kernels.triton import intrinsics
from outrider.kernels.triton.sampling import noise, probability_mass, record, topk_topp
from outrider.kernels.triton.sampling.choose import argmax

from .comparison import replayed

KERNELS, REFERENCE = load_kernels(("triton",)), load_kernels(("reference",))
VOCAB_SIZES = (5, 1000, 8192, 32000, 128256, 262144)
NUM_TABLE_ROWS = 300


@contextmanager
def any_order() -> Iterator[None]:
    """Plain PyTorch may use atomics here: integers, or one number for a place."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True, warn_only=True)


def make_logits(num_rows: int, vocab_size: int) -> Tensor:
    """Rows flat and peaked, with many ties, and with NaN and infinities."""
    spread = torch.tensor([0.0, 0.5, 2.0, 5.0], device="cuda")[torch.arange(num_rows, device="cuda") % 4]
    logits = torch.randn(num_rows, vocab_size, device="cuda") * spread.unsqueeze(1)
    logits[::5] = (logits[::5] * 2).round() / 2
    if num_rows > 4:
        logits[1, 0] = float("nan")
        logits[2, 1] = torch.inf
        logits[3] = -torch.inf
        logits[4, 1:] = -torch.inf
    return logits


def pick(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    places = torch.randint(0, len(values), (NUM_TABLE_ROWS,))
    return torch.tensor(values, dtype=dtype)[places].cuda()


def make_columns() -> dict[str, Tensor]:
    return {
        "temperature": pick(0.0, 0.3, 0.8, 1.0, 1.5),
        "top_k": pick(0, 0, 1, 50, 3000, 1 << 20, dtype=torch.int64),
        "top_p": pick(1.0, 0.95, 0.9, 0.5, 0.999, 0.0),
        "min_p": pick(0.0, 0.0, 0.02, 0.3),
        "seeds": torch.randint(-(2**62), 2**62, (NUM_TABLE_ROWS,)).cuda(),
        "completion_indices": torch.randint(0, 4, (NUM_TABLE_ROWS,)).cuda(),
    }


def make_rows(num_rows: int) -> dict[str, Tensor]:
    return {
        "rows": torch.randint(0, NUM_TABLE_ROWS, (num_rows,), device="cuda"),
        "positions": torch.randint(0, 100000, (num_rows,), device="cuda"),
    }


def choose(logits: Tensor, rows: dict[str, Tensor], columns: dict[str, Tensor]) -> Tensor:
    return KERNELS.choose(logits, **rows, **columns, random_index=rows["rows"], truncation_index=rows["rows"])


@triton.jit
def _weights_kernel(p_logits, p_largest, p_temperature, p_out, num_columns, BLOCK: tl.constexpr):
    i_row = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    b = tl.load(p_logits + i_row * num_columns + o, mask=o < num_columns, other=0.0)
    slope = probability_mass.slope_of(tl.load(p_temperature + i_row))
    b = probability_mass.weight_of(b, tl.load(p_largest + i_row), slope)
    tl.store(p_out + i_row * num_columns + o, b, mask=o < num_columns)


def weights_of(logits: Tensor, temperature: Tensor) -> Tensor:
    """The exponential of the kernels, one logit at a time: [num_rows, vocab_size] fp32 of logits that are finite."""
    out = torch.empty_like(logits)
    grid = (logits.shape[0], triton.cdiv(logits.shape[1], 1024))
    _weights_kernel[grid](logits, logits.amax(dim=1), temperature, out, logits.shape[1], BLOCK=1024)
    return out


def expected_tokens(logits: Tensor, rows: dict[str, Tensor], columns: dict[str, Tensor]) -> Tensor:
    """That of the reference, which sorts the vocabulary and is given the weights of the kernels."""
    everything = torch.arange(logits.shape[0], device="cuda")
    finite = reference_sort_keys.finite(logits)
    temperature = columns["temperature"][rows["rows"]]
    weights = weights_of(finite, torch.where(temperature > 0, temperature, 1.0))
    order = reference_sort_keys.order_keys(finite).sort(dim=1, descending=True).indices
    with any_order(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "exp", lambda _: weights.gather(1, order))
        return REFERENCE.choose(logits, **rows, **columns, random_index=everything, truncation_index=everything)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_weights_are_exponentials(vocab_size: int) -> None:
    logits = reference_sort_keys.finite(make_logits(9, vocab_size))[4:]
    temperature = torch.tensor([0.3, 0.8, 1.0, 1.5, 100.0], device="cuda")
    exact = (reference_row_max.below_max(logits).double() / temperature.unsqueeze(1)).exp()
    torch.testing.assert_close(weights_of(logits, temperature).double(), exact, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("num_rows", [5, 70])
def test_argmax_takes_the_lowest_id(vocab_size: int, num_rows: int) -> None:
    logits = make_logits(num_rows, vocab_size)
    assert torch.equal(argmax(logits), reference_choose.argmax(reference_sort_keys.finite(logits)))


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_noise_has_the_bits_of_plain_pytorch(vocab_size: int) -> None:
    keys = [torch.randint(-(2**62), 2**62, (7,)).cuda() for _ in range(3)]
    ours = noise.gumbel(*keys, vocab_size)
    assert torch.equal(ours, reference_noise.gumbel(*keys, vocab_size))
    ids = torch.randint(0, vocab_size, (300,), device="cuda")
    assert torch.equal(noise.gumbel_at(*keys, ids), ours[:, ids])
    assert noise.gumbel(*(key[:0] for key in keys), vocab_size).shape == (0, vocab_size)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("num_rows", [6, 200])
def test_choose_is_the_composition_of_the_reference(vocab_size: int, num_rows: int) -> None:
    logits, rows, columns = make_logits(num_rows, vocab_size), make_rows(num_rows), make_columns()
    ours, expected = choose(logits, rows, columns), expected_tokens(logits, rows, columns)
    wrong = (ours != expected).nonzero().flatten()
    own = {name: column[rows["rows"]][wrong].tolist() for name, column in columns.items()}
    assert len(wrong) == 0, f"rows {wrong.tolist()}: {ours[wrong]}, not {expected[wrong]}; {own}"


@pytest.mark.parametrize("top_k", [0, 7])
def test_choose_at_every_cut(top_k: int) -> None:
    """Flat, peaked and tied rows under hundreds of top_p: tokens at the cut are kept or not exactly as they should."""
    columns = make_columns() | {
        "temperature": torch.full((NUM_TABLE_ROWS,), 1.0, device="cuda"),
        "top_p": torch.linspace(0.001, 0.9999, NUM_TABLE_ROWS, device="cuda"),
        "top_k": torch.full((NUM_TABLE_ROWS,), top_k, device="cuda"),
        "min_p": torch.zeros(NUM_TABLE_ROWS, device="cuda"),
    }
    logits, rows = make_logits(NUM_TABLE_ROWS, 50000), make_rows(NUM_TABLE_ROWS)
    rows["rows"] = torch.randperm(NUM_TABLE_ROWS, device="cuda")
    assert torch.equal(choose(logits, rows, columns), expected_tokens(logits, rows, columns))


def with_outliers(logits: Tensor, num_outliers: int) -> Tensor:
    """Logits like a trained model's: some tokens of each row far above the others."""
    ids = torch.randint(0, logits.shape[1], (len(logits), num_outliers), device=logits.device)
    return logits.scatter(1, ids, 8 - 3 * torch.rand(ids.shape, device=logits.device).log())


@pytest.mark.parametrize("num_rows", [6, 200])
def test_choose_where_few_tokens_hold_the_mass(num_rows: int) -> None:
    """Heavy tokens that a sample of the vocabulary does not show, as a trained model has them."""
    logits, rows, columns = torch.randn(num_rows, 128256, device="cuda") * 2.2, make_rows(num_rows), make_columns()
    for i, num_heavy in enumerate((1, 5, 30, 300)):
        logits[i::4] = with_outliers(logits[i::4], num_heavy)
    assert torch.equal(choose(logits, rows, columns), expected_tokens(logits, rows, columns))


def make_masked(kind: str, num_allowed: int, num_rows: int) -> Tensor:
    """Logits as a trained model has them, or flat ones; of all but `num_allowed` tokens a grammar has none."""
    logits = torch.randn(num_rows, 128256, device="cuda") * (2.2 if kind == "model" else 0.5)
    if kind == "model":
        logits = with_outliers(logits, 30)
    if num_allowed < 128256:
        ids = torch.randint(0, 128256, (num_rows, num_allowed), device="cuda")
        masked = torch.full_like(logits, -torch.inf)
        logits = masked.scatter(1, ids, logits.gather(1, ids))
    return logits


@pytest.mark.parametrize("num_allowed", [1, 3, 300, 20000, 128256])
@pytest.mark.parametrize("kind", ["model", "flat"])
@pytest.mark.parametrize("num_rows", [6, 200])
def test_the_cut_lies_in_the_bracket(
    num_rows: int, kind: str, num_allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few tokens that are allowed, low temperatures, outliers: tokens are right, and no row has to be read whole."""
    seen: dict[str, Tensor] = {}
    launch = topk_topp.threshold_select

    class Watched:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def run(*args: object, **options: object) -> None:
                seen.update(zip(launch.arg_names, args, strict=False))  # type: ignore[arg-type]
                launch[grid](*args, **options)

            return run

    monkeypatch.setattr(topk_topp, "threshold_select", Watched())
    logits, rows = make_masked(kind, num_allowed, num_rows), make_rows(num_rows)
    columns = make_columns() | {
        "temperature": pick(0.02, 0.3, 0.8, 1.5),
        "top_k": pick(0, 0, 20, 50, 1000, dtype=torch.int64),
        "top_p": pick(0.95, 0.9, 0.5),
        "min_p": torch.zeros(NUM_TABLE_ROWS, device="cuda"),
    }
    assert torch.equal(choose(logits, rows, columns), expected_tokens(logits, rows, columns))

    low, high = (seen["p_records"][:, [place.value]] for place in (record.REC_LOW, record.REC_HIGH))
    counts = seen["p_counts"]
    assert ((counts & 0xFFFFFFFF) + (counts >> 32)).max() <= topk_topp._SEGMENT
    temperature, top_k, top_p = (columns[name][rows["rows"]] for name in ("temperature", "top_k", "top_p"))
    finite = logits > -torch.inf
    num_listed, num_finite = (logits >= low).sum(1), finite.sum(1)
    largest = logits.amax(1, keepdim=True)
    mass = ((logits - largest).double() / temperature.double().unsqueeze(1)).exp()
    certain, listed, wanted = (mass * (logits >= high)).sum(1), (mass * (logits >= low)).sum(1), top_p * mass.sum(1)
    by_count = num_listed >= torch.minimum(top_k, num_finite)
    by_mass = (certain < wanted) & (wanted <= listed * (1 + 1e-6))
    assert torch.where(top_k > 0, by_count, by_mass).all()


def test_without_random_rows_choose_is_argmax() -> None:
    logits, rows, columns = make_logits(9, 1000), make_rows(9), make_columns()
    ours = KERNELS.choose(logits, **rows, **columns, random_index=None, truncation_index=None)
    assert torch.equal(ours, argmax(logits))


def test_a_row_does_not_depend_on_its_company() -> None:
    logits, rows, columns = make_logits(200, 128256), make_rows(200), make_columns()
    everything = choose(logits, rows, columns)
    logprobs = KERNELS.logprobs(logits, everything, num_top=5)
    for num_rows in (1, 4, 33, 150):
        some = torch.randperm(200, device="cuda")[:num_rows]
        own = {name: values[some] for name, values in rows.items()}
        assert torch.equal(choose(logits[some], own, columns), everything[some])
        for ours, expected in zip(KERNELS.logprobs(logits[some], everything[some], num_top=3), logprobs, strict=True):
            assert torch.equal(ours, expected[some][:, :3] if ours.ndim == 2 else expected[some])


@pytest.mark.parametrize("num_rows", [3, 64])
def test_drafts_are_chosen_under_the_noise_of_the_target(num_rows: int) -> None:
    logits, rows, columns = make_logits(num_rows, 32000), make_rows(num_rows), make_columns()
    target_ids = torch.randperm(128256, device="cuda")[:32000]
    arguments = {name: columns[name] for name in ("temperature", "seeds", "completion_indices")} | {
        "has_random_rows": True
    }
    ours = KERNELS.draft_choose(logits, target_ids, **rows, **arguments)
    assert torch.equal(ours, REFERENCE.draft_choose(logits, target_ids, **rows, **arguments))
    is_greedy = columns["temperature"][rows["rows"]] <= 0
    assert torch.equal(ours[is_greedy], target_ids[argmax(logits)][is_greedy])
    none = {name: values[:0] for name, values in rows.items()}
    assert KERNELS.draft_choose(logits[:0], target_ids, **none, **arguments).shape == (0,)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("num_top", [0, 1, 20])
def test_logprobs(vocab_size: int, num_top: int) -> None:
    logits = make_logits(40, vocab_size)
    chosen = torch.randint(0, vocab_size, (40,), device="cuda")
    given = torch.randint(0, vocab_size, (40, num_top // 4), device="cuda")
    out = KERNELS.logprobs(logits, chosen, num_top=num_top, given_ids=given)
    finite = reference_sort_keys.finite(logits)
    exact = finite.double().log_softmax(dim=1).float()
    exact = torch.where(exact.isnan(), -torch.inf, exact)  # a row of -inf only
    assert torch.equal(out.top_ids, reference_logprobs.top(finite, min(num_top, vocab_size)))
    assert torch.equal(out.ranks, reference_logprobs.ranks(finite, chosen))
    torch.testing.assert_close(out.chosen, exact.gather(1, chosen.unsqueeze(1)).squeeze(1), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(out.top_logprobs, exact.gather(1, out.top_ids), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(out.given, exact.gather(1, given), rtol=2e-6, atol=2e-6)
    assert torch.equal(out.given_ranks, REFERENCE.logprobs(logits, chosen, num_top=0, given_ids=given).given_ranks)
    assert KERNELS.logprobs(logits[:0], chosen[:0], num_top=num_top).chosen.shape == (0,)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_hash_is_that_of_the_reference(vocab_size: int) -> None:
    logits = make_logits(11, vocab_size)
    logits[5, 2] = -0.0
    with any_order():
        expected = REFERENCE.hash_rows(logits)
    assert torch.equal(KERNELS.hash_rows(logits), expected)
    assert KERNELS.hash_rows(logits[:0]).shape == (0,)


def make_words(vocab_size: int) -> Tensor:
    """Words of up to four tokens, of which all but the last are 0 or 1: many have begun somewhere."""
    words = torch.randint(0, 2, (NUM_TABLE_ROWS, 8, 4), device="cuda", dtype=torch.int32)
    num_free = torch.randint(0, 4, (NUM_TABLE_ROWS, 8, 1), device="cuda")
    words[..., 3] = torch.randint(0, vocab_size, (NUM_TABLE_ROWS, 8), device="cuda")
    return torch.where(torch.arange(4, device="cuda") < num_free, -1, words)


def make_tables(vocab_size: int) -> dict[str, Tensor]:
    """Every kind of request, many without any of it."""

    def ids(width: int) -> Tensor:
        return torch.rand(NUM_TABLE_ROWS, vocab_size, device="cuda").topk(width, dim=1).indices

    return {
        "num_logit_bias": pick(0, 0, 1, 5, dtype=torch.int64),
        "logit_bias_ids": ids(5),
        "logit_bias": torch.randn(NUM_TABLE_ROWS, 5, device="cuda") * pick(1.0, 100.0, 3e38).unsqueeze(1),
        "min_length": pick(0, 0, 100000, dtype=torch.int64),
        "num_stop_token_ids": pick(0, 1, 4, dtype=torch.int64),
        "stop_token_ids": ids(4),
        "output_counts": torch.randint(0, 3, (NUM_TABLE_ROWS, vocab_size), device="cuda", dtype=torch.int32),
        "prompt_mask": torch.rand(NUM_TABLE_ROWS, vocab_size, device="cuda") < 0.3,
        "repetition": pick(1.0, 1.0, 1.3, 0.7),
        "presence": pick(0.0, 0.0, 0.37, -1.1),
        "frequency": pick(0.0, 0.0, 0.29, -0.7),
        "allowed": torch.randint(-(2**31), 2**31, (NUM_TABLE_ROWS, (vocab_size + 31) // 32), device="cuda").int()
        | pick(-1, 0, dtype=torch.int32).unsqueeze(1),
        "num_bad_words": pick(0, 3, 8, dtype=torch.int64),
        "bad_words": make_words(vocab_size),
        "token_ids": torch.randint(0, 2, (NUM_TABLE_ROWS, 120), device="cuda", dtype=torch.int32),
        "num_prompt_tokens": torch.randint(0, 100, (NUM_TABLE_ROWS,), device="cuda"),
    }


@pytest.mark.parametrize("vocab_size", [7, 3000, 20000])
def test_process_is_the_composition_of_the_reference(vocab_size: int) -> None:
    num_rows = 60
    logits, tables = make_logits(num_rows, vocab_size), make_tables(vocab_size)
    rows = {
        "rows": torch.randint(0, NUM_TABLE_ROWS, (num_rows,), device="cuda"),
        "offsets": torch.randint(0, 4, (num_rows,), device="cuda"),
        "lengths": torch.randint(3, 100, (num_rows,), device="cuda"),
        "drafts": torch.randint(0, 2, (num_rows, 3), device="cuda"),
    }
    lists = dict.fromkeys(("bias_index", "min_tokens_index", "penalty_index", "allowed_index", "bad_words_index"))
    everything = dict.fromkeys(lists, torch.arange(num_rows, device="cuda"))
    with any_order():
        expected = REFERENCE.process(logits, **rows, **tables, **everything)
    assert torch.equal(KERNELS.process(logits, **rows, **tables, **everything), expected)
    assert expected.isneginf().sum() > reference_sort_keys.finite(logits).isneginf().sum()
    assert KERNELS.process(logits, **rows, **tables, **lists) is logits
    none = {name: values[:0] for name, values in rows.items()}
    assert KERNELS.process(logits[:0], **none, **tables, **everything).shape == (0, vocab_size)


@pytest.mark.parametrize("num_drafts", [0, 1, 3, 7])
@pytest.mark.parametrize("num_rows", [1, 50])
def test_verify_equals_the_verifier(num_drafts: int, num_rows: int) -> None:
    for _ in range(5):
        num_samples = torch.randint(0, num_drafts + 2, (num_rows,), device="cuda")
        starts = torch.arange(num_rows, device="cuda") * (num_drafts + 1)
        sampled = torch.randint(0, 2, (num_rows * (num_drafts + 1) - 1,), device="cuda")
        drafts = torch.randint(0, 2, (num_rows, num_drafts), device="cuda")
        num_tokens_left = torch.randint(-1, num_drafts + 3, (num_rows,), device="cuda")
        arguments = {
            "sample_starts": starts,
            "num_samples": num_samples,
            "drafts": drafts,
            "num_tokens_left": num_tokens_left,
        }
        with any_order():
            expected = REFERENCE.verify(sampled, **arguments)
        for ours, theirs in zip(KERNELS.verify(sampled, **arguments), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_no_rows_strides_and_replay() -> None:
    rows, columns = make_rows(8), make_columns()
    none = {name: values[:0] for name, values in rows.items()}
    assert choose(torch.zeros(0, 100, device="cuda"), none, columns).shape == (0,)
    assert argmax(torch.zeros(0, 100, device="cuda")).shape == (0,)
    wide = torch.full((8, 40000), float("nan"), device="cuda")
    logits, other = wide[:, 1:32001], make_logits(8, 32000)
    logits.copy_(make_logits(8, 32000))
    expected = choose(other, rows, columns)
    out = replayed(lambda: choose(logits, rows, columns), lambda: logits.copy_(other))
    assert torch.equal(out, expected)


def test_the_kernels_are_not_interpreted() -> None:
    assert not intrinsics.IS_INTERPRETED.value
