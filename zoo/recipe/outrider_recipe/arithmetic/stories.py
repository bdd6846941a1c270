"""Stories as data: reads a file of `stories/` into families of word problems. Draws nothing.

    == name
    a 2..90, b 2..60, c 10..90/10, s = a * b, b < a
    lose r = a - b
    > {A} has {a} {Xs} and gives {b} of them
        to {B}. How many {Xs} are left?
    > Out of {a} {Xs} {A} gives away {b}. How many are left?

A family begins with `== ` and its name. The next line has its numbers: `a 2..90` is drawn from 2 to 90, `c 10..90/10`
in steps of 10; `s = a * b` follows from others; `b < a` is a condition. Then the steps of the answer, one per line:
the kind of step, the result's name and the computation; operands are names or integers.

A line that begins with `> ` is a telling, and goes on in lines indented by four blanks. Lines `1> …`, `2> …` are
alternatives for its first, second part and so on, and every combination is a telling. {a} stands for a number; {A},
{Xs} and the like are slots that `words.py` fills. Lines that begin with "# " are comments.
"""

import re
from dataclasses import dataclass

from outrider_recipe.arithmetic.lists import FOLDER, data_lines
from outrider_recipe.arithmetic.words import SLOTS

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
"""Kind of step to its operator, which the file must agree with, and to what an answer says before it computes."""

_TOLD = re.compile(r"(\d?)> *(.*)")
_RANGE = re.compile(r"(\w+) (\d+)\.\.(\d+)(?:/(\d+))?")


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


def read_stories(name: str) -> list[Family]:
    """Families of `stories/NAME.txt`, in the order of the file. Raises ValueError that names file and family."""
    path = FOLDER / "stories" / f"{name}.txt"
    return parse(data_lines(path), where=path.name)


def parse(lines: list[str], *, where: str) -> list[Family]:
    """Families of the format above; `where` is named in errors."""
    blocks: list[list[str]] = []
    for line in lines:
        if line.startswith("== "):
            blocks.append([line.removeprefix("== ")])
        elif not blocks:
            raise ValueError(f"{where}: {line!r} belongs to no family. Put a line `== name` above it.")
        elif line.startswith("    "):
            blocks[-1][-1] += f" {line.strip()}"
        else:
            blocks[-1].append(line)
    families = []
    for name, *rest in blocks:
        try:
            families.append(_parse_family(name, rest))
        except ValueError as error:
            raise ValueError(f"{where}: family {name!r}: {error}") from error
    return families


def _parse_family(name: str, lines: list[str]) -> Family:
    told: dict[str, list[str]] = {}
    steps = []
    if not lines:
        raise ValueError("it has no numbers. Write them below its name.")
    for line in lines[1:]:
        if match := _TOLD.fullmatch(line):
            told.setdefault(match[1], []).append(match[2])
        else:
            steps.append(_parse_rule(line, is_step=True))
    ranges, derived, conditions = _parse_numbers(lines[0])
    if not steps or not told:
        raise ValueError("it needs at least one step and one telling.")
    if taken := {*ranges, *(rule.name for rule in (*derived, *steps))} & SLOTS:
        raise ValueError(f"its numbers {sorted(taken)} are names of slots. Rename them.")
    parts = tuple(tuple(told[number]) for number in sorted(told))
    return Family(name, ranges, tuple(derived), tuple(conditions), tuple(steps), parts)


def _parse_numbers(line: str) -> tuple[dict[str, tuple[int, int, int]], list[Rule], list[tuple[str, str]]]:
    ranges, derived, conditions = {}, [], []
    for item in (part.strip() for part in line.split(",")):
        if match := _RANGE.fullmatch(item):
            ranges[match[1]] = (int(match[2]), int(match[3]), int(match[4] or 1))
        elif match := re.fullmatch(r"(\w+) < (\w+)", item):
            conditions.append((match[1], match[2]))
        else:
            derived.append(_parse_rule(item, is_step=False))
    return ranges, derived, conditions


def _parse_rule(line: str, *, is_step: bool) -> Rule:
    match = re.fullmatch(r"(?:(\w+) )?(\w+) = (\w+) ([-+*/]) (\w+)", line)
    if match is None or bool(match[1]) != is_step:
        form = "kind name = left operator right" if is_step else "a 2..90, s = a * b, b < a"
        raise ValueError(f"{line!r} is not of the form `{form}`.")
    kind, name, left, operator, right = match.groups()
    if is_step and (kind not in CUES or CUES[kind][0] != operator):
        raise ValueError(f"{line!r}: {kind!r} is not a kind of step with {operator!r}. Kinds are those of CUES.")
    return Rule(name, left, operator, right, kind or "")
