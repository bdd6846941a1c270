"""Chi square of sampled tokens against softmax, whole and truncated, and the acceptance of coupled drafts."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.kernels.reference.sampling.noise import gumbel, gumbel_at
from outrider.sampling.sampler import SampleBatch, Sampler
from tests.support.request_tables import make_request_table

VOCAB_SIZE = 14
LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.5, 1.5, -3.0, 0.0, 2.5, -0.5, 1.0, 0.5, -2.0, 0.0, 1.25])


def draw(params: SamplingParams, *, num_seeds: int, num_positions: int, logits: Tensor = LOGITS) -> Tensor:
    """Tokens of one distribution at every (seed, position): [num_seeds * num_positions] int64."""
    requests = make_request_table(num_seeds, VOCAB_SIZE)
    requests.admit(
        [
            RowAdmission(
                row=row,
                request_id="r",
                token_ids=(0,),
                num_prompt_tokens=1,
                num_computed_tokens=0,
                last_cached_block=-1,
                max_total_tokens=100,
                params=params,
                seed=row * 977 - 5,
                stop_token_ids=(),
            )
            for row in range(num_seeds)
        ]
    )
    count = num_seeds * num_positions
    rows, positions = torch.meshgrid(torch.arange(num_seeds), torch.arange(num_positions), indexing="ij")
    everyone = torch.arange(count)
    batch = SampleBatch(
        rows=rows.reshape(-1),
        offsets=torch.zeros(count, dtype=torch.int64),
        lengths=positions.reshape(-1) + 1,
        drafts=torch.zeros(count, 0, dtype=torch.int64),
        lists={"random": everyone, "truncation": everyone if params.has_truncation else None},
        num_logprobs=None,
        wants_digest=False,
    )
    return Sampler()(logits.expand(count, -1).contiguous(), batch, requests.sampling).token_ids


def expected_distribution(params: SamplingParams) -> list[float]:
    """Truncated, renormalised softmax in double precision; ids in order of (logit descending, id ascending)."""
    weights = [math.exp(value / params.temperature) for value in LOGITS.tolist()]
    order = sorted(range(VOCAB_SIZE), key=lambda token_id: (-weights[token_id], token_id))
    kept = [token_id for token_id in order if weights[token_id] >= params.min_p * max(weights)]
    kept = kept[: params.top_k] if params.top_k > 0 else kept
    total, mass, result = sum(weights[token_id] for token_id in kept), 0.0, [0.0] * VOCAB_SIZE
    for token_id in kept:
        if mass < params.top_p * total:
            result[token_id] = weights[token_id]
        mass += weights[token_id]
    return [value / sum(result) for value in result]


def chi_square(tokens: Tensor, distribution: list[float]) -> tuple[float, int]:
    """Chi square and degrees of freedom; tokens of probability 0 must not occur."""
    counts = torch.bincount(tokens, minlength=VOCAB_SIZE).tolist()
    cells = [(count, p * len(tokens)) for count, p in zip(counts, distribution, strict=True)]
    assert all(count == 0 for count, mean in cells if mean == 0.0)
    return sum((count - mean) ** 2 / mean for count, mean in cells if mean > 0), sum(m > 0 for _, m in cells) - 1


CASES = {
    "plain": SamplingParams(temperature=1.0),
    "cold": SamplingParams(temperature=0.6),
    "hot": SamplingParams(temperature=2.5),
    "top_k in a tie": SamplingParams(temperature=1.0, top_k=7),
    "top_p": SamplingParams(temperature=1.0, top_p=0.8),
    "min_p": SamplingParams(temperature=1.0, min_p=0.15),
    "all three": SamplingParams(temperature=1.3, top_k=9, top_p=0.85, min_p=0.1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("num_seeds", "num_positions"), [(4, 6000), (240, 100)])
def test_samples_follow_softmax(
    name: str, num_seeds: int, num_positions: int, chi_square_limit: Callable[[int], float]
) -> None:
    tokens = draw(CASES[name], num_seeds=num_seeds, num_positions=num_positions)
    value, degrees = chi_square(tokens, expected_distribution(CASES[name]))
    assert value < chi_square_limit(degrees)


def test_the_chi_square_test_can_fail(chi_square_limit: Callable[[int], float]) -> None:
    tokens = draw(SamplingParams(temperature=1.0), num_seeds=4, num_positions=6000)
    value, degrees = chi_square(tokens, expected_distribution(SamplingParams(temperature=1.1)))
    assert value > chi_square_limit(degrees)


def test_successive_tokens_are_independent(chi_square_limit: Callable[[int], float]) -> None:
    tokens = draw(SamplingParams(temperature=1.0), num_seeds=2, num_positions=20_000).view(2, -1)
    p = torch.tensor(expected_distribution(SamplingParams(temperature=1.0)))
    cell = torch.outer(p, p).double().flatten() * (tokens.shape[1] - 1)
    for left, right in ((tokens[0, :-1], tokens[0, 1:]), (tokens[0, 1:], tokens[1, 1:])):
        counts = torch.bincount(left * VOCAB_SIZE + right, minlength=VOCAB_SIZE**2).double()
        large = cell > 5
        value = float(((counts - cell) ** 2 / cell)[large].sum())
        assert value < chi_square_limit(int(large.sum()) - 1)


def dirichlet_pair(closeness: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a target and a drafter over 20 tokens."""
    target = torch.randn(20, generator=generator) * 2
    drafter = target + torch.randn(20, generator=generator) * closeness
    return target.log_softmax(0), drafter.log_softmax(0)


@pytest.mark.parametrize("closeness", [0.2, 0.7, 1.5, 3.0])
def test_coupled_drafts_are_accepted_as_often_as_promised(closeness: float) -> None:
    """Acceptance of argmax under shared noise is at least (1 - TV) / (1 + TV), arXiv 2408.07978."""
    generator = torch.Generator().manual_seed(int(closeness * 10))
    num_positions = 20_000
    seeds, zeros = torch.full((num_positions,), 77), torch.zeros(num_positions, dtype=torch.int64)
    noise = gumbel(seeds, zeros, torch.arange(num_positions), 20)
    for _ in range(4):
        target, drafter = dirichlet_pair(closeness, generator)
        distance = float((target.exp() - drafter.exp()).abs().sum()) / 2
        share = float(((target + noise).argmax(1) == (drafter + noise).argmax(1)).double().mean())
        deviation = 4 * math.sqrt(0.25 / num_positions)
        assert (1 - distance) / (1 + distance) - deviation <= share <= 1 - distance + deviation
        uncoupled = float((target.exp() * drafter.exp()).sum())
        assert share > uncoupled


def test_a_drafter_of_a_reduced_vocabulary_is_coupled_too() -> None:
    generator = torch.Generator().manual_seed(1)
    target, drafter = dirichlet_pair(0.3, generator)
    token_ids = target.argsort(descending=True)[:12]
    num_positions = 20_000
    seeds, zeros = torch.full((num_positions,), 78), torch.zeros(num_positions, dtype=torch.int64)
    positions = torch.arange(num_positions)
    noise_at = gumbel_at(seeds, zeros, positions, token_ids)
    drafts = token_ids[(drafter[token_ids] + noise_at).argmax(1)]
    reduced = torch.zeros(20).index_copy(0, token_ids, drafter[token_ids].softmax(0))
    distance = float((target.exp() - reduced).abs().sum()) / 2
    tokens = (target + gumbel(seeds, zeros, positions, 20)).argmax(1)
    share = float((tokens == drafts).double().mean())
    assert share >= (1 - distance) / (1 + distance) - 4 * math.sqrt(0.25 / num_positions)
