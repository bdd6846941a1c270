"""Draws a word problem from a family: its numbers, one of its tellings, the worked answer.

`stories.py` reads families. This file does not know which families or numbers are held out.
"""

import re
from dataclasses import dataclass
from random import Random

from outrider_recipe.arithmetic.facts import Fact, is_in_scope, spell
from outrider_recipe.arithmetic.stories import CUES, Family, Rule
from outrider_recipe.arithmetic.wording import disturb, reword
from outrider_recipe.arithmetic.words import INVENTED, SCENES, draw_cast

# Words that stand for a number of a step.
WORDS_FOR = {
    "2": r"\b(twice|two|doubl\w+|half|halves|pairs?|there and back|2)\b",
    "3": r"\b(thirds?|triple|three|3)\b",
    "4": r"\b(fourths?|quarters?|four|4)\b",
    "5": r"\b(fifths?|nickels?|five|5)\b",
    "7": r"\b(weeks?|seven|7)\b",
    "10": r"\b(tenths?|dimes?|ten|10)\b",
    "12": r"\b(dozens?|twelve|12)\b",
    "60": r"\b(hours?|60)\b",
}
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Problem:
    family: str
    question: str
    answer: str  # worked steps, then `#### value`
    value: int
    numbers: tuple[int, ...]  # as they are written in the question
    facts: tuple[Fact, ...]  # every fact that the answer states


def _apply(rule: Rule, values: dict[str, int]) -> Fact:
    left = values[rule.left] if rule.left in values else int(rule.left)
    right = values[rule.right] if rule.right in values else int(rule.right)
    return Fact(left, rule.operator, right)


def draw(family: Family, random: Random, *, is_varied: bool = False, attempts: int = 200) -> Problem:
    """One problem whose every computation is in scope; varied: reworded, and with invented words."""
    for _ in range(attempts):
        values = {name: random.randrange(low, high + 1, step) for name, (low, high, step) in family.ranges.items()}
        solved = _solve(family, values)
        if solved is not None:
            facts, result = solved
            question, places = _tell(family, random, values, is_varied=is_varied)
            lines = [explain(question, places, rule, fact) for rule, fact in zip(family.steps, facts, strict=True)]
            return make_problem(family.name, question, lines=lines, facts=facts, value=result)
    raise ValueError(f"family {family.name!r} found no numbers in {attempts} attempts; widen its ranges")


def make_problem(family: str, question: str, *, lines: list[str], facts: list[Fact], value: int) -> Problem:
    answer = "\n".join([*lines, f"#### {value}"])
    stated = tuple(one for fact in facts for one in spell(fact)[1])
    return Problem(family, question, answer, value, tuple(map(int, re.findall(r"\d+", question))), stated)


def explain(question: str, places: dict[str, int], rule: Rule, fact: Fact) -> str:
    """One line of an answer: where its numbers are in the question, what is done, the computation."""
    found = [places[operand] for operand in (rule.left, rule.right) if operand in places]
    for operand in (rule.left, rule.right):
        if operand in WORDS_FOR and (match := re.search(WORDS_FOR[operand], question, re.IGNORECASE)):
            found.append(match.start())
    quotes = [quote(question, place) for place in sorted(set(found))]
    evidence = f"{'; '.join(quotes)}. " if quotes else ""
    return f"{evidence}{CUES[rule.kind][1]}: {spell(fact)[0]}."


def quote(question: str, place: int) -> str:
    """The word at this character, up to two words before it and three after it (five where it begins the sentence)."""
    begin = max(question.rfind(mark, 0, place) for mark in (". ", "? ", "! "))
    begin = begin + 2 if begin >= 0 else 0
    before = question[begin:place].split()
    glued = [] if place == 0 or question[place - 1] == " " else [before.pop()]
    after = re.split(r"[.?!](?: |$)", question[place:], maxsplit=1)[0].split()
    words = [*before[-2:], "".join([*glued, after[0]]), *after[1 : 4 if before else 6]]
    return " ".join(words).rstrip(",;:")


def _solve(family: Family, values: dict[str, int]) -> tuple[list[Fact], int] | None:
    for rule in family.derived:
        fact = _apply(rule, values)
        if not is_in_scope(fact):
            return None
        values[rule.name] = fact.value
    if any(values[small] >= values[large] for small, large in family.conditions):
        return None
    facts: list[Fact] = []
    for rule in family.steps:
        fact = _apply(rule, values)
        if not is_in_scope(fact):
            return None
        facts.append(fact)
        values[rule.name] = fact.value
    return facts, facts[-1].value


def _tell(family: Family, random: Random, values: dict[str, int], *, is_varied: bool) -> tuple[str, dict[str, int]]:
    """The question, and for each number of the story the character at which it first appears."""
    telling = " ".join(random.choice(part) for part in family.parts)
    if is_varied:
        telling = disturb(reword(telling, random), random)
    if random.random() < 0.15:
        telling = f"{random.choice(SCENES)} {telling}"
    return fill(telling, draw_cast(random, invented=INVENTED if is_varied else 0.0), values)


def fill(telling: str, cast: dict[str, str], values: dict[str, int]) -> tuple[str, dict[str, int]]:
    question = ""
    places: dict[str, int] = {}
    for index, part in enumerate(_SLOT.split(telling)):
        if index % 2 == 0:
            question += part
        elif part in cast:
            starts = not question or question.endswith((". ", "? ", "! "))
            question += cast[part][0].upper() + cast[part][1:] if starts else cast[part]
        else:
            places.setdefault(part, len(question))
            question += str(values[part])
    return question, places
