"""Training and held-out problems, and the forms in which a model reads them. Knows nothing of tokens.

A tuple of numbers belongs to the held-out side if its hash says so: no training problem, of whatever
family, uses such a tuple, and no training answer states a held-out fact.
"""

import re
from random import Random

from outrider_recipe.arithmetic.compose import compose
from outrider_recipe.arithmetic.facts import Fact, bucket, is_held_out, is_in_scope, spell
from outrider_recipe.arithmetic.families import Problem, draw
from outrider_recipe.arithmetic.stories import Family, read_stories

TOLD_WHOLE = ("change", "groups", "money", "mixed", "scenes")
WHOLE_FAMILIES: list[Family] = [family for name in TOLD_WHOLE for family in read_stories(name)]
SHAPE_FAMILIES: list[Family] = read_stories("shapes")
DEVELOPMENT_FAMILIES: list[Family] = read_stories("development")
TRAINING_FAMILIES = WHOLE_FAMILIES + SHAPE_FAMILIES + DEVELOPMENT_FAMILIES
HELD_OUT_FAMILIES: list[Family] = read_stories("heldout")
COMPOSED_SHARE = 0.35  # of the stories
SHAPE_SHARE = 0.3
DEVELOPMENT_SHARE = 0.17
DRILL_SHARE = 0.12
QUESTION_FORMS = ("What is {}?", "Compute {}.", "{} = ?", "How much is {}?", "Calculate {}.")


def is_held_out_tuple(numbers: tuple[int, ...]) -> bool:
    return bucket(" ".join(map(str, sorted(numbers)))) == 0


def is_trainable(problem: Problem) -> bool:
    return not is_held_out_tuple(problem.numbers) and not any(map(is_held_out, problem.facts))


def draw_training(random: Random) -> Problem:
    """A story of a training family, or a composed story, with no held-out tuple and no held-out fact."""
    while True:
        roll = random.random()
        if roll < COMPOSED_SHARE:
            problem = compose(random)
        else:
            roll -= COMPOSED_SHARE
            families = SHAPE_FAMILIES if roll < SHAPE_SHARE else WHOLE_FAMILIES
            if SHAPE_SHARE <= roll < SHAPE_SHARE + DEVELOPMENT_SHARE:
                families = DEVELOPMENT_FAMILIES
            problem = draw(random.choice(families), random, is_varied=True)
        if is_trainable(problem):
            return problem


def draw_held_out(random: Random, family: Family, *, attempts: int = 500) -> Problem | None:
    """A story of `family` over a held-out tuple of numbers; None where its few tuples are all for training."""
    for _ in range(attempts):
        problem = draw(family, random)
        if is_held_out_tuple(problem.numbers):
            return problem
    return None


def draw_drill(random: Random) -> Problem:
    """A bare computation, for practice only."""
    while True:
        operator = random.choice("+-*/")
        if operator in "+-":
            limit = random.choice((20, 100, 400, 999))
            left, right = random.randrange(1, limit), random.randrange(1, limit)
        else:
            left, right = random.randrange(2, 13), random.randrange(2, 100)
            left, right = (left * right, left) if operator == "/" else (right, left)
        fact = Fact(left, operator, right)
        if not is_in_scope(fact):
            continue
        text, stated = spell(fact)
        form = random.choice(QUESTION_FORMS).format(fact)
        problem = Problem("drill", form, f"{text}.\n#### {fact.value}", fact.value, (left, right), tuple(stated))
        if is_trainable(problem):
            return problem


def plain_prompt(problem: Problem) -> str:
    return f"Question: {problem.question}\nAnswer:"


def plain_text(problem: Problem) -> str:
    """The problem as running text; the caller ends the document."""
    return f"{plain_prompt(problem)} {problem.answer}"


def final_answer(text: str) -> int | None:
    """The number after the first `####`, or None where there is none."""
    match = re.search(r"#### (-?\d+)", text)
    return int(match[1]) if match else None
