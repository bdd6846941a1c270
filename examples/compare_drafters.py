"""Runs the same prompts without a drafter and with three of them: same tokens, different numbers of steps.

Run it from the repository: python examples/compare_drafters.py
"""

import time
from pathlib import Path

from outrider import LLM, SamplingParams, SpeculationStats

ZOO = Path(__file__).parents[1] / "zoo"
PROMPTS = ["def load_json(path):", "import json\n\n\ndef load(path):", "class Queue:\n    def __init__(self):"]
DRAFTERS = {
    "none": None,
    "ngram": {"method": "ngram", "num_speculative_tokens": 3},
    "draft model": {"method": "draft_model", "model": str(ZOO / "tiny-draft"), "num_speculative_tokens": 3},
    "eagle3": {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3},
}


def main() -> None:
    params = SamplingParams(temperature=0.6, seed=3, max_tokens=32)
    expected = None
    print("drafter      seconds  steps  acceptance length  accepted at 1, 2, 3")
    for name, drafter in DRAFTERS.items():
        llm = LLM(str(ZOO / "tiny"), speculative_config=drafter)
        started = time.perf_counter()
        outputs = llm.generate(PROMPTS, params)
        seconds = time.perf_counter() - started
        stats = SpeculationStats()
        for output in outputs:
            stats.add(output.speculation)
        rates = ", ".join(f"{rate:.2f}" for rate in stats.acceptance_rate_per_pos)
        print(f"{name:12} {seconds:7.2f} {stats.num_steps:6} {stats.mean_acceptance_length:18.2f}  {rates}")

        tokens = [output.outputs[0].token_ids for output in outputs]
        if expected is not None and tokens != expected:
            raise SystemExit(f"{name} changed a token, which must never happen")
        expected = tokens
    print("All drafters gave the same tokens.")


if __name__ == "__main__":
    main()
