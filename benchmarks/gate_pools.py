"""Counts per prompt and seed, of the zoo's head and of damaged copies: the raw data of the gate's evidence.

    python -m benchmarks.gate_pools [--output benchmarks/results/gate-pools.json]

120 prompts: 60 beginnings of the zoo's code prompts and 60 held-out word problems. At temperature 1 the healthy head
runs with 16 seeds of each, damaged ones with two of them; at temperature 0 each runs once. Every run must give the
same tokens and logits digests with every head, or the script stops. `gate_evidence.py` draws checks from these.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.damaged_heads import damaged_heads
from outrider.gate.measure import measure, open_engine, platform_key
from outrider.gate.prompts import Prompt, read_prompts
from outrider.gate.sample import Sample
from outrider_recipe.arithmetic.problems import HELD_OUT_FAMILIES
from outrider_recipe.measure import held_out_problems

ZOO = Path(__file__).resolve().parents[1] / "zoo"
HEALTHY = "healthy"
MAX_TOKENS = 48
HEALTHY_SEEDS = 16
DAMAGED_SEEDS = 2


def population() -> list[Prompt]:
    """120 prompts, half code and half word problems, in alternation."""
    code = []
    for prompt in read_prompts(ZOO / "prompts.jsonl"):
        if prompt.category != "code":
            continue
        lines = prompt.turns[0].splitlines(keepends=True)
        for part in (1, 2, 3):  # a third, two thirds and all of its lines
            text = "".join(lines[: -(-len(lines) * part // 3)])
            name = f"{prompt.prompt_id}/{part}"
            code.append(Prompt(prompt_id=name, category="code", turns=(text,), is_chat=False))
    problems = held_out_problems(HELD_OUT_FAMILIES, per_family=4)[: len(code)]
    questions = [
        Prompt(prompt_id=f"problem {index}", category="arithmetic", turns=(problem.question,), is_chat=True)
        for index, problem in enumerate(problems)
    ]
    return [prompt for pair in zip(code, questions, strict=True) for prompt in pair]


def counts(sample: Sample) -> list[int]:
    """A pool's row for one request: steps, drafts, draft tokens, output tokens, accepted at 1, 2, 3."""
    return [
        sample.num_steps,
        sample.num_drafts,
        sample.num_draft_tokens,
        sample.num_tokens,
        *sample.num_accepted_tokens_per_pos,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gate-pools.json")
    arguments = parser.parse_args()
    prompts = population()
    text: dict[tuple[float, int, str], tuple[str, str]] = {}
    pools: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        healthy = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
        heads = {HEALTHY: healthy, **damaged_heads(ZOO / "tiny-eagle3", Path(directory))}
        key = {}
        for name, config in heads.items():
            llm = open_engine(str(ZOO / "tiny"), config)
            key = platform_key(llm)
            pools[name] = {"0": [], "1": []}
            runs = [(0.0, 0)] + [(1.0, seed) for seed in range(HEALTHY_SEEDS if name == HEALTHY else DAMAGED_SEEDS)]
            for temperature, seed in runs:
                run = measure(llm, prompts, max_tokens=MAX_TOKENS, temperature=temperature, seed=1000 * seed)
                for sample in run.samples:
                    facts = (sample.tokens_digest, sample.logits_digest)
                    assert text.setdefault((temperature, seed, sample.prompt), facts) == facts, (name, sample.prompt)
                pools[name][f"{temperature:g}"].append([counts(sample) for sample in run.samples])
                print(name, temperature, seed, f"{run.stats.mean_acceptance_length:.3f}", flush=True)
    head = {
        "prompts": [[prompt.prompt_id, prompt.category] for prompt in prompts],
        "columns": ["steps", "drafts", "draft tokens", "tokens", "accepted at 1", "at 2", "at 3"],
        "platform": key,
        "max_tokens": MAX_TOKENS,
    }
    arguments.output.write_text(json.dumps({**head, "pools": pools}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
