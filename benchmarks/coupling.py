"""The gain from shared noise: acceptance of coupled and of uncoupled drafts, in the engine and by simulation.

    python benchmarks/coupling.py [--max-tokens 64] [--num-prompts 20] [--output benchmarks/results/coupling.md]

In the engine, at temperature 0 and 1, three drafts a step, EAGLE-3 and the draft model, their drafts picked

    coupled      with the noise that the target will use (what ships);
    most likely  without noise, as an argmax;
    independent  with noise of another seed.

By simulation, on the logits of target p and draft model q at every output token of these runs (temperature 1): the
chance that the first draft is accepted under each, and under rejection sampling, which accepts Σ min(p, q) = 1 - TV.
"""

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from outrider import LLM, RequestOutput, SamplingParams, SpeculationStats
from outrider.kernels.reference.sampling import choose as choosing
from outrider.kernels.reference.sampling.noise import gumbel, gumbel_at
from outrider_recipe.checkpoints import load_target

ZOO = Path(__file__).resolve().parents[1] / "zoo"
DRAFTERS = {
    "EAGLE-3": {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3},
    "draft model": {"method": "draft_model", "model": str(ZOO / "tiny-draft"), "num_speculative_tokens": 3},
}
OTHER_SEED = 0x5EED
Noise = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def no_noise(seeds: Tensor, completion_indices: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    return torch.zeros(seeds.shape[0], token_ids.shape[0])


def other_noise(seeds: Tensor, completion_indices: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    return gumbel_at(seeds ^ OTHER_SEED, completion_indices, positions, token_ids)


PICKS: dict[str, Noise] = {"coupled": gumbel_at, "most likely": no_noise, "independent": other_noise}


def read_prompts(most: int) -> dict[str, list[str]]:
    """First turns by category."""
    prompts: dict[str, list[str]] = {}
    for line in (ZOO / "prompts.jsonl").read_text().splitlines():
        entry = json.loads(line)
        prompts.setdefault(entry["category"], []).append(entry["turns"][0])
    return {category: entries[:most] for category, entries in prompts.items()}


def generate(llm: LLM, category: str, prompts: list[str], temperature: float, max_tokens: int) -> list[RequestOutput]:
    """Code is continued as it is; questions are asked in the form the model was trained on."""
    params = [SamplingParams(temperature=temperature, seed=seed, max_tokens=max_tokens) for seed in range(len(prompts))]
    if category == "arithmetic":
        return llm.chat([[{"role": "user", "content": prompt}] for prompt in prompts], params)
    return llm.generate(prompts, params)


def in_the_engine(
    engines: dict[str, LLM], category: str, prompts: list[str], max_tokens: int
) -> tuple[list[str], list[RequestOutput]]:
    """Lines of the table, and the outputs at temperature 1. All runs must give the same tokens."""
    lines, random = [], []
    for temperature in (0.0, 1.0):
        expected: list[list[int]] | None = None
        for drafter, llm in engines.items():
            for pick in PICKS if temperature else ["most likely"]:
                with mock.patch.object(choosing, "gumbel_at", PICKS[pick]):
                    outputs = generate(llm, category, prompts, temperature, max_tokens)
                stats = SpeculationStats()
                for output in outputs:
                    stats.add(output.speculation)
                token_ids = [output.outputs[0].token_ids for output in outputs]
                expected = expected or token_ids
                rates = " / ".join(f"{rate:.3f}" for rate in stats.acceptance_rate_per_pos)
                lines.append(
                    f"| {category}, {len(prompts)} prompts | {temperature:g} | {drafter} | {pick} "
                    f"| {stats.mean_acceptance_length:.3f} | {rates} | {stats.num_drafts} "
                    f"| {'yes' if token_ids == expected else 'NO'} |"
                )
                print(lines[-1], flush=True)
                random = outputs
    return lines, random


@torch.no_grad()
def simulate(category: str, outputs: list[RequestOutput]) -> str:
    """A line: chances of the first draft at every output token, from real pairs of distributions."""
    target, draft = (load_target(ZOO / name, torch.device("cpu")) for name in ("tiny", "tiny-draft"))
    rejection, argmax, independent, agreed, bound = [], [], [], [], []
    for seed, output in enumerate(outputs):
        ids = torch.tensor([output.prompt_token_ids + output.outputs[0].token_ids])
        first = len(output.prompt_token_ids) - 1
        p_logits, q_logits = (model.logits(model.hidden(ids))[0, first:-1] for model in (target, draft))
        p, q = p_logits.softmax(-1), q_logits.softmax(-1)
        overlap = torch.minimum(p, q).sum(-1)
        rejection.append(overlap)
        bound.append(overlap / (2 - overlap))
        argmax.append(p.gather(1, q.argmax(-1, keepdim=True))[:, 0])
        independent.append((p * q).sum(-1))
        for repeat in range(16):  # more noise than the one that was used
            rows = p.shape[0]
            seeds, zeros = torch.full((rows,), 1000 * repeat + seed), torch.zeros(rows, dtype=torch.int64)
            noise = gumbel(seeds, zeros, torch.arange(rows), p.shape[1])
            agreed.append(((p_logits + noise).argmax(-1) == (q_logits + noise).argmax(-1)).float())
    figures = [float(torch.cat(values).mean()) for values in (rejection, agreed, bound, argmax, independent)]
    share = figures[1] / figures[0]
    cells = " | ".join(f"{value:.3f}" for value in figures)
    line = f"| {category}, {sum(len(values) for values in rejection)} tokens | {cells} | {100 * share:.1f} % |"
    print(line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--num-prompts", type=int, default=20)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    engines = {name: LLM(str(ZOO / "tiny"), speculative_config=config) for name, config in DRAFTERS.items()}
    engine_lines = [
        "| text | temperature | drafter | drafts picked | acceptance length | rates | drafts | same tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    pair_lines = [
        "| text | rejection sampling, 1 - TV | coupled | its bound (1-TV)/(1+TV) | most likely | independent "
        "| coupled / rejection |",
        "|---|---|---|---|---|---|---|",
    ]
    for category, prompts in read_prompts(arguments.num_prompts).items():
        lines, outputs = in_the_engine(engines, category, prompts, arguments.max_tokens)
        engine_lines += lines
        pair_lines.append(simulate(category, outputs))
    head = (
        f"{datetime.date.today()}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} thread(s). Command: "
        f"`python {' '.join(['benchmarks/coupling.py', *sys.argv[1:]])}`, which says what the columns are."
    )
    parts = ["# Coupled drafting", "", head, "", "## In the engine", "", *engine_lines]
    parts += ["", "## On pairs of real logits, first draft, temperature 1", "", *pair_lines]
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
