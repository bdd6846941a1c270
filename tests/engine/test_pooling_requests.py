"""Pooling requests at admission: exact counts, refusals with a remedy, pairs; and `AsyncLLM`, in its process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from outrider import (
    LLM,
    AsyncLLM,
    ConfigError,
    PairOptions,
    PoolingParams,
    RequestError,
    SamplingParams,
    UnsupportedError,
)
from outrider.core.pooling import PoolingAbilities
from outrider.engine.pooling_admission import PoolingAdmission
from outrider.engine.tokenizer import Tokenizer
from outrider.models.qwen3 import RERANKER
from outrider.platforms.cpu import Platform
from tests.support.pooling_models import END, write_classifier, write_embedder
from tests.support.tiny_models import write_tiny_model

TEXT = "the quick brown fox jumps over the lazy dog, Grüße aus Köln"
QUERY = "who jumps over the dog?"
LIMIT = 60


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors")
    write_embedder(path)
    return path


@pytest.fixture(scope="module")
def reference(directory: Path) -> Any:
    """transformers' own tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(directory)


def admission(directory: Path, **abilities: Any) -> PoolingAdmission:
    abilities = {"tasks": ("embed", "token_embed"), "default_task": "embed", "embedding_size": 64} | abilities
    return PoolingAdmission(
        tokenizer=Tokenizer(directory),
        vocab_size=420,
        max_model_len=LIMIT,
        abilities=PoolingAbilities(**abilities),
    )


def joined(directory: Path, **abilities: Any) -> PoolingAdmission:
    found = {"tasks": ("classify", "score"), "default_task": "classify", "embedding_size": None, "labels": ("score",)}
    return admission(directory, pair_input="joined", **(found | abilities))


def ids_of(one: PoolingAdmission, text: Any, **params: Any) -> list[int]:
    return list(one.request(text, PoolingParams(**params), request_id="a").prompt_token_ids)


def pair_of(one: PoolingAdmission, query: str, document: str, **fields: Any) -> list[list[int]]:
    names = ("max_tokens_per_query", "max_tokens_per_doc", "instruction")
    options = PairOptions(**{name: fields.pop(name) for name in names if name in fields})
    batch = one.pairs([query], [document], PoolingParams(**fields), options=options, new_id=iter("abc").__next__)
    return [list(request.prompt_token_ids) for request in batch.requests]


@pytest.mark.parametrize("side", ["left", "right", None])
@pytest.mark.parametrize("limit", [2, 7, 30, 59, -1, None])
def test_a_text_is_cut_as_by_transformers(directory: Path, reference: Any, limit: int | None, side: str | None) -> None:
    reference.truncation_side = side or "right"
    length = LIMIT if limit in (-1, None) else limit
    expected = reference(TEXT, truncation=True, max_length=length)["input_ids"]
    found = ids_of(admission(directory), TEXT, truncate_prompt_tokens=limit, truncation_side=side)
    assert found == expected and found[-1] == END and len(found) == min(length, len(reference(TEXT)["input_ids"]))


@pytest.mark.parametrize("limit", [4, 5, 9, 20, 33, 50, -1])
@pytest.mark.parametrize("texts", [(TEXT, QUERY), (QUERY, TEXT), (QUERY, QUERY), ("a", TEXT), (TEXT, "b")])
def test_a_pair_is_cut_as_by_transformers(directory: Path, reference: Any, texts: tuple[str, str], limit: int) -> None:
    reference.truncation_side = "right"
    expected = reference(*texts, truncation=True, max_length=LIMIT if limit == -1 else limit)
    one = joined(directory)
    batch = one.pairs([texts[0]], [texts[1]], PoolingParams(truncate_prompt_tokens=limit), new_id=iter("a").__next__)
    (request,) = batch.requests
    assert list(request.prompt_token_ids) == expected["input_ids"]


@pytest.mark.parametrize(("query_limit", "doc_limit"), [(0, 0), (3, 0), (0, 4), (3, 4), (50, 59)])
def test_limits_of_query_and_document_are_exact(
    directory: Path, reference: Any, query_limit: int, doc_limit: int
) -> None:
    limits = {"max_tokens_per_query": query_limit, "max_tokens_per_doc": doc_limit}
    query, document = (reference.encode(text, add_special_tokens=False) for text in (QUERY, "the lazy dog naps"))
    cut = [query[: query_limit or None], document[: doc_limit or None]]
    assert pair_of(joined(directory), QUERY, "the lazy dog naps", **limits) == [[*cut[0], END, *cut[1], END]]
    vectors = pair_of(admission(directory, pair_input="vectors"), QUERY, "the lazy dog naps", **limits)
    assert vectors == [[*cut[0], END], [*cut[1], END]]


def test_a_limit_that_binds_nothing_changes_no_token_of_a_template(directory: Path) -> None:
    one = PoolingAdmission(
        tokenizer=Tokenizer(directory), vocab_size=420, max_model_len=1000,
        abilities=PoolingAbilities(
            tasks=("classify", "score"), default_task="score", pair_input="joined", pair_template=RERANKER.template,
            labels=("score",),
        ),
    )  # fmt: skip
    (whole,) = pair_of(one, QUERY, TEXT)
    assert pair_of(one, QUERY, TEXT, max_tokens_per_query=999, max_tokens_per_doc=999) == [whole]
    (cut,) = pair_of(one, QUERY, TEXT, max_tokens_per_doc=5)
    tokenizer = Tokenizer(directory)
    before, after = (
        tokenizer.encode(text, add_special_tokens=False) for text in (RERANKER.template.before, RERANKER.template.after)
    )
    assert cut[: len(before)] == before and cut[-len(after) :] == after and len(cut) < len(whole)
    (short,) = pair_of(one, QUERY, TEXT, truncate_prompt_tokens=len(before) + len(after) + 3)
    assert len(short) == len(before) + len(after) + 3 and short[-len(after) :] == after


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        (TEXT * 6, {}, r"the prompt has \d+ tokens and max_model_len=60.*truncate_prompt_tokens=-1"),
        (TEXT, {"truncate_prompt_tokens": 61}, "truncate_prompt_tokens=61 is above max_model_len=60"),
        (TEXT, {"truncate_prompt_tokens": 1}, "truncate_prompt_tokens=1 leaves no text beside 1 special tokens"),
        (TEXT, {"task": "classify"}, "task='classify' is not one of this model: it has embed, token_embed"),
        (TEXT, {"dimensions": 65}, "dimensions=65: this model's vectors have 64 numbers"),
        ({"prompt_token_ids": []}, {}, "the prompt is empty"),
        ({"prompt_token_ids": [420]}, {}, "prompt_token_ids holds 420, which is not a token id. Use 0 to 419"),
        ({"prompt_token_ids": [1], "image": 2}, {}, "is not a prompt"),
        (7, {}, "is not a prompt"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(
    directory: Path, prompt: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ids_of(admission(directory), prompt, **params)


@pytest.mark.parametrize(
    ("queries", "documents", "fields", "message"),
    [
        (["a"], [], {}, "1 queries and 0 documents make no pairs"),
        (["a", "b"], ["c"], {}, "2 queries and 1 documents make no pairs"),
        (["a"], ["b"], {"max_tokens_per_doc": 60}, "max_tokens_per_doc=60 is not below max_model_len=60"),
        (["a"], ["b"], {"instruction": "judge"}, "instruction='judge' has no place"),
        ([3], ["b"], {}, "3 is a int. Give text"),
    ],
)
def test_pairs_that_cannot_be_served_are_refused(
    directory: Path, queries: Any, documents: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        joined(directory).pairs(queries, documents, options=PairOptions(**fields), new_id=iter("abc").__next__)
    with pytest.raises(RequestError, match="this model scores no pairs"):
        admission(directory).pairs(["a"], ["b"], new_id=iter("abc").__next__)


def test_ids_are_cut_at_the_side_that_is_asked_for(directory: Path) -> None:
    ids, one = list(range(10, 20)), admission(directory)
    prompt = {"prompt_token_ids": ids}
    assert ids_of(one, prompt, truncate_prompt_tokens=4) == ids[:4]
    assert ids_of(one, prompt, truncate_prompt_tokens=4, truncation_side="left") == ids[-4:]


def test_scores_of_vectors_are_cosines_and_a_query_is_read_once(directory: Path) -> None:
    llm = LLM(str(directory), device="cpu", enable_prefix_caching=False)
    documents = ["the fox", "a dog", QUERY]
    outputs = llm.score(QUERY, documents)
    vectors = [output.outputs.embedding for output in llm.embed([QUERY, *documents])]
    for output, vector in zip(outputs, vectors[1:], strict=True):
        cosine = sum(a * b for a, b in zip(vectors[0], vector, strict=True))
        assert output.outputs.score == pytest.approx(cosine, abs=1e-6)
    assert outputs[2].outputs.score == pytest.approx(1.0)
    assert llm.engine.stats().finished["stop"] == 8
    assert [llm.score(QUERY, text)[0].outputs.score for text in documents] == [o.outputs.score for o in outputs]


def test_no_times_of_steps_are_kept(directory: Path) -> None:
    """Texts are not cut by measured times, so a step leaves nothing behind for one that would read them."""
    llm = LLM(str(directory), device="cpu")
    llm.embed([TEXT, QUERY])
    llm.embed(TEXT)
    assert llm.engine.scheduler.num_steps >= 2 and llm.engine._clock._launches == {}


def test_an_engine_refuses_what_the_other_kind_does(directory: Path, tmp_path: Path) -> None:
    pools = LLM(str(directory), device="cpu")
    with pytest.raises(RequestError, match=r"generates no text\. Start it with runner='generate'"):
        pools.generate(TEXT)
    with pytest.raises(RequestError, match="task='score' is not that of this call, 'embed'"):
        pools.embed(TEXT, pooling_params=PoolingParams(task="score"))
    write_tiny_model(tmp_path, "llama")
    generates = LLM(str(tmp_path), device="cpu", skip_tokenizer_init=True)
    for call in (generates.embed, generates.classify, generates.encode, lambda text: generates.score(text, text)):
        with pytest.raises(RequestError, match=r"makes no vectors or scores\. Start it with runner='pooling'"):
            call(TEXT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": "embed"}, "runner='embed' is not known; it takes 'auto', 'generate', 'pooling'"),
        ({"speculative_config": {"method": "ngram"}}, "speculative_config='ngram' needs an output"),
        ({"logits_digest": True}, "logits_digest=True hashes logits"),
    ],
)
def test_an_option_that_needs_text_is_refused(directory: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LLM(str(directory), device="cpu", **options)


def test_a_device_that_was_not_tested_refuses_to_pool(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Platform, "can_pool", False)
    with pytest.raises(UnsupportedError, match="pools, and device='cpu' does not"):
        LLM(str(directory), device="cpu")


def test_max_seq_length_of_the_files_is_the_limit(tmp_path: Path) -> None:
    write_embedder(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    llm = LLM(str(tmp_path), device="cpu")
    assert len(llm.embed(TEXT * 4, truncate_prompt_tokens=-1)[0].prompt_token_ids) == 40
    with pytest.raises(ConfigError, match="max_model_len=50 is above max_seq_length=40"):
        LLM(str(tmp_path), device="cpu", max_model_len=50)


@pytest.mark.slow
def test_the_process_of_async_llm_gives_the_same_bytes_and_aborts(directory: Path, tmp_path: Path) -> None:
    texts = [TEXT[:length] for length in (5, 20, 40, 59)]
    expected = [output.outputs.values.tobytes() for output in LLM(str(directory), device="cpu").encode(texts)]

    async def one(llm: AsyncLLM, text: str) -> bytes:
        (output,) = [entry async for entry in llm.encode(text, request_id=text)]
        assert output.request_id == text and output.finished
        return output.outputs.values.tobytes()

    async def scenario() -> None:
        async with AsyncLLM(str(directory), device="cpu") as llm:
            assert await asyncio.gather(*(one(llm, text) for text in texts)) == expected
            with pytest.raises(RequestError, match="generates no text"):
                [entry async for entry in llm.generate(TEXT, SamplingParams())]
            waiting = [asyncio.ensure_future(one(llm, TEXT[:50] + str(index))) for index in range(60)]
            await asyncio.sleep(0)
            await llm.abort(TEXT[:50] + "59")
            results = await asyncio.gather(*waiting, return_exceptions=True)
            refused = [result for result in results if isinstance(result, RequestError)]
            assert all("was aborted before it had ended" in str(error) for error in refused) and len(refused) <= 1
            assert (await llm.stats()).finished["stop"] == 4 + 60 - len(refused)
        write_classifier(tmp_path, "llama", num_labels=2)
        async with AsyncLLM(str(tmp_path), device="cpu", skip_tokenizer_init=True) as llm:
            (output,) = [entry async for entry in llm.encode({"prompt_token_ids": [5, 6]})]
            assert output.outputs.shape == (2,)

    asyncio.run(scenario())


def test_an_output_says_how_long_it_waited_and_ran(directory: Path) -> None:
    llm = LLM(str(directory), device="cpu", max_num_seqs=2)
    outputs = llm.encode([TEXT] * 6, use_tqdm=False)
    timings = [output.timing for output in outputs]
    assert all(timing is not None and timing.prefill is not None for timing in timings)
    assert all(timing.queue >= 0 and timing.prefill > 0 and timing.decode == 0 for timing in timings)
    assert timings[-1].queue > timings[0].queue, "two run at once, and the last one waits for the others"
    assert outputs[0].outputs.values == outputs[5].outputs.values
