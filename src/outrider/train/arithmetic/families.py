"""A family of word problems: how its numbers are drawn, the steps that solve it, the ways it is told.

Families are written as short text blocks (see `parse`); this file reads them and draws one problem from
one. It does not know which families or numbers are held out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from .facts import Fact, is_in_scope, spell
from .wording import disturb, reword
from .words import INVENTED, SCENES, draw_cast

# What each kind of step says before it computes. The operator is a check on the family's text.
CUES = {
    "gain": ("+", "More are added, so add"),
    "total": ("+", "Put the parts together, so add"),
    "more": ("+", "It is more than the other, so add"),
    "lose": ("-", "Some are taken away, so subtract"),
    "left": ("-", "Find what is left, so subtract"),
    "fewer": ("-", "It is less than the other, so subtract"),
    "diff": ("-", "Find the difference, so subtract"),
    "need": ("-", "Find what is missing, so subtract"),
    "groups": ("*", "Equal groups, so multiply"),
    "cost": ("*", "Price times count, so multiply"),
    "rate": ("*", "The same amount each time, so multiply"),
    "times": ("*", "Times as many, so multiply"),
    "share": ("/", "Split equally, so divide"),
    "pack": ("/", "Count the groups, so divide"),
    "part": ("/", "A part of it, so divide"),
    "each": ("/", "Find one of them, so divide"),
}
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
OPERATORS = {"+", "-", "*", "/"}
SLOTS = set(draw_cast(Random(0)))  # letters that numbers may not use
_TOLD = re.compile(r"(\d?)> *(.*)")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a family's arithmetic: `name = left operator right`; operands are names or literals."""

    name: str
    left: str
    operator: str
    right: str
    kind: str = ""  # a key of CUES for a step of the answer; empty for a number of the story


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    ranges: dict[str, tuple[int, int, int]]  # number -> (low, high, step)
    derived: tuple[Rule, ...]  # numbers of the story that follow from drawn ones
    conditions: tuple[tuple[str, str], ...]  # (small, large): small < large
    steps: tuple[Rule, ...]
    parts: tuple[tuple[str, ...], ...]  # a telling is one of each, in order


@dataclass(frozen=True, slots=True)
class Problem:
    family: str
    question: str
    answer: str  # worked steps, then `#### value`
    value: int
    numbers: tuple[int, ...]  # as they stand in the question
    facts: tuple[Fact, ...]  # every fact that the answer states


def parse(text: str) -> list[Family]:
    """Read blocks of the form (numbers line, step lines, tellings):

    == name
    a 2..90, b 2..60, c 10..90/10, s = a * b, b < a
    lose r = a - b
    > {A} has {a} {Xs} ...

    A telling may go on in lines indented by four. Lines `1> ...`, `2> ...` give alternatives for the first
    part, the second part and so on; every combination of them is a telling.
    """
    families = []
    for block in text.replace("\n    ", " ").split("\n== ")[1:]:
        name, numbers, *lines = [line.strip() for line in block.strip().splitlines() if line.strip()]
        ranges, derived, conditions = _parse_numbers(numbers)
        steps = tuple(_parse_rule(line) for line in lines if not _TOLD.match(line))
        told: dict[str, list[str]] = {}
        for match in filter(None, map(_TOLD.match, lines)):
            told.setdefault(match[1], []).append(match[2])
        parts = tuple(tuple(told[number]) for number in sorted(told))
        assert steps and parts, name
        assert not (set(ranges) | {rule.name for rule in derived + steps}) & SLOTS, name
        families.append(Family(name, ranges, derived, conditions, steps, parts))
    return families


def _parse_numbers(line: str) -> tuple[dict[str, tuple[int, int, int]], tuple[Rule, ...], tuple[tuple[str, str], ...]]:
    ranges, derived, conditions = {}, [], []
    for item in line.split(","):
        words = item.split()
        if ".." in item:
            low, high, step = re.fullmatch(r"(\d+)\.\.(\d+)(?:/(\d+))?", words[1]).groups()  # type: ignore[union-attr]
            ranges[words[0]] = (int(low), int(high), int(step or 1))
        elif "=" in words:
            derived.append(_parse_rule(item))
        else:
            small, sign, large = words
            assert sign == "<", item
            conditions.append((small, large))
    return ranges, tuple(derived), tuple(conditions)


def _parse_rule(line: str) -> Rule:
    head, body = line.split("=")
    left, operator, right = body.split()
    *kind, name = head.split()
    assert operator in OPERATORS, line
    if kind:
        assert CUES[kind[0]][0] == operator, line
    return Rule(name, left, operator, right, kind[0] if kind else "")


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
    """One line of an answer: where its numbers stand in the question, what is done, the computation."""
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
    """The question, and for each number of the story the character at which it first stands."""
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
