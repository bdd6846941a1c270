"""Grades the target's text: whether code parses, whether a problem's final number is right."""

import ast
import codeop
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from outrider_recipe.arithmetic.families import Problem
from outrider_recipe.arithmetic.problems import final_answer


def cut_at_last_line(text: str) -> str:
    """Everything up to the last line end."""
    return text[: text.rfind("\n") + 1]


def parses(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def could_go_on(source: str) -> bool:
    """True if the source parses or is merely unfinished (an open bracket, string or block)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codeop.compile_command(source, "<completion>", "exec")
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class CodeGrade:
    completions: int
    parse: int  # prompt and completion, cut at the last complete line, parse
    go_on: int  # they parse or are merely unfinished

    @classmethod
    def of(cls, prompts: Sequence[str], completions: Sequence[str]) -> "CodeGrade":
        whole = [cut_at_last_line(prompt + text) for prompt, text in zip(prompts, completions, strict=True)]
        return cls(len(whole), sum(map(parses, whole)), sum(map(could_go_on, whole)))


def grade_problems(problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, tuple[int, int]]:
    """family -> (right, asked)"""
    result: dict[str, tuple[int, int]] = {}
    for problem, text in zip(problems, completions, strict=True):
        right, asked = result.get(problem.family, (0, 0))
        result[problem.family] = (right + (final_answer(text) == problem.value), asked + 1)
    return result
