"""Encoders in the engine: pairs and counts as in transformers; the same bytes alone, in batches and in any order."""

import itertools
import random
from pathlib import Path

import pytest
import torch

from outrider import LLM, PairOptions, PoolingParams, RequestError
from outrider.kernels import stacks
from outrider.kernels.reference import text_attention
from tests.support.tiny_encoders import write_encoder_tokenizer, write_tiny_encoder

QUERIES = ("what is the capital of france", "a river", "paris")
DOCUMENTS = ("the capital of france is paris", "it runs through a city " * 4, "rivers", "xylophone quartz " * 7)


def cross_encoder(directory: Path, family: str, **options) -> tuple[LLM, object, object]:
    """The engine, and transformers' model and tokenizer."""
    oracle = write_tiny_encoder(directory, family, num_labels=1, initializer_range=0.1)
    tokenizer = write_encoder_tokenizer(directory, family)
    return LLM(str(directory), device="cpu", **options), oracle, tokenizer


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_scores_of_pairs_are_those_of_transformers(tmp_path, family):
    llm, oracle, tokenizer = cross_encoder(tmp_path, family)
    found = llm.score(QUERIES[0], list(DOCUMENTS), use_tqdm=False)
    logits = llm.score(QUERIES[0], list(DOCUMENTS), pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
    for document, score, logit in zip(DOCUMENTS, found, logits, strict=True):
        given = tokenizer(QUERIES[0], document, return_tensors="pt", return_token_type_ids=True)
        if family != "bert":
            del given["token_type_ids"]
        else:
            assert given["token_type_ids"].any()
        with torch.no_grad():
            expected = oracle(**given).logits[0, 0]
        assert score.prompt_token_ids == given["input_ids"][0].tolist()
        assert abs(logit.outputs.score - float(expected)) < 1e-4
        assert abs(score.outputs.score - float(expected.sigmoid())) < 1e-5


CASES = [
    (first, second, query, doc, most)
    for (first, second), query, doc, most in itertools.product(
        ((QUERIES[0], DOCUMENTS[1]), (QUERIES[2], DOCUMENTS[3])), (0, 1, 3), (0, 2, 9), (None, 12, -1)
    )
][:40]
"""A pair, max_tokens_per_query, max_tokens_per_doc and truncate_prompt_tokens."""


def counted(tokenizer, first: str, second: str, query: int, doc: int, most: int | None) -> int:
    """Tokens of a pair whose parts are cut, by transformers' tokenizer."""
    parts = [
        tokenizer(text, add_special_tokens=False, truncation=bool(limit), max_length=limit or None)["input_ids"]
        for text, limit in ((first, query), (second, doc))
    ]
    texts = [tokenizer.decode(part) for part in parts]
    again = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert again == parts, "the case changes its tokens when it is decoded"
    whole = tokenizer(*texts, truncation=most is not None, max_length=200 if most == -1 else most)
    return len(whole["input_ids"])


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_counts_of_cross_encoders_are_exact(tmp_path, family):
    llm, _, tokenizer = cross_encoder(tmp_path, family)
    assert len(CASES) == 40
    for first, second, query, doc, most in CASES:
        options = PairOptions(max_tokens_per_query=query, max_tokens_per_doc=doc)
        (found,) = llm.score(first, second, pair_options=options, truncate_prompt_tokens=most, use_tqdm=False)
        expected = counted(tokenizer, first, second, query, doc, most)
        assert len(found.prompt_token_ids) == expected, (query, doc, most)


def test_counts_of_bi_encoders_are_exact(tmp_path):
    write_tiny_encoder(tmp_path, "bert")
    tokenizer = write_encoder_tokenizer(tmp_path, "bert")
    llm = LLM(str(tmp_path), device="cpu")
    for first, second, query, doc, most in CASES:
        options = PairOptions(max_tokens_per_query=query, max_tokens_per_doc=doc)
        (found,) = llm.score(first, second, pair_options=options, truncate_prompt_tokens=most, use_tqdm=False)
        expected = 0
        for text, limit in ((first, query), (second, doc)):
            own = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            cut = min(own, limit or own) + 2
            expected += min(cut, 200 if most in (None, -1) else most)
        assert len(found.prompt_token_ids) == expected, (query, doc, most)


@pytest.mark.parametrize(("name", "value"), [("max_tokens_per_query", -1), ("max_tokens_per_doc", 200)])
def test_limits_that_no_model_can_have_are_refused(tmp_path, name, value):
    llm, _, _ = cross_encoder(tmp_path, "bert")
    with pytest.raises(RequestError, match=name):
        llm.score("a", "b", pair_options=PairOptions(**{name: value}), use_tqdm=False)
    with pytest.raises(RequestError, match="truncate_prompt_tokens=201"):
        llm.score("a", "b", truncate_prompt_tokens=201, use_tqdm=False)


def prompts(count: int) -> list[dict[str, list[int]]]:
    rng = random.Random(4)
    lengths = [rng.choice((1, 2, 7, 15, 16, 17, 40, 64, 199)) for _ in range(count)]
    return [{"prompt_token_ids": [rng.randrange(4, 400) for _ in range(length)]} for length in lengths]


def bytes_of(outputs) -> list[bytes]:
    return [output.outputs.values.tobytes() for output in outputs]


def is_exact(llm: LLM, count: int) -> bool:
    """A text alone, in a batch, and in another order."""
    texts = prompts(count)
    alone = [bytes_of(llm.encode(text, use_tqdm=False))[0] for text in texts]
    order = random.Random(5).sample(range(count), count)
    shuffled = bytes_of(llm.encode([texts[index] for index in order], use_tqdm=False))
    return bytes_of(llm.encode(texts, use_tqdm=False)) == alone and shuffled == [alone[index] for index in order]


@pytest.mark.parametrize(
    ("family", "count"),
    [("bert", 24), *(pytest.param(one, 256, marks=pytest.mark.slow) for one in ("bert", "xlm-roberta", "modernbert"))],
)
@pytest.mark.parametrize("labels", [None, 3])
def test_the_same_text_gives_the_same_bytes(tmp_path, family, count, labels):
    write_tiny_encoder(tmp_path, family, num_labels=labels)
    llm = LLM(str(tmp_path), device="cpu", skip_tokenizer_init=True, max_num_seqs=64, max_num_batched_tokens=1000)
    assert is_exact(llm, count)


@pytest.mark.parametrize("leak", ["linear", "attention"])
def test_a_leak_between_texts_is_seen(tmp_path, monkeypatch, leak):
    if leak == "linear":
        stock = lambda x, weight, bias=None, **_: torch.nn.functional.linear(x, weight, bias)  # noqa: E731
        found = stacks.kernels_of_texts
        monkeypatch.setattr("outrider.layers.encoder.kernels_of_texts", lambda kernels: _with(found(kernels), stock))
    else:
        right = text_attention._attend
        seen = iter(range(10**6))

        def wrong(*heads, **options):
            return right(*heads, **options) * (1.0 + 1e-6 * next(seen))

        monkeypatch.setattr(text_attention, "_attend", wrong)
    write_tiny_encoder(tmp_path, "bert")
    llm = LLM(str(tmp_path), device="cpu", skip_tokenizer_init=True, max_num_seqs=64, max_num_batched_tokens=1000)
    assert not is_exact(llm, 24)


def _with(kernels, linear):
    kernels.linear = linear
    return kernels
