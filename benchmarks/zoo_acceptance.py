"""Acceptance of the zoo's drafters on its held-out prompts, through the engine, with exactness checked on the way.

    python benchmarks/zoo_acceptance.py [--max-tokens 128] [--output benchmarks/results/zoo-acceptance.md]

For code and arithmetic, at temperature 0 and 1: acceptance length and rate per position of EAGLE-3 and of the n-gram
drafter, and the share of distinct 4-grams in the text, so that repetition cannot pass for skill.
"""

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path

import torch

from outrider import LLM, RequestOutput, SamplingParams, SpeculationStats

ZOO = Path(__file__).resolve().parents[1] / "zoo"
DRAFTERS = {
    "EAGLE-3": {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3},
    "n-gram": {"method": "ngram", "num_speculative_tokens": 3},
}


def read_prompts() -> dict[str, list[str]]:
    """First turns by category."""
    prompts: dict[str, list[str]] = {}
    for line in (ZOO / "prompts.jsonl").read_text().splitlines():
        entry = json.loads(line)
        prompts.setdefault(entry["category"], []).append(entry["turns"][0])
    return prompts


def distinct_4_grams(outputs: list[RequestOutput]) -> float:
    """Share of different 4-grams among all 4-grams inside each output."""
    total = distinct = 0
    for output in outputs:
        ids = output.outputs[0].token_ids
        grams = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
        total += len(grams)
        distinct += len(set(grams))
    return distinct / total if total else 1.0


def generate(llm: LLM, category: str, prompts: list[str], temperature: float, max_tokens: int) -> list[RequestOutput]:
    """Code is continued as it is; questions are asked in the form the model was trained on."""
    params = [SamplingParams(temperature=temperature, seed=seed, max_tokens=max_tokens) for seed in range(len(prompts))]
    if category == "arithmetic":
        return llm.chat([[{"role": "user", "content": prompt}] for prompt in prompts], params)
    return llm.generate(prompts, params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    plain = LLM(str(ZOO / "tiny"), logits_digest=True)
    engines = {
        name: LLM(str(ZOO / "tiny"), logits_digest=True, speculative_config=config) for name, config in DRAFTERS.items()
    }
    lines = [
        "| text | temperature | drafter | acceptance length | rate per position | tokens per target step "
        "| distinct 4-grams | exact |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for category, prompts in read_prompts().items():
        for temperature in (0.0, 1.0):
            expected = generate(plain, category, prompts, temperature, arguments.max_tokens)
            for name, llm in engines.items():
                outputs = generate(llm, category, prompts, temperature, arguments.max_tokens)
                stats = SpeculationStats()
                for output in outputs:
                    stats.add(output.speculation)
                is_exact = all(
                    a.outputs[0].token_ids == b.outputs[0].token_ids
                    and a.outputs[0].logits_digest == b.outputs[0].logits_digest
                    for a, b in zip(outputs, expected, strict=True)
                )
                rates = " / ".join(f"{rate:.3f}" for rate in stats.acceptance_rate_per_pos)
                num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
                lines.append(
                    f"| {category}, {len(prompts)} prompts | {temperature:g} | {name}, k = 3 "
                    f"| {stats.mean_acceptance_length:.2f} | {rates} | {num_tokens / stats.num_steps:.2f} "
                    f"| {distinct_4_grams(outputs):.2f} | {'yes' if is_exact else 'NO'} |"
                )
                print(lines[-1], flush=True)
    head = [
        "# Acceptance of the zoo's drafters",
        "",
        f"{datetime.date.today()}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s). Command: "
        f"`python {' '.join(['benchmarks/zoo_acceptance.py', *sys.argv[1:]])}`. "
        "Acceptance length and rates count steps with drafts; n-gram has drafts only where a suffix of 2 to 4 tokens "
        "occurred before. Exact: tokens and logits digests equal those without speculation.",
        "",
    ]
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
