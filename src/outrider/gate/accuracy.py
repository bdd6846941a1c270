"""Checks that the model still answers correctly, and that speculation changes no answer.

The threshold is measured: the recorded score minus what chance explains at the alarm level (Clopper and Pearson). A
score whose threshold would be zero cannot be gated and is refused.
"""

import datetime
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from outrider.core.outputs import RequestOutput
from outrider.core.sampling_params import SamplingParams
from outrider.gate.errors import GateError
from outrider.gate.grading import STOPS, few_shot, final_number
from outrider.gate.prompts import Prompt
from outrider.gate.quantiles import binomial_lower_bound
from outrider.gate.toml_writer import write_toml
from outrider.llm import LLM

ALARM_LEVEL = 0.01
COMMENT = "Score of `outrider gate accuracy`, written with --record. The check fails below `threshold`."


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyResult:
    """Scores with and without speculation, and the differences between the two runs."""

    num_questions: int
    num_right: int
    num_right_plain: int
    differing: tuple[str, ...]
    """Ids of questions whose tokens, logits or text changed with speculation."""
    wrong: tuple[tuple[str, str, str], ...]
    """(question, expected, given) of the wrong answers."""

    @property
    def score(self) -> float:
        return self.num_right / self.num_questions

    def passed(self, threshold: float) -> bool:
        return not self.differing and self.score >= threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyBaseline:
    """A recorded score and the threshold derived from it."""

    num_questions: int
    num_right: int
    threshold: float
    questions_digest: str
    max_tokens: int
    num_shots: int
    recorded: datetime.date


def run_questions(
    llm: LLM, questions: Sequence[Prompt], examples: Sequence[Prompt], *, max_tokens: int
) -> list[RequestOutput]:
    """Generates greedy answers: few-shot as plain text if there are examples, else in the question's own form."""
    if examples:
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=list(STOPS))
        return llm.generate([few_shot(question, examples) for question in questions], params, use_tqdm=True)
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    is_chat = {question.is_chat for question in questions}
    if is_chat == {True}:
        messages = [[{"role": "user", "content": question.turns[0]}] for question in questions]
        return llm.chat(messages, params, use_tqdm=True)
    if is_chat == {False}:
        return llm.generate([question.turns[0] for question in questions], params, use_tqdm=True)
    raise GateError("some questions are chats and others are plain text. Use one form, or --few-shot.")


def grade(
    questions: Sequence[Prompt], speculated: Sequence[RequestOutput], plain: Sequence[RequestOutput]
) -> AccuracyResult:
    """Scores both runs and lists every difference between them."""
    rights: list[list[bool]] = [[], []]
    differing, wrong = [], []
    for question, ours, theirs in zip(questions, speculated, plain, strict=True):
        assert question.answer is not None
        expected = final_number(question.answer)
        for right, output in zip(rights, (ours, theirs), strict=True):
            right.append(final_number(output.outputs[0].text) == expected)
        a, b = ours.outputs[0], theirs.outputs[0]
        if (a.token_ids, a.logits_digest, a.text) != (b.token_ids, b.logits_digest, b.text):
            differing.append(question.prompt_id)
        if not rights[0][-1]:
            wrong.append((question.prompt_id, str(expected), str(final_number(a.text))))
    return AccuracyResult(
        num_questions=len(questions),
        num_right=sum(rights[0]),
        num_right_plain=sum(rights[1]),
        differing=tuple(differing),
        wrong=tuple(wrong),
    )


def accuracy_baseline(
    result: AccuracyResult, *, questions_digest: str, max_tokens: int, num_shots: int
) -> AccuracyBaseline:
    """Returns the measured threshold. Raises GateError if it would be zero, or if speculation changed an answer."""
    if result.differing:
        raise GateError(f"speculation changed {len(result.differing)} answers; a broken engine is not recorded.")
    threshold = binomial_lower_bound(result.num_right, result.num_questions, alarm_level=ALARM_LEVEL)
    if threshold <= 0.0:
        raise GateError(
            f"{result.num_right} of {result.num_questions} answers are right: a threshold of zero gates nothing. "
            "Use questions that the model can answer."
        )
    return AccuracyBaseline(
        num_questions=result.num_questions,
        num_right=result.num_right,
        threshold=round(threshold, 6),
        questions_digest=questions_digest,
        max_tokens=max_tokens,
        num_shots=num_shots,
        recorded=datetime.date.today(),
    )


def write_accuracy(baseline: AccuracyBaseline, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_toml({"accuracy": asdict(baseline)}, comment=COMMENT))


def read_accuracy(path: Path) -> AccuracyBaseline:
    """Reads a baseline. Raises GateError if the file is not an accuracy baseline or its threshold gates nothing."""
    if not path.is_file():
        raise GateError(f"--baseline {path} is not a file. Make it with --record.")
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())["accuracy"]
        baseline = AccuracyBaseline(**values)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise GateError(f"{path} cannot be read as an accuracy baseline: {error!r}. Record it again.") from error
    if not 0.0 < baseline.threshold <= 1.0:
        raise GateError(f"{path}: threshold={baseline.threshold!r} gates nothing. Record it again.")
    return baseline
