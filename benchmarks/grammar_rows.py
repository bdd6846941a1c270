"""Decoding with grammars: output tokens/s of requests with a schema, against the same requests without one.

Workload A's 8B Llama shape with random weights, EAGLE-3 head, k = 3, drafts accepted by equality, a vocabulary of
128256 words. c requests of 64 random tokens write up to 200 tokens at temperature 1; the same requests without a
grammar then write as many tokens each. "Mixed" runs c requests of which every fourth has a schema, and compares the
time of those without one. Needs llguidance.

    PYTHONPATH=src python3 -m benchmarks.grammar_rows [--concurrency 1,8,64]
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.decode import HEAD, TARGET
from benchmarks.timing import Table, progress, save
from benchmarks.traffic.shapes import SHAPES
from outrider import LLM, SamplingParams, StructuredOutputsParams

TEXT = {"type": "string", "minLength": 600}
FORMS = {
    "flat object": StructuredOutputsParams(
        json={
            "type": "object",
            "properties": {"name": TEXT, "age": {"type": "integer"}, "active": {"type": "boolean"}},
            "required": ["age", "active", "name"],
            "additionalProperties": False,
        }
    ),
    "nested, arrays and enums": StructuredOutputsParams(
        json={
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "minItems": 30,
                    "items": {
                        "type": "object",
                        "properties": {
                            "kind": {"enum": ["cat", "dog", "bird", "mouse"]},
                            "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 3},
                        },
                        "required": ["kind", "tags"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["items"],
            "additionalProperties": False,
        }
    ),
    "regex": StructuredOutputsParams(regex="([A-Z][a-z]{1,9} [0-9]{1,4}(, |; )){100}"),
}
"""None of them can end within 200 tokens."""

MAX_TOKENS = 200


def params(form: StructuredOutputsParams | None, seed: int) -> SamplingParams:
    free = SamplingParams(temperature=1.0, seed=seed, max_tokens=MAX_TOKENS, ignore_eos=True)
    return free if form is None else replace(free, structured_outputs=form, ignore_eos=False)


def prompts(count: int) -> list[dict[str, list[int]]]:
    rng = random.Random(1)
    return [{"prompt_token_ids": [rng.randrange(128000) for _ in range(64)]} for _ in range(count)]


def seconds(llm: LLM, asked: Sequence[SamplingParams]) -> tuple[float, float, float]:
    """Median time of three runs after one; tokens a step; mean decoding time of requests without a grammar."""
    times, free = [], []
    for turn in range(4):
        start = time.perf_counter()
        outputs = llm.generate(prompts(len(asked)), list(asked))
        if turn:
            times.append(time.perf_counter() - start)
        assert all(len(output.outputs[0].token_ids) == MAX_TOKENS for output in outputs), "an output ended early"
        plain = [o for o, one in zip(outputs, asked, strict=True) if one.structured_outputs is None]
        free = [output.timing.decode for output in plain] or [0.0]
    steps = sum(output.speculation.num_steps for output in outputs)
    return statistics.median(times), MAX_TOKENS * len(asked) / steps, statistics.mean(free)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--concurrency", default="1,8,64")
    concurrency = [int(text) for text in parser.parse_args().concurrency.split(",")]
    table = Table("Grammars", ["requests", "form", "tokens/s", "without", "share", "tokens a step", "replayed"])
    mixed = Table("A quarter with a schema", ["requests", "form", "decoding of the others, s", "without", "ratio"])
    with tempfile.TemporaryDirectory() as name:
        shape = replace(SHAPES["llama-8b"], target=TARGET, head=HEAD)
        model = shape.write(Path(name))
        llm = LLM(
            model.target,
            load_format="dummy",
            max_num_seqs=max(concurrency),
            max_model_len=1024,
            enable_prefix_caching=False,
            speculative_config={"method": "eagle3", "model": model.head, "num_speculative_tokens": 3},
        )
        for count in concurrency:
            plain, _, free = seconds(llm, [params(None, seed) for seed in range(count)])
            for form, grammar in FORMS.items():
                worker = llm.engine.worker
                before = worker.num_replayed_steps, worker.num_launched_steps
                taken, per_step, _ = seconds(llm, [params(grammar, seed) for seed in range(count)])
                replayed = worker.num_replayed_steps - before[0]
                share = replayed / (replayed + worker.num_launched_steps - before[1])
                tokens = count * MAX_TOKENS
                table.add(
                    count, form, f"{tokens / taken:.0f}", f"{tokens / plain:.0f}", f"{plain / taken:.2f}",
                    f"{per_step:.2f}", f"{share:.1%}",
                )  # fmt: skip
                progress(f"{count} {form}: {plain / taken:.2f} {share:.1%}")
            if count >= 8:
                form = "nested, arrays and enums"
                asked = [params(FORMS[form] if seed % 4 == 0 else None, seed) for seed in range(count)]
                _, _, others = seconds(llm, asked)
                mixed.add(count, form, f"{others:.3f}", f"{free:.3f}", f"{others / free:.3f}")
    command = "python3 -m benchmarks.grammar_rows"
    save("grammar-rows", "Decoding with grammars", [table, mixed], (__doc__ or "").split("\n\n")[1], command)


if __name__ == "__main__":
    main()
