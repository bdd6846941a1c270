"""The endpoints of pooling models over a played engine, whose numbers follow from the ids that it gets: bodies, ids,
truncation, order, usage, errors, and what a caller who leaves has cost."""

import asyncio
import base64
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from outrider.core.config import engine_config
from outrider.core.errors import ConfigError
from outrider.core.pooling import PoolingAbilities
from outrider.core.request import Request
from outrider.engine.tokenizer import Tokenizer
from outrider.server.app import build_app
from outrider.server.front import Front
from outrider.server.options import ServerOptions
from outrider.server.serve import start_up_lines
from tests.support.pooling_engine import CLASSIFIER, EMBEDDER, RERANKER, PlayedEngine, numbers
from tests.support.scripted_engine import play_engine

MODEL = "zoo/tiny"


@dataclass
class Served:
    """An application over a played engine, in one event loop."""

    runner: asyncio.Runner
    front: Front
    engine: PlayedEngine
    app: Any

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of a POST."""
        status, answer = self.runner.run(self.posted(path, body))
        if status == 200:
            self.validate(path, answer)
        return status, answer

    async def posted(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of a POST, in the loop."""
        transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post(path, json=body)
        return answer.status_code, answer.json()

    def answer(self, path: str, **body: Any) -> Any:
        """The answer to a body that is taken."""
        status, answer = self.post(path, body)
        assert status == 200, answer
        return answer

    def refusal(self, path: str, **body: Any) -> dict[str, Any]:
        """The error of a body that is refused with 400."""
        status, answer = self.post(path, body)
        assert status == 400, answer
        found: dict[str, Any] = answer["error"]
        return found

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""

        async def get() -> Any:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return (await client.get("/openapi.json")).json()

        found: dict[str, Any] = self.runner.run(get())
        return found

    def validate(self, path: str, answer: Any) -> None:
        """Raises if the answer is not one that the document describes."""
        document = self.document()
        content = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
        Draft202012Validator(content["schema"] | {"components": document["components"]}).validate(answer)

    def ids_seen(self) -> list[list[int]]:
        """Token ids of the requests that the engine got since the last call."""
        found = [list(request.prompt_token_ids) for request in self.engine.seen]
        self.engine.seen.clear()
        return found


def serving(abilities: PoolingAbilities, **options: Any) -> Iterator[Served]:
    """A front on a played engine with these abilities."""
    engine = PlayedEngine(abilities)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        play_engine(patch, engine.play)
        front = Front(engine_config(MODEL), ServerOptions(**options))
        try:
            runner.run(front.start())
            yield Served(runner, front, engine, build_app(front))
        finally:
            runner.run(front.stop())


@pytest.fixture(scope="module")
def embedder() -> Iterator[Served]:
    yield from serving(EMBEDDER)


@pytest.fixture(scope="module")
def reranker() -> Iterator[Served]:
    yield from serving(RERANKER)


@pytest.fixture(scope="module")
def classifier() -> Iterator[Served]:
    yield from serving(CLASSIFIER)


@pytest.fixture(scope="module")
def tokenizer(embedder: Served) -> Tokenizer:
    return embedder.front.tokenizer


def vectors(answer: Any) -> list[Any]:
    """Vectors in the order of their indices, which is that of the list."""
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    return [entry["embedding"] for entry in answer["data"]]


def test_texts_ids_and_lists_give_vectors_in_their_order(embedder: Served, tokenizer: Tokenizer) -> None:
    texts = ["def", "a longer text", "z"]
    ids = [tokenizer.encode(text) for text in texts]
    expected = [numbers(each) for each in ids]
    for given, count in ((texts, 3), (ids, 3), (texts[1], 1), (ids[1], 1), ([texts[1]], 1), ([ids[1]], 1)):
        answer = embedder.answer("/v1/embeddings", input=given)
        assert vectors(answer) == (expected if count == 3 else expected[1:2])
        num_tokens = sum(map(len, ids)) if count == 3 else len(ids[1])
        assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == num_tokens
    assert answer["object"] == "list" and answer["model"] == MODEL


def test_base64_holds_the_same_floats(embedder: Served) -> None:
    texts = ["a", "b", "c d e"]
    plain = vectors(embedder.answer("/v1/embeddings", input=texts))
    packed = vectors(embedder.answer("/v1/embeddings", input=texts, encoding_format="base64", user="x"))
    assert [list(struct.unpack("<4f", base64.b64decode(vector))) for vector in packed] == plain


def test_special_tokens_are_left_out_on_demand(embedder: Served, tokenizer: Tokenizer) -> None:
    embedder.ids_seen()
    embedder.answer("/v1/embeddings", input="def", add_special_tokens=False)
    assert embedder.ids_seen() == [tokenizer.encode("def", add_special_tokens=False)]


def test_a_conversation_is_one_text(embedder: Served) -> None:
    messages = [{"role": "user", "content": "hi"}]
    embedder.ids_seen()
    answer = embedder.answer("/v1/embeddings", messages=messages)
    (seen,) = embedder.ids_seen()
    status, shown = embedder.post("/tokenize", {"messages": messages, "add_generation_prompt": False})
    assert status == 200 and seen == shown["tokens"]
    assert len(answer["data"]) == 1 and answer["usage"]["prompt_tokens"] == len(seen)
    embedder.answer("/v1/embeddings", messages=messages, add_generation_prompt=True)
    (longer,) = embedder.ids_seen()
    assert longer[: len(seen)] == seen and len(longer) > len(seen)
    for body in ({}, {"input": "a", "messages": messages}):
        assert "exactly one of input and messages" in embedder.refusal("/v1/embeddings", **body)["message"]
    assert "without messages" in embedder.refusal("/v1/embeddings", input="a", add_generation_prompt=True)["message"]


def test_parameters_reach_the_engine(embedder: Served) -> None:
    embedder.engine.seen.clear()
    answer = embedder.answer("/v1/embeddings", input="a b c d", dimensions=2, normalize=False)
    assert len(vectors(answer)[0]) == 2
    (request,) = embedder.engine.seen
    assert request.pooling is not None
    assert (request.pooling.task, request.pooling.dimensions, request.pooling.activates) == ("embed", 2, False)


def test_truncation_counts_what_was_read(embedder: Served, tokenizer: Tokenizer) -> None:
    text = "one two three four five six seven"
    ids = tokenizer.encode(text)
    for side, kept in (("left", ids[-3:]), ("right", ids[:3])):
        embedder.ids_seen()
        answer = embedder.answer("/v1/embeddings", input=ids, truncate_prompt_tokens=3, truncation_side=side)
        assert embedder.ids_seen() == [kept] and answer["usage"]["prompt_tokens"] == 3
    long = "word " * 500
    assert "input" in str(embedder.refusal("/v1/embeddings", input=long)["param"])
    answer = embedder.answer("/v1/embeddings", input=long, truncate_prompt_tokens=-1)
    assert answer["usage"]["prompt_tokens"] == embedder.front.info.max_model_len


def test_one_wrong_text_of_many_is_named_and_nothing_runs(embedder: Served) -> None:
    embedder.engine.seen.clear()
    error = embedder.refusal("/v1/embeddings", input=[[1], [2, 999_999], [3]])
    assert error["param"] == "input[1]" and "999999" in error["message"]
    assert embedder.engine.seen == []


def test_a_refusal_of_the_engine_ends_the_call(embedder: Served) -> None:
    embedder.engine.refuses = lambda request: "no room" if request.prompt_token_ids == (2,) else None
    try:
        error = embedder.refusal("/v1/embeddings", input=[[1], [2], *[[3]] * 40])
        assert error["message"] == "no room"
    finally:
        embedder.engine.refuses = lambda request: None
    assert embedder.front._num_unfinished == 0


def test_many_texts_are_few_at_a_time_and_leave_room_for_others(embedder: Served) -> None:
    """There are 4 + 256 places: 2048 texts hold half of them, and another long call half of the rest."""
    most = 0

    def watch(request: Request) -> bool:
        nonlocal most
        most = max(most, embedder.front._num_unfinished)
        return False

    embedder.engine.keeps = watch
    try:
        many = [[index % 500 + 1] for index in range(2048)]
        answer = embedder.answer("/v1/embeddings", input=many)
    finally:
        embedder.engine.keeps = lambda request: False
    assert vectors(answer) == [numbers(ids) for ids in many]
    assert most == (4 + 256) // 2
    assert embedder.front._num_unfinished == 0

    async def two() -> None:
        calls = [embedder.posted("/v1/embeddings", {"input": many}) for _ in range(2)]
        for status, answer in await asyncio.gather(*calls):
            assert status == 200 and vectors(answer) == [numbers(ids) for ids in many]

    embedder.engine.keeps = watch
    try:
        embedder.runner.run(two())
    finally:
        embedder.engine.keeps = lambda request: False
    assert most == 130 + 65 and embedder.front._num_unfinished == 0
    assert "2048" in embedder.refusal("/v1/embeddings", input=[*many, [1]])["message"]


def test_texts_that_are_late_keep_their_places(embedder: Served) -> None:
    embedder.engine.seen.clear()
    embedder.engine.is_late = lambda request: request.prompt_token_ids[0] < 8
    many = [[index + 1] for index in range(64)]
    try:
        answer = embedder.answer("/v1/embeddings", input=many)
    finally:
        embedder.engine.is_late = lambda request: False
    assert vectors(answer) == [numbers(ids) for ids in many]


def test_a_caller_who_leaves_aborts_what_runs_and_begins_nothing_more(embedder: Served) -> None:
    embedder.engine.seen.clear()
    embedder.engine.aborted.clear()
    embedder.engine.keeps = lambda request: True

    async def leave() -> None:
        gone = asyncio.Event()
        body = json.dumps({"input": [[1]] * 50}).encode()
        sent = [{"type": "http.request", "body": body, "more_body": False}]
        answers: list[Any] = []

        async def receive() -> Any:
            if sent:
                return sent.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/embeddings", "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")], "client": ("a", 1),
            "server": ("localhost", 80), "scheme": "http", "raw_path": b"/v1/embeddings", "root_path": "",
        }  # fmt: skip
        call = asyncio.create_task(embedder.app(scope, receive, send))
        while len(embedder.engine.seen) < 48:
            await asyncio.sleep(0.005)
        gone.set()
        await call
        while len(embedder.engine.aborted) < 48:
            await asyncio.sleep(0.005)

    try:
        embedder.runner.run(leave())
    finally:
        embedder.engine.keeps = lambda request: False
    assert len(embedder.engine.seen) == 48 and len(embedder.engine.aborted) == 48
    assert embedder.front._num_unfinished == 0


def test_a_full_server_refuses_with_429(embedder: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder.front, "_num_unfinished", 4 + 256)
    status, answer = embedder.post("/v1/embeddings", {"input": "a"})
    assert status == 429 and answer["error"]["code"] == "overloaded"


def test_priority_needs_leave(embedder: Served) -> None:
    assert embedder.refusal("/v1/embeddings", input="a", priority=1)["param"] == "priority"
    embedder.answer("/v1/embeddings", input="a", priority=0)


def test_a_salt_and_a_request_id(embedder: Served) -> None:
    embedder.engine.seen.clear()
    answer = embedder.answer("/v1/embeddings", input="a", cache_salt="mine", request_id="r-1")
    embedder.answer("/v1/embeddings", input="a", cache_salt="other")
    first, second = embedder.engine.seen
    assert answer["id"] == "embd-r-1" and first.content_keys != second.content_keys


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/embeddings", {"input": 3}, "input=3"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": [[]]}, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ("/v1/embeddings", {"input": "a", "embed_dtype": "float16"}, "embed_dtype"),
        ("/v1/embeddings", {"input": "a", "dimensions": 3}, "dimensions=3"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions=0"),
        ("/v1/embeddings", {"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ("/v1/embeddings", {"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ("/v1/embeddings", {"input": "a", "truncation_side": "middle"}, "truncation_side"),
        ("/v1/embeddings", {"input": "a", "normalize": True, "use_activation": False}, "contradict"),
        ("/v1/embeddings", {"input": "a", "temperature": 1.0}, "Nothing is sampled"),
        ("/v1/embeddings", {"input": "a", "chat_template": "x"}, "chat_template"),
        ("/v1/embeddings", {"inputs": "a"}, "Did you mean input?"),
        ("/score", {"text_1": "a"}, "text_1"),
        ("/score", {"text_1": "a", "documents": "b"}, "Give text_1 and text_2, or queries and documents"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, "text_1 has 2 texts and text_2 3"),
        ("/score", {"text_1": ["a", "b"], "text_2": "c"}, "text_1 has 2 texts and text_2 1"),
        ("/score", {"text_1": "a", "text_2": []}, "text_2"),
        ("/rerank", {"query": "a"}, "documents is required"),
        ("/rerank", {"query": "a", "documents": "b"}, "documents"),
        ("/rerank", {"query": "a", "documents": []}, "documents"),
        ("/rerank", {"query": "a", "documents": [{"title": "b"}]}, "documents[0]"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n=-1"),
        ("/rerank", {"query": "a", "documents": ["b"], "max_tokens_per_doc": -1}, "max_tokens_per_doc=-1"),
        ("/rerank", {"query": "a", "documents": ["b"], "max_tokens_per_query": 4096}, "max_tokens_per_query=4096"),
        ("/pooling", {"input": "a", "task": "classify"}, "task='classify'"),
        ("/pooling", {"input": "a", "task": "generate"}, "task"),
    ],
)
def test_a_wrong_body_is_refused_by_name(embedder: Served, path: str, body: dict[str, Any], said: str) -> None:
    embedder.engine.seen.clear()
    assert said in embedder.refusal(path, **body)["message"]
    assert embedder.engine.seen == []


def cosine(one: list[float], other: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(math.fsum(a * a for a in one) * math.fsum(b * b for b in other))


def test_an_embedder_scores_by_cosines_and_reads_a_query_once(embedder: Served, tokenizer: Tokenizer) -> None:
    query, documents = "what is", ["the first", "second", *(f"document {index}" for index in range(150))]
    ids = {text: tokenizer.encode(text) for text in (query, *documents)}
    embedder.ids_seen()
    answer = embedder.answer("/score", text_1=query, text_2=documents)
    scores = [entry["score"] for entry in answer["data"]]
    assert scores == pytest.approx([cosine(numbers(ids[query]), numbers(ids[text])) for text in documents], abs=1e-6)
    assert sorted(embedder.ids_seen()) == sorted(ids.values())  # also where the texts are read in several turns
    count = sum(len(ids[query]) + len(ids[text]) for text in documents)  # over all pairs
    assert answer["usage"]["prompt_tokens"] == count
    many = [f"query {index}" for index in range(len(documents))]
    both = embedder.answer("/score", text_1=many, text_2=documents)
    pairs = [(tokenizer.encode(one), ids[other]) for one, other in zip(many, documents, strict=True)]
    expected = [cosine(numbers(one), numbers(other)) for one, other in pairs]
    assert [entry["score"] for entry in both["data"]] == pytest.approx(expected, abs=1e-6)
    assert both["usage"]["prompt_tokens"] == sum(len(one) + len(other) for one, other in pairs)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    ("one", "other"), [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
def test_pairs_in_every_form(reranker: Served, path: str, one: str, other: str) -> None:
    def scores(queries: Any, documents: Any) -> list[float]:
        answer = reranker.answer(path, **{one: queries, other: documents})
        assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
        return [entry["score"] for entry in answer["data"]]

    (ab,), (ac,), (de,) = scores("a", "b"), scores(["a"], {"text": "c"}), scores("d", "e")
    assert len({ab, ac, de}) == 3
    assert scores("a", ["b", "c"]) == [ab, ac]
    assert scores(["a", "d"], ["b", "e"]) == [ab, de]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_come_in_the_order_of_their_scores(reranker: Served, path: str) -> None:
    documents: list[Any] = ["one", {"text": "two"}, "three", "four", "one"]
    texts = ["one", "two", "three", "four", "one"]
    scored = reranker.answer("/score", text_1="q", text_2=documents)
    scores = [entry["score"] for entry in scored["data"]]
    answer = reranker.answer(path, query="q", documents=documents)
    order = sorted(range(5), key=lambda index: (-scores[index], index))
    assert [result["index"] for result in answer["results"]] == order
    assert order.index(0) + 1 == order.index(4)  # equal ones in the order of the request
    assert [result["relevance_score"] for result in answer["results"]] == [scores[index] for index in order]
    assert [result["document"] for result in answer["results"]] == [{"text": texts[index]} for index in order]
    assert answer["usage"] == scored["usage"]
    for top_n, count in ((2, 2), (0, 5), (99, 5)):
        few = reranker.answer(path, query="q", documents=documents, top_n=top_n, return_documents=False)
        assert [result["index"] for result in few["results"]] == order[:count]
        assert few["usage"] == answer["usage"] and all("document" not in result for result in few["results"])


def test_a_classifier_names_the_label(classifier: Served, tokenizer: Tokenizer) -> None:
    texts = ["a", "some text", "c"]
    answer = classifier.answer("/classify", input=texts)
    for text, entry in zip(texts, answer["data"], strict=True):
        values = numbers(tokenizer.encode(text), 3)
        assert entry["probs"] == values and entry["num_classes"] == 3
        assert entry["label"] == CLASSIFIER.labels[values.index(max(values))]


def test_numbers_for_each_token(classifier: Served, embedder: Served, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two three")
    body: dict[str, Any] = {"input": "one two three", "task": "token_classify"}
    (entry,) = classifier.answer("/pooling", **body)["data"]
    expected = [numbers(ids[: place + 1], 3) for place in range(len(ids))]
    assert entry["data"] == expected and entry["shape"] == [len(ids), 3]
    (packed,) = classifier.answer("/pooling", **body, encoding_format="base64")["data"]
    flat = struct.unpack(f"<{3 * len(ids)}f", base64.b64decode(packed["data"]))
    assert list(flat) == [value for row in expected for value in row] and packed["shape"] == entry["shape"]
    (own,) = embedder.answer("/pooling", input="one two three")["data"]
    assert own["data"] == numbers(ids) and own["shape"] == [4]


def test_a_pooling_model_refuses_what_it_does_not_do(embedder: Served, reranker: Served) -> None:
    for served, path, body in (
        (embedder, "/v1/completions", {"prompt": "a"}),
        (embedder, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        (embedder, "/v1/responses", {"input": "a"}),
        (embedder, "/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}),
        (embedder, "/classify", {"input": "a"}),
        (reranker, "/v1/embeddings", {"input": "a"}),
    ):
        status, answer = served.post(path, body)
        assert status == 404, (path, answer)
        error = answer["error"]
        message = error["message"]
        assert path in message and MODEL in message and "tart a server" in message, message
        assert ("--runner generate" in message) == path.startswith(("/v1/c", "/v1/r", "/v1/m"))


def test_the_document_has_the_endpoints_that_are_served_with_the_limits_of_the_model(
    embedder: Served, reranker: Served
) -> None:
    document = embedder.document()
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    scores = {"/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"}
    assert posts == {"/v1/embeddings", "/pooling", "/tokenize", "/detokenize", *scores}
    assert {path for path, methods in reranker.document()["paths"].items() if "post" in methods} == {
        "/tokenize", "/detokenize", *scores
    }  # fmt: skip
    fields = document["components"]["schemas"]["EmbeddingRequest"]["properties"]
    assert fields["dimensions"]["anyOf"][0]["enum"] == [2, 4]
    tasks = document["components"]["schemas"]["PoolingRequest"]["properties"]["task"]["anyOf"][0]["enum"]
    assert tasks == ["embed", "token_embed"]
    assert "x-limit" not in json.dumps(document)


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(ConfigError, match="reasoning_parser='qwen3' has no effect"):
        next(serving(EMBEDDER, reasoning_parser="qwen3"))


def test_the_first_lines_say_what_runs(embedder: Served) -> None:
    (line,) = [line for line in start_up_lines(embedder.front, 1.0) if line.startswith("requests")]
    assert "4 texts run, 256 may wait" in line and "tool calls" not in line and "reasoning" not in line


def test_metrics_show_what_a_pooling_model_does(embedder: Served) -> None:
    embedder.answer("/v1/embeddings", input=["a", "b c"])
    text = embedder.front.metrics.render()[0].decode()
    for name in ("e2e_request_latency_seconds_count", "request_queue_time_seconds_sum", "request_prompt_tokens_sum"):
        assert f"outrider:{name}" in text
    for name in ("spec_decode", "generation", "first_token", "inter_token", "output_token", "decode"):
        assert name not in text, name


def test_an_answer_of_too_many_numbers_is_refused_before_it_is_computed(
    embedder: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.server.pooling.call.MAX_VALUES", 40)
    embedder.answer("/v1/embeddings", input=[[1]] * 10)
    embedder.answer("/pooling", input=[[1] * 10], task="token_embed")
    embedder.engine.seen.clear()
    assert "44 numbers" in embedder.refusal("/v1/embeddings", input=[[1]] * 11)["message"]
    assert "44 numbers" in embedder.refusal("/pooling", input=[[1] * 11], task="token_embed")["message"]
    embedder.answer("/v1/embeddings", input=[[1]] * 20, dimensions=2)
    assert len(embedder.engine.seen) == 20 and embedder.front._num_unfinished == 0


def test_values_that_are_not_numbers_are_an_error(embedder: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.pooling_engine.numbers", lambda ids, size: [math.nan] * size)
    status, answer = embedder.post("/v1/embeddings", {"input": "a"})
    assert status == 500 and answer["error"]["code"] == "generation_failed"
