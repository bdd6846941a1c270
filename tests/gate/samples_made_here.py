"""Samples with chosen counts, for tests that need no engine."""

from dataclasses import replace

import numpy as np

from outrider.gate.sample import Measurement, Sample
from outrider.gate.statistics import LENGTH, Ratio

KEY = {"device": "cpu", "machine": "x86_64", "capability": "AVX2", "dtype": "float32", "torch": "2", "threads": "1"}
VERSIONS = {"torch": "2"}


def sample(prompt: str = "1", *, steps: tuple[int, ...] = (0, 3, 1, 2), k: int = 3, **changes) -> Sample:
    """A request whose steps accepted these numbers of drafts; the first step had none to verify."""
    per_pos = tuple(sum(step > position for step in steps) for position in range(k))
    num_tokens = sum(steps) + len(steps)
    made = Sample(
        prompt=prompt,
        turn=1,
        category="code",
        seed=0,
        prompt_digest=f"digest of {prompt}",
        num_tokens=num_tokens,
        num_steps=len(steps),
        num_drafts=len(steps) - 1,
        num_draft_tokens=(len(steps) - 1) * k,
        num_accepted_tokens=sum(steps),
        num_accepted_tokens_per_pos=per_pos,
        accepted_by_step=steps,
        token_ids=tuple(range(100, 100 + num_tokens)),
        logits_digest="00000000000000aa",
    )
    return replace(made, **changes)


def measurement(samples, *, key=KEY, k: int = 3) -> Measurement:
    return Measurement(samples=tuple(samples), key=dict(key), versions=dict(VERSIONS), num_drafts=k)


def drawn_ratios(num_prompts: int, rng: np.random.Generator, *, mean: float = 0.7, spread: float = 0.15, k: int = 3):
    """Rates of a drafter whose accuracy differs from prompt to prompt (beta distributed), steps alike within one."""
    concentration = mean * (1 - mean) / spread**2 - 1
    rates = rng.beta(mean * concentration, (1 - mean) * concentration, num_prompts)
    steps = rng.integers(6, 24, num_prompts)
    hits = rng.random((num_prompts, 24, k)) < rates[:, None, None]
    happened = np.arange(24)[None, :, None] < steps[:, None, None]
    accepted = (hits.cumprod(axis=2) * happened).sum(axis=1).astype(float)
    found = [
        Ratio(name=f"draft {position + 1}", numerators=accepted[:, position], denominators=steps.astype(float))
        for position in range(k)
    ]
    total = accepted.sum(axis=1)
    return [*found, Ratio(name=LENGTH, numerators=total, denominators=steps.astype(float), offset=1.0)]
