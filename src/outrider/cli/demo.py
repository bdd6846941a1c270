"""The command `outrider demo`."""

import time

from rich.console import Console

from outrider import show
from outrider.arguments import drafter_of
from outrider.cli.verdict import print_verdict, timed
from outrider.core.sampling_params import SamplingParams
from outrider.core.zoo import shipped
from outrider.llm import LLM
from outrider.progress import working

DEMO_PROMPTS = (
    "Question: Anna has 14 apples and buys 9 more. How many apples does she have?\nAnswer:",
    """import torch
from torch import nn


class MLP(nn.Module):
    \"\"\"A small feed-forward network.\"\"\"

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, output_size)

    def forward(self, x):
""",
    """import os
import json


def load_config(path):
    \"\"\"Read a JSON file and return its content as a dict.\"\"\"
    with open(path) as f:
        return json.load(f)


def save_config(path, config):
    \"\"\"Write the config to a JSON file.\"\"\"
""",
)


def demo() -> None:
    """Complete a few prompts with the models of the zoo, and show what speculation did."""
    console = Console(highlight=False)
    started = time.monotonic()
    model = shipped("tiny")
    speculative = drafter_of(model, None)
    params = [SamplingParams(temperature=0.0, max_tokens=96)] * len(DEMO_PROMPTS)
    prompts = [*DEMO_PROMPTS, DEMO_PROMPTS[2]]
    params.append(SamplingParams(temperature=0.8, seed=7, max_tokens=96))
    with working("Loading zoo/tiny and its EAGLE-3 head"):
        llm = LLM(model, speculative_config=speculative, logits_digest=True)
    outputs, seconds = timed(lambda: llm.generate(prompts, params))
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    for output, entry in zip(outputs, params, strict=True):
        title = "greedy" if entry.is_greedy else f"temperature {entry.temperature}, seed {output.seed}"
        console.print(show.panel(output, tokenizer, title=title))
    console.print(show.legend())
    console.print(show.speculation_table(outputs, title="What speculation did (EAGLE-3, 3 drafts a step)"))
    with working("Loading zoo/tiny without a drafter"):
        other = LLM(model, logits_digest=True)
    plain, plain_seconds = timed(lambda: other.generate(prompts, params))
    console.print(show.cost(seconds=seconds, plain_seconds=plain_seconds))
    print_verdict(console, outputs, plain)
    console.print(f"{time.monotonic() - started:.1f} s in total, both runs and loading included.", style="dim")
