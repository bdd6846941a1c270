"""The shipped hybrid through the engine: held-out word problems, alike with and without its MTP module."""

import json
from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
from outrider_recipe.arithmetic.problems import final_answer

ZOO = Path(__file__).resolve().parents[2] / "zoo"
QUESTIONS = [json.loads(line) for line in (ZOO / "questions.jsonl").read_text().splitlines()][:12]
"""Three of each of four held-out families; the network that trained the model has 8 of these 12 right."""

MEASURED = 8


def answers(num_questions: int, speculative_config=None):
    llm = LLM(str(ZOO / "tiny-hybrid"), logits_digest=True, speculative_config=speculative_config)
    messages = [[{"role": "user", "content": question["question"]}] for question in QUESTIONS[:num_questions]]
    return llm.chat(messages, SamplingParams(temperature=0.0, max_tokens=160))


def facts(outputs):
    return [(o.outputs[0].token_ids, o.outputs[0].logits_digest, o.outputs[0].finish_reason) for o in outputs]


@pytest.fixture(scope="module")
def plain():
    return answers(len(QUESTIONS))


@pytest.mark.slow
def test_the_hybrid_solves_held_out_problems(plain):
    right = [
        final_answer(output.outputs[0].text) == int(question["answer"].rpartition("#### ")[2])
        for question, output in zip(QUESTIONS, plain, strict=True)
    ]
    assert sum(right) >= MEASURED
    assert {output.outputs[0].finish_reason for output in plain} == {"stop"}


@pytest.mark.slow
@pytest.mark.parametrize(("num_drafts", "least"), [(1, 1.8), (3, 3.0)])
def test_the_module_changes_nothing_but_the_number_of_steps(plain, num_drafts, least):
    check(plain, num_drafts=num_drafts, least=least)


def test_the_module_changes_nothing_in_a_few_answers():
    check(answers(2), num_drafts=3, least=3.0)


def check(plain, *, num_drafts: int, least: float) -> None:
    """Drafts change no answer, and the acceptance length lies between `least` and the largest."""
    outputs = answers(len(plain), {"method": "mtp", "num_speculative_tokens": num_drafts})
    assert facts(outputs) == facts(plain)
    drafts = sum(output.speculation.num_drafts for output in outputs)
    accepted = sum(output.speculation.num_accepted_tokens for output in outputs)
    assert least < 1 + accepted / drafts < 1 + num_drafts  # some drafts were wrong, so rejection was met too
