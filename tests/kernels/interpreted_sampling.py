"""The integer parts of the sampling kernels in Triton's interpreter, against plain PyTorch.

A program, not a test file: the interpreter is chosen by an environment variable before Triton is imported.
`test_interpreter_sampling.py` runs it. Its last line says what failed.
"""

import json
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from outrider.kernels import load_kernels
from outrider.kernels.hopper.sampling import noise
from outrider.kernels.hopper.sampling.choose import argmax
from outrider.kernels.reference.sampling import choose as reference_choose
from outrider.kernels.reference.sampling import noise as reference_noise
from outrider.kernels.reference.sampling import sort_keys as reference_sort_keys
from outrider.sampling.synthetic import synthetic_acceptance

KERNELS, REFERENCE = load_kernels(("hopper",)), load_kernels(("reference",))
VOCAB_SIZE = 700
NUM_ROWS = 9


def make_logits() -> Tensor:
    """Rows with many ties, and with numbers that are none."""
    logits = torch.randn(NUM_ROWS, VOCAB_SIZE) * torch.arange(NUM_ROWS).unsqueeze(1)
    logits[::2] = logits[::2].round()
    logits[1, 0] = float("nan")
    logits[2, 1] = torch.inf
    logits[3] = -torch.inf
    return logits


def check_argmax() -> None:
    logits = make_logits()
    assert torch.equal(argmax(logits), reference_choose.argmax(reference_sort_keys.finite(logits)))


def check_hash_rows() -> None:
    logits = make_logits()
    assert torch.equal(KERNELS.hash_rows(logits), REFERENCE.hash_rows(logits))


def check_logprobs() -> None:
    logits, chosen = make_logits(), torch.randint(0, VOCAB_SIZE, (NUM_ROWS,))
    given = torch.randint(0, VOCAB_SIZE, (NUM_ROWS, 2))
    ours, expected = (module.logprobs(logits, chosen, num_top=5, given_ids=given) for module in (KERNELS, REFERENCE))
    assert torch.equal(ours.ranks, expected.ranks)
    assert torch.equal(ours.top_ids, expected.top_ids)
    assert torch.equal(ours.given_ranks, expected.given_ranks)


def check_noise() -> None:
    keys = [torch.randint(-(2**62), 2**62, (3,)) for _ in range(3)]
    ours = noise.gumbel(*keys, 50)
    assert torch.allclose(ours, reference_noise.gumbel(*keys, 50), atol=1e-2)  # other words would be far away
    ids = torch.randint(0, 50, (20,))
    assert torch.equal(noise.gumbel_at(*keys, ids), ours[:, ids])


def check_verify() -> None:
    for num_drafts in (0, 1, 4):
        arguments = {
            "sample_starts": torch.arange(NUM_ROWS) * (num_drafts + 1),
            "num_samples": torch.randint(0, num_drafts + 2, (NUM_ROWS,)),
            "drafts": torch.randint(0, 2, (NUM_ROWS, num_drafts)),
            "num_tokens_left": torch.randint(-1, num_drafts + 3, (NUM_ROWS,)),
        }
        sampled = torch.randint(0, 2, (NUM_ROWS * (num_drafts + 1) - 1,))
        for ours, expected in zip(
            KERNELS.verify(sampled, **arguments), REFERENCE.verify(sampled, **arguments), strict=True
        ):
            assert torch.equal(ours, expected)


def check_drawn() -> None:
    """Acceptance by a draw, as benchmarks have it."""
    rows = torch.randperm(NUM_ROWS)
    seeds, lengths = torch.randint(-(2**62), 2**62, (NUM_ROWS,)), torch.randint(1, 999, (NUM_ROWS,))
    arguments = {
        "sample_starts": torch.arange(NUM_ROWS) * 4,
        "num_samples": torch.randint(0, 5, (NUM_ROWS,)),
        "drafts": torch.randint(0, 50, (NUM_ROWS, 3)),
        "num_tokens_left": torch.randint(0, 6, (NUM_ROWS,)),
        "rows": rows,
        "synthetic": synthetic_acceptance((0.8, 0.6, 0.5), seeds=seeds, lengths=lengths),
    }
    sampled = torch.randint(0, 50, (NUM_ROWS * 4,))
    for ours, expected in zip(
        KERNELS.verify(sampled, **arguments), REFERENCE.verify(sampled, **arguments), strict=True
    ):
        assert torch.equal(ours, expected)


CHECKS: dict[str, Callable[[], None]] = {
    "argmax": check_argmax,
    "hash_rows": check_hash_rows,
    "logprobs": check_logprobs,
    "noise": check_noise,
    "verify": check_verify,
    "drawn": check_drawn,
}


def failures() -> dict[str, str]:
    """What differs, by kernel."""
    failed = {}
    for name, check in CHECKS.items():
        torch.manual_seed(0)
        try:
            check()
        except AssertionError as error:
            failed[name] = str(error) or "differs"
    return failed


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of numpy, about infinities and words that wrap
    print(json.dumps(failures()))
