"""A family of word problems: how its numbers are drawn, the steps that solve it, the ways it is told.

Families are written as short text blocks (see `parse`); this file reads them and draws one problem from
one. It does not know which families or numbers are held out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from .facts import Fact, is_in_scope, spell
from .words import SCENES, draw_cast

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
OPERATORS = {"+", "-", "*", "/"}
SLOTS = set(draw_cast(Random(0)))  # letters that numbers may not use
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
    tellings: tuple[str, ...]


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

    A telling may go on in lines indented by four.
    """
    families = []
    for block in text.replace("\n    ", " ").split("\n== ")[1:]:
        name, numbers, *lines = [line.strip() for line in block.strip().splitlines() if line.strip()]
        ranges, derived, conditions = _parse_numbers(numbers)
        steps = tuple(_parse_rule(line) for line in lines if not line.startswith(">"))
        tellings = tuple(line[1:].strip() for line in lines if line.startswith(">"))
        assert steps and tellings, name
        assert not (set(ranges) | {rule.name for rule in derived + steps}) & SLOTS, name
        families.append(Family(name, ranges, derived, conditions, steps, tellings))
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


def draw(family: Family, random: Random, *, attempts: int = 200) -> Problem:
    """One problem whose every computation is in scope."""
    for _ in range(attempts):
        values = {name: random.randrange(low, high + 1, step) for name, (low, high, step) in family.ranges.items()}
        solved = _solve(family, values)
        if solved is not None:
            lines, facts, result = solved
            question, numbers = _tell(family, random, values)
            answer = "\n".join([*lines, f"#### {result}"])
            return Problem(family.name, question, answer, result, numbers, tuple(facts))
    raise ValueError(f"family {family.name!r} found no numbers in {attempts} attempts; widen its ranges")


def _solve(family: Family, values: dict[str, int]) -> tuple[list[str], list[Fact], int] | None:
    for rule in family.derived:
        fact = _apply(rule, values)
        if not is_in_scope(fact):
            return None
        values[rule.name] = fact.value
    if any(values[small] >= values[large] for small, large in family.conditions):
        return None
    lines, facts, result = [], [], 0
    for rule in family.steps:
        fact = _apply(rule, values)
        if not is_in_scope(fact):
            return None
        text, stated = spell(fact)
        lines.append(f"{CUES[rule.kind][1]}: {text}.")
        facts += stated
        values[rule.name] = result = fact.value
    return lines, facts, result


def _tell(family: Family, random: Random, values: dict[str, int]) -> tuple[str, tuple[int, ...]]:
    telling = random.choice(family.tellings)
    if random.random() < 0.15:
        telling = f"{random.choice(SCENES)} {telling}"
    cast = draw_cast(random)
    slots = {**{name: str(value) for name, value in values.items()}, **cast}
    question = _SLOT.sub(lambda match: slots[match[1]], telling)
    return question, tuple(int(number) for number in re.findall(r"\d+", question))
