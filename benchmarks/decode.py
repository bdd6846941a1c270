"""Workload A: decoding speed of an 8B Llama shape with random weights, plain and with an EAGLE-3 head.

c requests of 512 random tokens are submitted at once and produce 257 tokens each, greedily. Decode tokens/s =
(tokens - c) / (time of the 257-token run - time of a 1-token run), median of 3 after a warm-up. With random weights
no draft would be accepted, so with EAGLE-3 acceptance is synthetic (0.75 / 0.55 / 0.40: length 2.70).

    PYTHONPATH=src python3 -m benchmarks.decode [--concurrency 1,8,64] [--drafter none,eagle3,eagle3-adaptive]
"""

import argparse
import gc
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import Table, save

from outrider import LLM, SamplingParams

TARGET = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 128001,
}
HEAD = {
    **TARGET,
    "architectures": ["LlamaForCausalLMEagle3"],
    "num_hidden_layers": 1,
    "draft_vocab_size": 32000,
}
PROMPT, OUTPUT = 512, 257
RATES = (0.75, 0.55, 0.40)


def write_configs(directory: Path) -> tuple[str, str]:
    for name, config in (("target", TARGET), ("head", HEAD)):
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps(config))
    return str(directory / "target"), str(directory / "head")


def make(
    directory: Path,
    drafter: str,
    max_num_seqs: int,
    *,
    num_speculative_tokens: int = 3,
    is_synthetic: bool = False,
    **options: Any,
) -> LLM:
    """An engine on the configs of `directory`; synthetic: drafts are accepted at the workload's rates."""
    target, head = str(directory / "target"), str(directory / "head")
    speculative: dict[str, Any] | None = None
    if drafter != "none":
        speculative = {"method": "eagle3", "model": head, "num_speculative_tokens": num_speculative_tokens}
        if drafter == "eagle3-adaptive":
            speculative["adaptive"] = True
        if is_synthetic:
            speculative |= {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": list(RATES)}
    options = {"max_model_len": 4096, "max_num_batched_tokens": 8192} | options
    return LLM(
        target,
        load_format="dummy",
        skip_tokenizer_init=True,
        max_num_seqs=max_num_seqs,
        enable_prefix_caching=False,
        speculative_config=speculative,
        **options,
    )


def timed(llm: LLM, count: int, num_tokens: int, **params: Any) -> tuple[float, int, int]:
    """Seconds, tokens and target steps of one run."""
    rng = random.Random(0)
    prompts = [{"prompt_token_ids": [rng.randrange(128000) for _ in range(PROMPT)]} for _ in range(count)]
    sampling = SamplingParams(**({"temperature": 0.0, "max_tokens": num_tokens, "ignore_eos": True} | params))
    before = llm.engine.scheduler._num_steps
    torch.cuda.synchronize()
    start = time.perf_counter()
    outputs = llm.generate(prompts, sampling)
    seconds = time.perf_counter() - start
    return seconds, sum(len(o.outputs[0].token_ids) for o in outputs), llm.engine.scheduler._num_steps - before


def profile(llm: LLM, count: int, path: str) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as prof:
        timed(llm, count, 24)
    with open(path, "a") as file:
        file.write(f"\n{count} requests\n")
        file.write(prof.key_averages().table(sort_by="cuda_time_total", row_limit=60, max_name_column_width=70))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", default="1,8,64")
    parser.add_argument("--drafter", default="none,eagle3")
    parser.add_argument("--profile")
    parser.add_argument("--random", action="store_true", help="also temperature 0.8 with top-p 0.95")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.concurrency.split(",")]
    tables = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_configs(directory)
        for drafter in arguments.drafter.split(","):
            start = time.perf_counter()
            llm = make(directory, drafter, max(counts), is_synthetic=True)
            print(f"ready in {time.perf_counter() - start:.1f} s", flush=True)
            for key, value in llm.engine.worker.describe():
                print(f"  {key}: {value}")
            table = Table(
                f"Decoding, {drafter}",
                ("requests", "sampling", "tokens/s", "ms a step", "tokens a step and request", "prefill + first, s"),
            )
            tables.append(table)
            samplings: list[tuple[str, dict[str, Any]]] = [("greedy", {})]
            if arguments.random:
                samplings.append(("T 0.8, top-p 0.95", {"temperature": 0.8, "top_p": 0.95, "seed": 1}))
            for count in counts:
                for label, params in samplings:
                    timed(llm, count, OUTPUT, **params)
                    timed(llm, count, 1, **params)
                    rates, steps_ms, firsts, per_step = [], [], [], []
                    for _ in range(3):
                        first, _, first_steps = timed(llm, count, 1, **params)
                        seconds, num_tokens, steps = timed(llm, count, OUTPUT, **params)
                        decoding = seconds - first
                        rates.append((num_tokens - count) / decoding)
                        steps_ms.append(decoding / (steps - first_steps) * 1e3)
                        per_step.append((num_tokens - count) / (steps - first_steps) / count)
                        firsts.append(first)
                    row: list[object] = [count, label]
                    row += [f"{statistics.median(rates):.1f}", f"{statistics.median(steps_ms):.3f}"]
                    row += [f"{statistics.median(per_step):.3f}", f"{statistics.median(firsts):.3f}"]
                    table.add(*row)
                    if arguments.profile and label == "greedy":
                        profile(llm, count, arguments.profile)
            del llm
            gc.collect()
            torch.cuda.empty_cache()
    save(
        "decode",
        "Workload A",
        tables,
        "An 8B Llama shape, random weights. " + (__doc__ or "").split("\n\n")[1],
        "python3 -m benchmarks.decode",
    )


if __name__ == "__main__":
    main()
