"""Word problems: the answers are right, and nothing that is held out can be trained on."""

import re
from collections.abc import Callable, Iterator
from dataclasses import astuple
from hashlib import blake2b
from random import Random

import pytest

from outrider_recipe.arithmetic.compose import compose
from outrider_recipe.arithmetic.facts import Fact, is_held_out, is_in_scope, is_table, spell
from outrider_recipe.arithmetic.families import Problem, draw, quote
from outrider_recipe.arithmetic.problems import (
    HELD_OUT_FAMILIES,
    TRAINING_FAMILIES,
    draw_drill,
    draw_held_out,
    draw_training,
    final_answer,
    is_held_out_tuple,
)
from outrider_recipe.arithmetic.stories import Family

SEED = 11


def evaluate(expression: str) -> int:
    """`a * b + c * d` with the usual precedence; an evaluator that shares nothing with the generator."""
    total, term, pending = 0, None, "+"
    for token in expression.split():
        if token in "+-":
            assert term is not None
            total += term
            term, pending = None, token
        elif token in "*/":
            pending = token
        else:
            number = int(token)
            if term is None:
                term = -number if pending == "-" else number
            elif pending == "*":
                term *= number
            else:
                assert term % number == 0
                term //= number
    assert term is not None
    return total + term


def check(problem: Problem) -> None:
    *lines, last = problem.answer.split("\n")
    for line in lines:
        computation = line.rsplit(": ", 1)[-1].rstrip(".")
        sides = computation.split(" = ")
        assert len(sides) >= 2, line
        assert len({evaluate(side) for side in sides}) == 1, line
    assert last == f"#### {problem.value}"
    assert evaluate(lines[-1].rstrip(".").split(" = ")[-1]) == problem.value == final_answer(problem.answer)
    assert "{" not in problem.question and "}" not in problem.answer


def held_out() -> Iterator[Problem]:
    random = Random(SEED)
    for family in HELD_OUT_FAMILIES * 5:
        problem = draw_held_out(random, family)
        assert problem is not None
        yield problem


def draws(draw_one: Callable[[Random], Problem], number: int) -> Iterator[Problem]:
    random = Random(SEED)
    return (draw_one(random) for _ in range(number))


@pytest.mark.parametrize(
    ("drawn", "digest"),
    [
        (lambda: draws(draw_training, 1000), "48a3c01a8f89dcfeae5bb7bb792d56bb"),
        (lambda: draws(draw_drill, 500), "3ba7c0d3ac13ae33d79a34a7e9ffc3ec"),
        (lambda: draws(compose, 500), "d058abc5383c15038a2aa811241fc159"),
        (lambda: iter(TRAINING_FAMILIES + HELD_OUT_FAMILIES), "f01c92aff4738d3d440794d02867c770"),
        (held_out, "bc3898d8067ba63b1c3107f87232574e"),
    ],
    ids=["training", "drills", "composed", "families", "held out"],
)
def test_problems_are_those_that_the_shipped_models_were_trained_on(
    drawn: Callable[[], Iterator[Problem | Family]], digest: str
) -> None:
    """A change of the data files or of the generator changes the digest; `zoo/README.md` would then be untrue."""
    hashed = blake2b(digest_size=16)
    for one in drawn():
        hashed.update(repr(astuple(one)).encode())
    assert hashed.hexdigest() == digest


def test_worked_answers_check_out() -> None:
    random = Random(SEED)
    for _ in range(300):
        check(draw_training(random))
        check(draw_drill(random))


@pytest.mark.parametrize("family", HELD_OUT_FAMILIES, ids=lambda family: family.name)
def test_held_out_answers_check_out(family: Family) -> None:
    random = Random(SEED)
    for _ in range(10):
        problem = draw_held_out(random, family)
        assert problem is not None and is_held_out_tuple(problem.numbers)
        check(problem)


def test_training_never_shows_a_held_out_tuple_or_fact() -> None:
    random = Random(SEED)
    for _ in range(300):
        problem = draw_training(random)
        assert not is_held_out_tuple(problem.numbers)
        for left, operator, right in re.findall(r"(\d+) ([-+*/]) (\d+)(?= =)", problem.answer):
            assert not is_held_out(Fact(int(left), operator, int(right))), problem.answer


def test_held_out_families_are_not_trained_on() -> None:
    sides = [TRAINING_FAMILIES, HELD_OUT_FAMILIES]
    names = [family.name for side in sides for family in side]
    told = [text for side in sides for family in side for part in family.parts for text in part if len(text) > 80]
    assert len(set(names)) == len(names) and len(set(told)) == len(told)
    assert len(TRAINING_FAMILIES) >= 50 and len(HELD_OUT_FAMILIES) >= 10


def test_every_training_family_can_be_drawn() -> None:
    random = Random(SEED)
    for family in TRAINING_FAMILIES:
        check(draw(family, random, is_varied=True))


def test_spelling_states_what_it_uses() -> None:
    text, facts = spell(Fact(23, "*", 7))
    assert text == "23 * 7 = 20 * 7 + 3 * 7 = 140 + 21 = 161"
    assert facts == [Fact(23, "*", 7), Fact(20, "*", 7), Fact(3, "*", 7), Fact(140, "+", 21)]
    assert spell(Fact(161, "/", 7))[0] == "161 / 7 = 140 / 7 + 21 / 7 = 20 + 3 = 23"
    assert is_table(Fact(12, "*", 12)) and not is_table(Fact(13, "*", 7))
    assert not is_in_scope(Fact(7, "/", 2)) and not is_in_scope(Fact(4, "-", 4))


def test_quotes_stay_within_their_sentence() -> None:
    question = "Tom pays $12 for a hat. On Monday he buys 3 more hats at noon. How many are left?"
    assert quote(question, question.index("12")) == "Tom pays $12 for a hat"
    assert quote(question, question.index("3 more")) == "he buys 3 more hats at"
