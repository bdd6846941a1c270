"""Questions with a numeric answer, as in GSM8K: the few-shot prompt, and the number a completion ends in."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from outrider.gate.errors import GateError
from outrider.gate.prompts import Prompt

MARK = "####"
"""Mark before the final number in GSM8K's answers."""

STOPS = ("\nQuestion:", "\n\nQuestion")
"""Text at which a few-shot completion starts a new question."""

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def final_number(text: str) -> Decimal | None:
    """The number after the last mark, else the last number of the text; None if there is none."""
    marked = text.rpartition(MARK)
    found = _NUMBER.findall(marked[2]) if marked[1] else []
    number = found[0] if found else (_NUMBER.findall(text) or [""])[-1]
    try:
        return Decimal(number.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None


def few_shot(question: Prompt, examples: Sequence[Prompt]) -> str:
    """Prompt with the worked examples, then the question, in plain text."""
    parts = [f"Question: {example.turns[0]}\nAnswer: {example.answer}" for example in examples]
    return "\n\n".join([*parts, f"Question: {question.turns[0]}\nAnswer:"])


def check_questions(questions: Sequence[Prompt]) -> None:
    """Raises GateError for a question without a numeric answer."""
    for question in questions:
        if question.answer is None or final_number(question.answer) is None:
            raise GateError(
                f"question {question.prompt_id!r} has no numeric answer ({question.answer!r}). Remove it from the file."
            )
