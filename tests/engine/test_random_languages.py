"""Random regular expressions and schemas: every text that ends meets them, by Python's re and by jsonschema.

A language is refused as empty only if none of many values is in it. No draw is left out: a text ends, runs to its
limit, or the language is refused at admission with a reason.
"""

import random
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, RequestError, SamplingParams, StructuredOutputsParams
from outrider.engine.tokenizer import Tokenizer
from tests.support.grammar_writer import GrammarWriter
from tests.support.random_languages import keyword_soup, random_regex, random_schema, some_values
from tests.support.schema_judge import Ecma, exact, is_met, loads

ZOO = Path(__file__).resolve().parents[2] / "zoo" / "tiny"
DRAWS: dict[str, tuple[str, Callable[[random.Random], Any]]] = {
    "regex": ("regex", random_regex),
    "schema": ("json", random_schema),
    "soup": ("json", keyword_soup),
}
EMPTY = re.compile("Unsatisfiable|no finite")


@pytest.fixture(scope="module")
def writer() -> GrammarWriter:
    return GrammarWriter(Tokenizer(ZOO), vocab_size=3072, eos_token_ids=(3071, 3069))


def is_in(form: str, language: Any, text: str) -> bool:
    if form == "json":
        return is_met(language, loads(text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with [ in them
        return re.fullmatch(language, text) is not None


def check_refusal(form: str, language: Any, error: RequestError, dice: random.Random) -> str:
    """An empty language has none of some values; any other reason names what is not supported."""
    assert str(error).startswith("structured_outputs: ")
    if not EMPTY.search(str(error)):
        return "refused by name"
    assert form == "json", "no expression drawn here is empty"
    met = [value for value in map(exact, some_values(dice)) if is_met(language, value, judge=Ecma)]
    assert not met, (language, met[0], str(error))
    return "empty"


def check_draw(writer: GrammarWriter, name: str, seed: int) -> str:
    form, draw = DRAWS[name]
    dice = random.Random(seed)
    language = draw(dice)
    try:
        written = writer.write(StructuredOutputsParams(**{form: language}), dice)
    except RequestError as error:
        return check_refusal(form, language, error, dice)
    assert written.end != "error", (seed, language, written)
    if written.end == "stop":
        assert is_in(form, language, written.text), (seed, language, written.text)
    return written.end


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_random_texts_are_of_their_language(writer: GrammarWriter, name: str) -> None:
    counts = Counter(check_draw(writer, name, seed) for seed in range(50))
    assert counts["stop"] >= 30, counts


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRAWS))
def test_two_thousand_random_texts_are_of_their_language(writer: GrammarWriter, name: str) -> None:
    counts = Counter(check_draw(writer, name, seed) for seed in range(1000, 3000))
    print(f"\n{name}: {dict(counts)}")
    assert counts["stop"] >= 1200 and sum(counts.values()) == 2000, counts


@pytest.mark.slow
def test_a_model_with_drafts_writes_texts_of_their_language() -> None:
    """The whole engine, with n-gram drafts and several requests at a time."""
    llm = LLM(str(ZOO), max_model_len=512, speculative_config={"method": "ngram", "num_speculative_tokens": 3})
    counts: Counter[str] = Counter()
    cases = []
    for index in range(240):
        form, draw = DRAWS[sorted(DRAWS)[index % 3]]
        dice = random.Random(5000 + index)
        language = draw(dice)
        params = SamplingParams(
            structured_outputs=StructuredOutputsParams(**{form: language}), max_tokens=60, seed=index, temperature=1.0
        )
        try:
            llm.engine._grammars.check(params)
        except RequestError as error:
            counts[check_refusal(form, language, error, dice)] += 1
        else:
            cases.append((form, language, params))
    outputs = llm.generate(["def f("] * len(cases), [params for _, _, params in cases])
    for (form, language, _), output in zip(cases, outputs, strict=True):
        completion = output.outputs[0]
        counts[str(completion.finish_reason)] += 1
        assert completion.finish_reason in ("stop", "length"), (language, completion)
        if completion.finish_reason == "stop":
            assert is_in(form, language, completion.text), (language, completion.text)
    print(f"\nmodel: {dict(counts)}")
    assert counts["stop"] >= 60, counts
