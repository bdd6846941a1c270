"""Measures a target and its head on held-out data and returns plain figures. Trains nothing.

Code prompts are beginnings of held-out files; problems are of held-out families over held-out numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer

from outrider_recipe import acceptance, grading, vocabulary
from outrider_recipe.acceptance import Continuation
from outrider_recipe.arithmetic.facts import is_held_out
from outrider_recipe.arithmetic.families import Family, Problem
from outrider_recipe.arithmetic.problems import (
    HELD_OUT_FAMILIES,
    TRAINING_FAMILIES,
    draw_held_out,
    final_answer,
    plain_prompt,
)
from outrider_recipe.head import Head
from outrider_recipe.network import Target
from outrider_recipe.prepare import CodePrompt, held_out_code, held_out_windows
from outrider_recipe.pretrain import mean_loss
from outrider_recipe.sampling import continue_prompts

CODE_TOKENS = 128
ANSWER_TOKENS = 320
PROBLEM_SEED = 20_000


def held_out_problems(families: Sequence[Family], *, per_family: int) -> list[Problem]:
    random = Random(PROBLEM_SEED)
    drawn = [draw_held_out(random, family) for family in families for _ in range(per_family)]
    return [problem for problem in drawn if problem is not None]


def _answers(
    target: Target, tokenizer: Tokenizer, problems: Sequence[Problem], *, as_chat: bool, temperature: float = 0.0
) -> list[Continuation]:
    texts = [vocabulary.chat_prompt(p.question) if as_chat else plain_prompt(p) for p in problems]
    prompts = [tokenizer.encode(text).ids for text in texts]
    outputs = continue_prompts(
        target,
        prompts,
        num_tokens=ANSWER_TOKENS,
        temperature=temperature,
        seed=PROBLEM_SEED,
        stop_ids=vocabulary.stop_ids(tokenizer),
    )
    return [Continuation(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]


def _completions(
    target: Target, prompts: Sequence[CodePrompt], *, temperature: float, stop_ids: Sequence[int]
) -> list[Continuation]:
    outputs = continue_prompts(
        target,
        [prompt.ids for prompt in prompts],
        num_tokens=CODE_TOKENS,
        temperature=temperature,
        seed=PROBLEM_SEED,
        stop_ids=stop_ids,
    )
    return [Continuation(prompt.ids, output) for prompt, output in zip(prompts, outputs, strict=True)]


def _accuracy(problems: Sequence[Problem], texts: Sequence[str]) -> dict[str, object]:
    grades = grading.grade_problems(problems, texts)
    right = [final_answer(text) == problem.value for problem, text in zip(problems, texts, strict=True)]
    unseen = [ok for ok, problem in zip(right, problems, strict=True) if any(map(is_held_out, problem.facts))]
    return {
        "asked": len(problems),
        "right": sum(right),
        "share": round(sum(right) / len(problems), 4),
        "with_a_fact_never_seen": {"asked": len(unseen), "right": sum(unseen)},
        "by_family": {name: f"{count[0]}/{count[1]}" for name, count in grades.items()},
    }


@torch.no_grad()
def measure_target(target: Target, tokenizer: Tokenizer, work: Path, *, per_family: int) -> dict[str, object]:
    device = target.model.embed_tokens.weight.device
    figures: dict[str, object] = {}
    windows = torch.tensor(held_out_windows(work, tokenizer, length=1025, most=128), device=device)
    loss = mean_loss(target, windows)
    text = tokenizer.decode(windows[:32, 1:].flatten().tolist(), skip_special_tokens=False)
    per_token = len(text.encode()) / windows[:32, 1:].numel()
    figures["held_out_code"] = {
        "tokens": windows[:, 1:].numel(),
        "nats_per_token": round(loss, 4),
        "bytes_per_token": round(per_token, 3),
        "bits_per_byte": round(loss / per_token / 0.693147, 4),
    }
    figures["code"] = _measure_code(target, tokenizer, work)
    held_out = held_out_problems(HELD_OUT_FAMILIES, per_family=per_family)
    known = held_out_problems(TRAINING_FAMILIES, per_family=-(-per_family // 12))
    for name, problems, as_chat in (
        ("arithmetic_chat", held_out, True),
        ("arithmetic_plain", held_out, False),
        ("arithmetic_known_families_held_out_numbers", known, True),
    ):
        answers = _answers(target, tokenizer, problems, as_chat=as_chat)
        texts = [tokenizer.decode(answer.output) for answer in answers]
        figures[name] = _accuracy(problems, texts)
    return figures


def _measure_code(target: Target, tokenizer: Tokenizer, work: Path) -> dict[str, object]:
    prompts = held_out_code(work, tokenizer, num_tokens=CODE_TOKENS, most=200, seed=PROBLEM_SEED)
    heads = [tokenizer.decode(prompt.ids) for prompt in prompts]
    figures: dict[str, object] = {}
    for temperature in (0.0, 1.0):
        written = _completions(target, prompts, temperature=temperature, stop_ids=vocabulary.stop_ids(tokenizer))
        texts = [tokenizer.decode(item.output) for item in written]
        grade = grading.CodeGrade.of(heads, texts)
        figures[f"temperature_{temperature:.0f}"] = {
            "completions": grade.completions,
            "parse_cut_at_last_line": grade.parse,
            "parse_or_merely_unfinished": grade.go_on,
            "distinct_4_grams": acceptance.distinct_four_grams([item.output for item in written]),
        }
        figures[f"samples_temperature_{temperature:.0f}"] = [
            {"package": p.package, "path": p.path, "prompt": head[-400:], "written": text}
            for p, head, text in list(zip(prompts, heads, texts, strict=True))[:10]
        ]
    truth = grading.CodeGrade.of(heads, [tokenizer.decode(prompt.truth) for prompt in prompts])
    figures["the_files_themselves"] = {
        "parse_cut_at_last_line": truth.parse,
        "parse_or_merely_unfinished": truth.go_on,
        "distinct_4_grams": acceptance.distinct_four_grams([prompt.truth for prompt in prompts]),
    }
    return figures


@torch.no_grad()
def measure_acceptance(
    target: Target,
    head: Head,
    tokenizer: Tokenizer,
    work: Path,
    *,
    per_family: int,
    name: str,
    each_num_drafts: Sequence[int],
) -> dict[str, object]:
    """The head `name` for each number of drafts, and prompt lookup for the last, on the same continuations."""
    prompts = held_out_code(work, tokenizer, num_tokens=CODE_TOKENS, most=200, seed=PROBLEM_SEED)
    problems = held_out_problems(HELD_OUT_FAMILIES, per_family=per_family)
    figures: dict[str, object] = {}
    for temperature in (0.0, 1.0):
        for text, continuations in (
            ("code", _completions(target, prompts, temperature=temperature, stop_ids=vocabulary.stop_ids(tokenizer))),
            ("arithmetic", _answers(target, tokenizer, problems, as_chat=True, temperature=temperature)),
        ):
            outputs = [item.output for item in continuations]
            entry: dict[str, object] = {
                "prompts": len(continuations),
                "output_tokens": sum(map(len, outputs)),
                "distinct_4_grams": acceptance.distinct_four_grams(outputs),
            }
            for num_drafts in each_num_drafts:
                key = name if len(each_num_drafts) == 1 else f"{name}_k{num_drafts}"
                entry[key] = acceptance.measure_head(
                    head, target, continuations, num_drafts=num_drafts, temperature=temperature, seed=PROBLEM_SEED
                ).figures()
            looked_up = acceptance.measure_lookup(continuations, num_drafts=each_num_drafts[-1])
            entry["prompt_lookup"] = looked_up.figures()
            figures[f"{text}_temperature_{temperature:.0f}"] = entry
    return figures
