"""Conformance checks of the sampler's kernels, against the oracle. Under Triton's interpreter noise differs in its last
bits, so there only rows without noise are compared.
"""

import torch
from torch import Tensor

from outrider.sampling.synthetic import synthetic_acceptance
from tests.kernels.subject import Subject

VOCAB_SIZE = 700
NUM_ROWS, NUM_TABLE_ROWS = 24, 11


def _logits(at: Subject) -> Tensor:
    """Rows flat and peaked, with many ties, NaN and infinities."""
    spread = torch.tensor([0.0, 0.5, 2.0, 5.0])[torch.arange(NUM_ROWS) % 4].unsqueeze(1).to(at.device)
    logits = at.randn(NUM_ROWS, VOCAB_SIZE, dtype=torch.float32) * spread
    logits[::5] = (logits[::5] * 2).round() / 2
    logits[1, 0] = float("nan")
    logits[2, 1] = torch.inf
    logits[3] = -torch.inf
    logits[4, 1:] = -torch.inf
    return logits


def _rows(at: Subject) -> dict[str, Tensor]:
    return {"rows": at.integers(NUM_ROWS, high=NUM_TABLE_ROWS), "positions": at.integers(NUM_ROWS, high=9999)}


def _noise_keys(at: Subject) -> dict[str, Tensor]:
    return {
        "seeds": at.integers(NUM_TABLE_ROWS, low=-(2**62), high=2**62),
        "completion_indices": at.integers(NUM_TABLE_ROWS, high=4),
    }


def check_choose(at: Subject) -> None:
    """Logits of random rows are 2 apart, so that no rounding of a mass moves the threshold."""
    rows, everything = _rows(at), torch.arange(NUM_ROWS, device=at.device)
    columns = _noise_keys(at) | {
        "temperature": at.pick(NUM_TABLE_ROWS, 0.0, 0.6, 1.0, 1.5),
        "top_k": at.pick(NUM_TABLE_ROWS, 0, 3, 0, 40, 1 << 20, dtype=torch.int64),
        "top_p": at.pick(NUM_TABLE_ROWS, 1.0, 0.9, 0.97),
        "min_p": at.pick(NUM_TABLE_ROWS, 0.0, 0.0, 0.0, 0.07),
    }
    for logits, index in ((_logits(at), None), (_apart(at), everything)):
        if index is not None and at.is_interpreted:
            continue
        arguments = rows | columns | {"random_index": index, "truncation_index": index}
        at.same("tokens", at.kernels.choose(logits, **arguments), at.oracle.choose(logits, **arguments))


def _apart(at: Subject) -> Tensor:
    ids = torch.stack([at.integers(VOCAB_SIZE, high=1 << 30).argsort() for _ in range(NUM_ROWS)])
    return (ids % 64).float() * -2.0 - (ids // 64).float() * 1e-3


def check_draft_choose(at: Subject) -> None:
    logits, rows = _logits(at), _rows(at)
    target_ids = at.integers(4 * VOCAB_SIZE, high=1 << 30).argsort()[:VOCAB_SIZE]
    values = (0.0,) if at.is_interpreted else (0.0, 0.8, 1.0)
    arguments = rows | _noise_keys(at) | {"temperature": at.pick(NUM_TABLE_ROWS, *values), "has_random_rows": True}
    ours, expected = (kernels.draft_choose(logits, target_ids, **arguments) for kernels in (at.kernels, at.oracle))
    at.same("drafts", ours, expected)


def check_process(at: Subject) -> None:
    size = NUM_TABLE_ROWS
    words = at.integers(size, 3, 4, high=2).int()
    words[..., 3] = at.integers(size, 3, high=VOCAB_SIZE).int()
    words[:, 1, :2] = -1
    tables = {
        "num_logit_bias": at.pick(size, 0, 2, 5, dtype=torch.int64),
        "logit_bias_ids": torch.stack([at.integers(VOCAB_SIZE, high=1 << 30).argsort()[:5] for _ in range(size)]),
        "logit_bias": at.randn(size, 5, dtype=torch.float32) * at.pick(size, 1.0, 100.0, 3e38).unsqueeze(1),
        "min_length": at.pick(size, 0, 0, 9999, dtype=torch.int64),
        "num_stop_token_ids": at.pick(size, 0, 1, 4, dtype=torch.int64),
        "stop_token_ids": at.integers(size, 4, high=VOCAB_SIZE),
        "output_counts": at.integers(size, VOCAB_SIZE, high=3).int(),
        "prompt_mask": at.integers(size, VOCAB_SIZE, high=3) == 0,
        "repetition": at.pick(size, 1.0, 1.3, 0.7),
        "presence": at.pick(size, 0.0, 0.37, -1.1, 0.0),
        "frequency": at.pick(size, 0.0, 0.0, 0.29, -0.7, 0.0),
        "allowed": at.integers(size, (VOCAB_SIZE + 31) // 32, low=-(2**31), high=2**31).int(),
        "num_bad_words": at.pick(size, 0, 1, 3, dtype=torch.int64),
        "bad_words": words,
        "token_ids": at.integers(size, 40, high=2).int(),
        "num_prompt_tokens": at.integers(size, high=30),
    }
    rows = {
        "rows": at.integers(NUM_ROWS, high=size),
        "offsets": at.integers(NUM_ROWS, high=4),
        "lengths": at.integers(NUM_ROWS, low=3, high=35),
        "drafts": at.integers(NUM_ROWS, 3, high=2),
    }
    logits, names = _logits(at), ("bias", "min_tokens", "penalty", "allowed", "bad_words")
    everything = {f"{name}_index": torch.arange(NUM_ROWS, device=at.device) for name in names}
    expected = at.oracle.process(logits, **rows, **tables, **everything)
    at.same("logits", at.kernels.process(logits, **rows, **tables, **everything), expected)
    assert expected.isneginf().sum() > logits.isneginf().sum()


def check_apply_masks(at: Subject) -> None:
    """Three masks for six samples: one is used twice, two samples have none."""
    is_allowed = at.integers(3, 128, high=2).bool()
    words = [[sum(int(bit) << i for i, bit in enumerate(row[start : start + 32])) for start in (0, 32, 64, 96)]
             for row in is_allowed.tolist()]  # fmt: skip
    signed, of_sample = torch.tensor(words).int().to(at.device), torch.tensor([2, -1, 0, 2, -1, 1], device=at.device)
    for in_place in (False, True):
        logits = at.randn(6, 70, dtype=torch.float32)
        before = logits.clone()
        expected = logits.clone()
        for sample, mask in enumerate(of_sample.tolist()):
            if mask >= 0:
                expected[sample, ~is_allowed[mask, :70]] = -torch.inf
        masked = at.kernels.apply_masks(logits, signed, of_sample, in_place=in_place)
        at.same("masked logits", masked, expected)
        at.same("logits", logits, expected if in_place else before)


def check_logprobs(at: Subject) -> None:
    logits, chosen = _logits(at), at.integers(NUM_ROWS, high=VOCAB_SIZE)
    given = at.integers(NUM_ROWS, 2, high=VOCAB_SIZE)
    ours, expected = (
        kernels.logprobs(logits, chosen, num_top=5, given_ids=given) for kernels in (at.kernels, at.oracle)
    )
    for name in ("ranks", "top_ids", "given_ranks"):
        at.same(name, getattr(ours, name), getattr(expected, name))
    largest = torch.finfo(torch.float32).max
    finite = torch.nan_to_num(logits, nan=-torch.inf, posinf=largest, neginf=-torch.inf)
    exact = finite.double().log_softmax(dim=1)
    exact = torch.where(exact.isnan(), -torch.inf, exact).float()  # a row of -inf only
    for name, ids in (("chosen", chosen[:, None]), ("top_logprobs", ours.top_ids), ("given", given)):
        values = getattr(ours, name)
        torch.testing.assert_close(values.reshape(ids.shape), exact.gather(1, ids), rtol=3e-6, atol=3e-6)


def check_hash_rows(at: Subject) -> None:
    logits = _logits(at)
    logits[5, 2] = -0.0
    at.same("hashes", at.kernels.hash_rows(logits), at.oracle.hash_rows(logits))


def check_verify(at: Subject) -> None:
    """By equality, and at random, as in benchmarks."""
    seeds, lengths = at.integers(NUM_ROWS, low=-(2**62), high=2**62), at.integers(NUM_ROWS, low=1, high=999)
    for num_drafts in (0, 1, 4):
        arguments = {
            "sample_starts": torch.arange(NUM_ROWS, device=at.device) * (num_drafts + 1),
            "num_samples": at.integers(NUM_ROWS, high=num_drafts + 2),
            "drafts": at.integers(NUM_ROWS, num_drafts, high=2),
            "num_tokens_left": at.integers(NUM_ROWS, low=-1, high=num_drafts + 3),
            "rows": at.integers(NUM_ROWS, high=1 << 30).argsort(),
        }
        sampled = at.integers(NUM_ROWS * (num_drafts + 1) - 1, high=2)
        drawn = synthetic_acceptance((0.8, 0.6, 0.5, 0.4)[:num_drafts], seeds=seeds, lengths=lengths)
        for synthetic in (None, drawn) if num_drafts else (None,):
            ours, expected = (
                kernels.verify(sampled, **arguments, synthetic=synthetic) for kernels in (at.kernels, at.oracle)
            )
            for name, mine, theirs in zip(ours._fields, ours, expected, strict=True):
                at.same(name, mine, theirs)
