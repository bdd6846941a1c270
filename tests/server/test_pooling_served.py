"""`outrider serve` with tiny random models that pool: an embedder, a reranker and a classifier, over HTTP.

Numbers are compared with those of `LLM`, counts with transformers' tokenizer.
"""

import base64
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from outrider import LLM
from tests.engine.tokenizers_made_here import save_byte_level
from tests.support.http_calls import get, post, post_all
from tests.support.pooling_models import change_config, write_classifier, write_embedder, write_reranker
from tests.support.running_server import RunningServer
from tests.support.server_under_test import ServerUnderTest

pytestmark = pytest.mark.slow

TEXTS = ["def push(self, item):", "the harbour", "a", "bread and salt " * 6, "the harbour"]
LABELS = {"0": "good", "1": "bad", "2": "neither"}


def running(model: Path, *options: object) -> Iterator[RunningServer]:
    with RunningServer("--served-model-name", "small", "--log-requests", *options, model=model) as started:
        yield started


def under_test(started: RunningServer) -> ServerUnderTest:
    return ServerUnderTest(started.url + "/", started.process, list(started.lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models."""
    folder = tmp_path_factory.mktemp("pooling")
    (folder / "embedder").mkdir()
    write_embedder(folder / "embedder")
    change_config(folder / "embedder", is_matryoshka=True)
    write_reranker(folder / "qwen3-reranker", tie_word_embeddings=True)
    (folder / "classifier").mkdir()
    write_classifier(folder / "classifier", "qwen3", num_labels=3, id2label=LABELS)
    save_byte_level(folder / "classifier")
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[RunningServer]:
    yield from running(folder / "embedder", "--max-num-seqs", 4, "--max-queued-requests", 4)


@pytest.fixture(scope="module")
def embedder(process: RunningServer) -> ServerUnderTest:
    return under_test(process)


def answer(server: ServerUnderTest, path: str, **body: Any) -> Any:
    status, found, _ = post(server, path, body)
    assert status == 200, found
    return found


def vectors(found: Any) -> list[list[float]]:
    return [entry["embedding"] for entry in found["data"]]


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[str, list[float]]:
    """The vector of each text, by `LLM`."""
    model = LLM(str(folder / "embedder"))
    return {text: output.outputs.embedding for text, output in zip(TEXTS, model.embed(TEXTS), strict=True)}


def test_the_same_text_gives_the_same_bytes(embedder: ServerUnderTest, truth: dict[str, list[float]]) -> None:
    expected = [truth[text] for text in TEXTS]
    together = answer(embedder, "v1/embeddings", input=TEXTS)
    assert vectors(together) == expected
    packed = vectors(answer(embedder, "v1/embeddings", input=TEXTS, encoding_format="base64"))
    assert [list(struct.unpack(f"<{len(expected[0])}f", base64.b64decode(each))) for each in packed] == expected
    alone = [vectors(answer(embedder, "v1/embeddings", input=text))[0] for text in TEXTS]
    assert alone == expected
    backwards = post_all(embedder, "v1/embeddings", [{"input": TEXTS[::-1]} for _ in range(2)])
    for status, found, _ in backwards:
        assert status == 200 and vectors(found) == expected[::-1]
    many = answer(embedder, "v1/embeddings", input=TEXTS * 100)  # a hundred times the places of the queue
    assert vectors(many) == expected * 100


def test_counts_are_those_of_transformers(embedder: ServerUnderTest, folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "embedder")
    for text in TEXTS:
        for special in (True, False):
            ids = tokenizer.encode(text, add_special_tokens=special)
            found = answer(embedder, "v1/embeddings", input=text, add_special_tokens=special)
            assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == len(ids)
            shown = answer(embedder, "tokenize", prompt=text, add_special_tokens=special)
            assert shown["tokens"] == ids
        for side in ("left", "right"):
            tokenizer.truncation_side = side
            cut = tokenizer.encode(text, truncation=True, max_length=5)
            asked = {"input": text, "truncate_prompt_tokens": 5, "truncation_side": side}
            found = answer(embedder, "v1/embeddings", **asked)
            assert found["usage"]["prompt_tokens"] == len(cut)
            assert vectors(found) == vectors(answer(embedder, "v1/embeddings", input=cut))


def test_dimensions_are_cut_and_normalised(embedder: ServerUnderTest, truth: dict[str, list[float]]) -> None:
    (short,) = vectors(answer(embedder, "v1/embeddings", input=TEXTS[0], dimensions=16))
    assert len(short) == 16 and sum(value * value for value in short) == pytest.approx(1, abs=1e-5)
    scale = short[0] / truth[TEXTS[0]][0]
    assert short == pytest.approx([scale * value for value in truth[TEXTS[0]][:16]], rel=1e-4, abs=1e-6)
    status, found, _ = post(embedder, "v1/embeddings", {"input": "a", "dimensions": 65})
    assert status == 400 and "dimensions=65" in found["error"]["message"]


def test_an_embedder_ranks_by_similarity(embedder: ServerUnderTest, truth: dict[str, list[float]]) -> None:
    query, documents = TEXTS[1], [TEXTS[0], TEXTS[2], TEXTS[1]]
    found = answer(embedder, "rerank", query=query, documents=documents)
    expected = [sum(a * b for a, b in zip(truth[query], truth[text], strict=True)) for text in documents]
    order = sorted(range(3), key=lambda index: -expected[index])
    assert [result["index"] for result in found["results"]] == order and order[0] == 2
    scores = [result["relevance_score"] for result in found["results"]]
    assert scores == pytest.approx([expected[index] for index in order], abs=1e-5)


def test_what_an_embedder_does_not_do(embedder: ServerUnderTest) -> None:
    for path, body in (
        ("v1/completions", {"prompt": "a"}),
        ("v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("classify", {"input": "a"}),
    ):
        status, found, _ = post(embedder, path, body)
        assert status == 404 and "tart a server" in found["error"]["message"], found
    assert get(embedder, "v1/models")[1]["data"][0]["tasks"] == ["embed", "token_embed", "score"]
    page = get(embedder, "")[1]
    assert "similarity.js" in page and get(embedder, "page/similarity.js")[0] == 200


def test_a_caller_who_leaves_frees_the_engine(embedder: ServerUnderTest, process: RunningServer) -> None:
    name = "request_success_total:stop"
    before = process.wait_until_idle()[name]
    data = json.dumps({"input": ["word " * 40] * 2000}).encode()
    with socket.create_connection(embedder.address) as raw:
        raw.sendall(
            f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        )
        process.wait_for(lambda counts: counts["num_requests_running"] > 0)
        status, _, _ = post(embedder, "v1/embeddings", {"input": "another caller"})
        assert status == 200
    after = process.wait_until_idle(seconds=20)
    assert 0 < after[name] - before < 1000


def test_metrics_and_log_show_texts_and_no_drafts(embedder: ServerUnderTest, process: RunningServer) -> None:
    before = process.wait_until_idle()
    found = answer(embedder, "v1/embeddings", input=TEXTS, request_id="counted")
    after = process.wait_for(lambda counts: counts["num_requests_running"] == 0 and counts != before)
    tokens = found["usage"]["prompt_tokens"]
    for name, more in (
        ("prompt_tokens_total", tokens),
        ("request_success_total:stop", 5),
        ("e2e_request_latency_seconds_count", 5),
        ("request_queue_time_seconds_count", 5),
        ("request_inference_time_seconds_count", 5),
        ("request_prompt_tokens_sum", tokens),
    ):
        assert after[name] - before[name] == more, name
    absent = ("spec_decode", "generation", "first_token", "inter_token", "output_token", "decode")
    assert not [name for name in after if any(part in name for part in absent)]
    assert any("id=embd-counted endpoint=/v1/embeddings status=200" in line for line in process.lines)


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Iterator[ServerUnderTest]:
    for started in running(folder / "qwen3-reranker", "--runner", "pooling"):
        yield under_test(started)


def test_a_reranker_needs_no_template(reranker: ServerUnderTest, folder: Path) -> None:
    query, documents = "which port is closed", TEXTS[:4]
    model = LLM(str(folder / "qwen3-reranker"), runner="pooling")
    outputs = model.score(query, documents)
    expected = [output.outputs.score for output in outputs]
    found = answer(reranker, "v2/rerank", query=query, documents=documents)
    order = sorted(range(4), key=lambda index: -expected[index])
    assert [result["index"] for result in found["results"]] == order
    assert [result["relevance_score"] for result in found["results"]] == [expected[index] for index in order]
    assert found["usage"]["prompt_tokens"] == sum(len(output.prompt_token_ids) for output in outputs)
    pairs = answer(reranker, "v1/score", queries=query, documents=documents)
    assert [entry["score"] for entry in pairs["data"]] == expected


def test_limits_of_query_and_document_count_to_the_token(reranker: ServerUnderTest, folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "qwen3-reranker")
    query, document = "What is the capital of France? " * 4, "The capital of France is Paris. " * 4
    sizes = [len(tokenizer.encode(text, add_special_tokens=False)) for text in (query, document)]

    def count(**limits: int) -> int:
        found = answer(reranker, "rerank", query=query, documents=[document], **limits)
        number: int = found["usage"]["prompt_tokens"]
        return number

    whole = count()
    assert count(max_tokens_per_query=0, max_tokens_per_doc=0) == whole
    assert count(max_tokens_per_query=sizes[0], max_tokens_per_doc=sizes[1]) == whole
    assert count(max_tokens_per_query=10) == whole - sizes[0] + 10
    assert count(max_tokens_per_doc=10) == whole - sizes[1] + 10
    assert count(max_tokens_per_query=10, max_tokens_per_doc=7) == whole - sum(sizes) + 17
    for wrong in ({"max_tokens_per_doc": -1}, {"max_tokens_per_query": 1 << 20}):
        status, found, _ = post(reranker, "rerank", {"query": query, "documents": [document]} | wrong)
        assert status == 400 and next(iter(wrong)) in found["error"]["message"]


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Iterator[ServerUnderTest]:
    for started in running(folder / "classifier"):
        yield under_test(started)


def test_a_classifier_names_its_labels(classifier: ServerUnderTest) -> None:
    found = answer(classifier, "classify", input=TEXTS)
    for entry in found["data"]:
        assert sum(entry["probs"]) == pytest.approx(1, abs=1e-5) and entry["num_classes"] == 3
        assert entry["label"] == LABELS[str(entry["probs"].index(max(entry["probs"])))]
    assert found["data"][1]["probs"] == found["data"][4]["probs"]
    raw = answer(classifier, "pooling", input=TEXTS[:1], use_activation=False)
    assert sum(raw["data"][0]["data"]) != pytest.approx(1, abs=1e-3)


def test_numbers_for_each_token(embedder: ServerUnderTest) -> None:
    (entry,) = answer(embedder, "pooling", input=TEXTS[0], task="token_embed")["data"]
    count = answer(embedder, "tokenize", prompt=TEXTS[0])["count"]
    assert entry["shape"] == [count, 64] and len(entry["data"]) == count
    (packed,) = answer(embedder, "pooling", input=TEXTS[0], task="token_embed", encoding_format="base64")["data"]
    flat = struct.unpack(f"<{64 * count}f", base64.b64decode(packed["data"]))
    assert list(flat) == [value for row in entry["data"] for value in row]
