"""Grading of numeric answers, and a threshold that was measured."""

from dataclasses import replace
from decimal import Decimal

import pytest

from outrider.core.outputs import CompletionOutput, RequestOutput, SpeculationStats
from outrider.gate.accuracy import accuracy_baseline, grade, read_accuracy, write_accuracy
from outrider.gate.errors import GateError
from outrider.gate.grading import check_questions, few_shot, final_number
from outrider.gate.prompts import Prompt


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5 + 3 = 8.\n#### 8", "8"),
        ("#### 1,234", "1234"),
        ("#### $-12.50 dollars", "-12.5"),
        ("so he pays $3,000.", "3000"),
        ("7 apples and 9 pears", "9"),
        ("#### 5\n\nand 6", "5"),
        ("#### none, but 4 before", "4"),
        ("first 3 #### nothing", "3"),
        ("no number", None),
        ("", None),
    ],
)
def test_the_final_number(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def question(index, answer="#### 4"):
    return Prompt(prompt_id=str(index), category="g", turns=(f"Q{index}?",), is_chat=True, answer=answer)


def test_few_shot_form():
    text = few_shot(question(9), [question(1, "2 + 2 = 4\n#### 4")])
    assert text == "Question: Q1?\nAnswer: 2 + 2 = 4\n#### 4\n\nQuestion: Q9?\nAnswer:"


def output(text, *, tokens=(1, 2), digest="a"):
    completion = CompletionOutput(
        index=0, text=text, token_ids=list(tokens), finish_reason="stop", logits_digest=digest
    )
    return RequestOutput(
        request_id="r", prompt=None, prompt_token_ids=[1], outputs=[completion], seed=0, num_cached_tokens=0,
        num_preemptions=0, speculation=SpeculationStats(),
    )  # fmt: skip


QUESTIONS = [question(index) for index in range(10)]
RIGHT = [output("#### 4" if index < 8 else "#### 5") for index in range(10)]


def test_score_and_every_output_equal():
    found = grade(QUESTIONS, RIGHT, RIGHT)
    assert (found.num_right, found.num_right_plain, found.differing) == (8, 8, ())
    assert found.wrong == (("8", "4", "5"), ("9", "4", "5"))
    assert found.passed(0.8) and not found.passed(0.81)


@pytest.mark.parametrize("changes", [{"tokens": (1, 3)}, {"digest": "b"}, {"text": "#### 4 "}])
def test_an_output_that_speculation_changed_fails_whatever_the_score(changes):
    other = [output(**{"text": "#### 4"} | changes), *RIGHT[1:]]
    found = grade(QUESTIONS, other, RIGHT)
    assert found.differing == ("0",) and found.num_right == 8 and not found.passed(0.1)
    with pytest.raises(GateError, match="speculation changed 1 answers"):
        accuracy_baseline(found, questions_digest="d", max_tokens=9, num_shots=0)


def test_the_threshold_is_what_chance_leaves_of_the_measured_score(tmp_path):
    found = grade(QUESTIONS, RIGHT, RIGHT)
    baseline = accuracy_baseline(found, questions_digest="d", max_tokens=9, num_shots=0)
    assert 0.3 < baseline.threshold < 0.8
    write_accuracy(baseline, tmp_path / "a.toml")
    assert read_accuracy(tmp_path / "a.toml") == baseline


def test_a_threshold_of_zero_gates_nothing(tmp_path):
    with pytest.raises(GateError, match="a threshold of zero gates nothing"):
        accuracy_baseline(
            replace(grade(QUESTIONS, RIGHT, RIGHT), num_right=0), questions_digest="d", max_tokens=9, num_shots=0
        )
    baseline = accuracy_baseline(grade(QUESTIONS, RIGHT, RIGHT), questions_digest="d", max_tokens=9, num_shots=0)
    write_accuracy(replace(baseline, threshold=0.0), tmp_path / "a.toml")
    with pytest.raises(GateError, match="gates nothing"):
        read_accuracy(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("x = 1")
    for name, words in (("b.toml", "cannot be read"), ("c.toml", "is not a file")):
        with pytest.raises(GateError, match=words):
            read_accuracy(tmp_path / name)


def test_questions_need_numbers():
    check_questions(QUESTIONS)
    for answer in (None, "none"):
        with pytest.raises(GateError, match="has no numeric answer"):
            check_questions([question(3, answer)])
