"""Crowds of requests with mixed parameters and difficult logits, and the batches that sample them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling.params import SamplingTable
from outrider.sampling.sampler import SampleBatch
from tests.support.request_tables import make_request_table

OPERATIONS = ("random", "penalty", "bias", "min_tokens", "truncation", "bad_words", "allowed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and the logits of its k + 1 rows."""

    params: SamplingParams
    seed: int
    prompt: tuple[int, ...]
    output: tuple[int, ...]
    drafts: tuple[int, ...]
    stop_token_ids: tuple[int, ...]
    logits: Tensor  # [k + 1, vocab_size] fp32

    @property
    def bad_words(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(word) for word in self.params.bad_words or ())

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.output)

    def admission(self, row: int, *, num_accepted: int = 0) -> RowAdmission:
        """With the first drafts taken for output."""
        return RowAdmission(
            row=row,
            request_id=f"r{row}",
            token_ids=self.prompt + self.output + self.drafts[:num_accepted],
            num_prompt_tokens=len(self.prompt),
            num_computed_tokens=0,
            last_cached_block=-1,
            max_total_tokens=1 << 20,
            params=self.params,
            seed=self.seed,
            stop_token_ids=self.stop_token_ids,
            bad_words=self.bad_words,
        )


def logits_of_kind(kind: int, vocab_size: int, generator: torch.Generator) -> Tensor:
    """[vocab_size] fp32; eight kinds, from ordinary to hopeless."""
    logits = torch.randn(vocab_size, generator=generator) * 3
    picked = torch.rand(vocab_size, generator=generator)
    infinity = float("inf")
    match kind % 8:
        case 1:
            return (logits * 2).round() / 2  # many exact ties
        case 2:
            return logits.masked_fill(picked < 0.5, -infinity)
        case 3:
            return logits.sign() * 10.0 ** (picked * 38.5)  # up to the largest fp32
        case 4:
            return logits.masked_fill(picked < 0.2, float("nan")).masked_fill(picked > 0.98, infinity)
        case 5:
            return torch.full((vocab_size,), -infinity)
        case 6:
            return torch.where(picked < 0.5, 0.0, -0.0)
        case 7:
            return torch.zeros(vocab_size).masked_fill(picked < 0.3, -infinity)
    return logits


def _params(rng: random.Random, vocab_size: int, few: list[int]) -> SamplingParams:
    """`few`: the tokens that the request often has."""

    def sometimes(value: float, neutral: float) -> float:
        return value if rng.random() < 0.5 else neutral

    words = [[rng.choice(few) for _ in range(rng.randrange(1, 4))] for _ in range(4)]
    allowed = [*few, *(rng.randrange(vocab_size) for _ in range(vocab_size // 2))]
    bias = {rng.randrange(vocab_size): rng.choice((-100.0, -1.5, 0.25, 5.0, 3e38)) for _ in range(6)}
    return SamplingParams(
        temperature=rng.choice((0.0, 1e-5, 0.3, 1.0, 1.7, 1e4)),
        top_k=rng.choice((-1, 0, 0, 1, 2, 7, vocab_size - 1, vocab_size, 10 * vocab_size)),
        top_p=sometimes(rng.choice((1e-6, 0.1, 0.5, 0.9, 0.999)), 1.0),
        min_p=sometimes(rng.choice((1e-3, 0.1, 1.0)), 0.0),
        repetition_penalty=sometimes(rng.choice((1e-3, 0.7, 1.3, 1e3)), 1.0),
        presence_penalty=sometimes(rng.uniform(-2, 2), 0.0),
        frequency_penalty=sometimes(rng.uniform(-2, 2), 0.0),
        logit_bias=bias if rng.random() < 0.4 else None,
        min_tokens=rng.choice((0, 0, 3, 9)),
        bad_words=words if rng.random() < 0.4 else None,
        allowed_token_ids=allowed if rng.random() < 0.3 else None,
        logprob_token_ids=[rng.randrange(vocab_size) for _ in range(rng.randrange(3))] or None,
        max_tokens=100,
    )


def _make_crowd(num_requests: int, *, vocab_size: int, num_drafts: int, seed: int) -> list[Case]:
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int, few: list[int]) -> tuple[int, ...]:
        return tuple(rng.choice((*few, rng.randrange(vocab_size))) for _ in range(count))

    def make(kind: int) -> Case:
        few = [rng.randrange(vocab_size) for _ in range(4)]  # repeats are likely
        return Case(
            params=_params(rng, vocab_size, few),
            seed=rng.randrange(-(2**63), 2**63),
            prompt=tokens(rng.randrange(1, 12), few),
            output=tokens(rng.randrange(0, 8), few),
            drafts=tokens(num_drafts, few),
            stop_token_ids=tuple(dict.fromkeys((*tokens(rng.randrange(0, 6), few), 0, 0))),
            logits=rows(kind),
        )

    def rows(kind: int) -> Tensor:
        return torch.stack([logits_of_kind(kind, vocab_size, generator) for _ in range(num_drafts + 1)])

    return [make(rng.randrange(8)) for _ in range(num_requests)]


def _wants(case: Case) -> dict[str, bool]:
    params = case.params
    return {
        "random": not params.is_greedy,
        "penalty": params.has_penalties,
        "bias": bool(params.logit_bias),
        "min_tokens": params.min_tokens > 0,
        "truncation": params.has_truncation,
        "bad_words": bool(params.bad_words),
        "allowed": params.allowed_token_ids is not None,
    }


def _make_batch(
    cases: Sequence[Case],
    samples: Sequence[tuple[int, int]],
    *,
    lists_all: bool = False,
    num_logprobs: int | None = 5,
    wants_digest: bool = True,
) -> tuple[Tensor, SampleBatch]:
    """Logits and batch of the samples (case, offset); case i is row i of the table."""
    wanted = {}
    for name in OPERATIONS:
        listed = [place for place, (case, _) in enumerate(samples) if lists_all or _wants(cases[case])[name]]
        wanted[name] = torch.tensor(listed) if listed else None
    num_drafts = len(cases[0].drafts)
    drafts = [cases[case].drafts for case, _ in samples]
    known = torch.zeros(len(cases), max(case.length for case in cases) + num_drafts + 1, dtype=torch.int32)
    for row, case in enumerate(cases):
        known[row, : case.length] = torch.tensor(case.prompt + case.output)
    batch = SampleBatch(
        rows=torch.tensor([case for case, _ in samples]),
        offsets=torch.tensor([offset for _, offset in samples]),
        lengths=torch.tensor([cases[case].length + offset for case, offset in samples]),
        drafts=torch.tensor(drafts, dtype=torch.int64).view(len(samples), num_drafts),
        num_logprobs=num_logprobs,
        wants_digest=wants_digest,
        token_ids=known,
        num_given=2 if num_logprobs is not None else 0,
        lists=wanted,
    )
    return torch.stack([cases[case].logits[offset] for case, offset in samples]), batch


def _make_table(cases: Sequence[Case], *, vocab_size: int) -> SamplingTable:
    length = max(case.length for case in cases)
    requests = make_request_table(len(cases) - 1, vocab_size, max_model_len=length)  # the last one in the padding row
    requests.admit([case.admission(row) for row, case in enumerate(cases)])
    return requests.sampling


@pytest.fixture
def make_crowd() -> Callable[..., list[Case]]:
    """make_crowd(num_requests, vocab_size=, num_drafts=, seed=)."""
    return _make_crowd


@pytest.fixture
def make_batch() -> Callable[..., tuple[Tensor, SampleBatch]]:
    """make_batch(cases, samples, lists_all=False, num_logprobs=5, wants_digest=True)."""
    return _make_batch


@pytest.fixture
def make_table() -> Callable[..., SamplingTable]:
    """make_table(cases, vocab_size=)."""
    return _make_table


@pytest.fixture
def chi_square_limit() -> Callable[[int], float]:
    """The value that chi square exceeds with a chance of 1e-5 (Wilson and Hilferty, 1931)."""

    def limit(degrees: int) -> float:
        spread = 2 / (9 * degrees)
        return degrees * (1 - spread + 4.265 * spread**0.5) ** 3

    return limit
