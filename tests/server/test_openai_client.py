"""OpenAI's own client drives every endpoint that it knows, and every answer validates against its types."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from outrider import LLM, SamplingParams
from outrider.core.zoo import shipped
from tests.support.server_under_test import ServerUnderTest

CHAT = [{"role": "user", "content": "Anna has 14 apples and buys 9 more. How many apples does she have?"}]
ENDS = ("<|im_end|>", "<|endoftext|>")
"""Special tokens of the zoo that end an output; they are not a part of its text."""
CODE = "def fibonacci(n):"
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
NEGATE = {
    "type": "function",
    "function": {
        "name": "negate",
        "parameters": {"type": "object", "properties": {"x": {"type": "boolean"}}, "additionalProperties": False},
    },
}
TOOLS = [ADD, NEGATE]


@pytest.fixture(scope="module")
def client(server: ServerUnderTest) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def llm() -> LLM:
    """An engine in this process without speculation; the server must give the same answers."""
    return LLM(shipped("tiny"))


def checked(answer: Any) -> Any:
    """Validated, for the client itself believes whatever it gets."""
    assert isinstance(answer, BaseModel)
    body = answer.model_dump_json()
    if isinstance(answer, Completion):  # the type forgets that chunks before the last have null, OpenAI's too
        body = body.replace('"finish_reason":null', '"finish_reason":"stop"')
    type(answer).model_validate_json(body, strict=True)
    return answer


def streamed(chunks: Any) -> list[Any]:
    return [checked(chunk) for chunk in chunks]


def test_the_model_is_listed_and_found(client: OpenAI) -> None:
    (model,) = [checked(model) for model in client.models.list()]
    assert model.id == "zoo/tiny"
    assert model.max_model_len == 2048
    assert model.speculative_config == {"method": "eagle3", "num_speculative_tokens": 3}
    assert checked(client.models.retrieve("zoo/tiny")).id == "zoo/tiny"
    with pytest.raises(openai.NotFoundError, match="another"):
        client.models.retrieve("another")


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_a_completion_is_what_the_engine_says(client: OpenAI, llm: LLM, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=7, max_tokens=40, stop=["Parameters"], frequency_penalty=0.5)
    (expected,) = llm.generate(CODE, params)
    asked: dict[str, Any] = {
        "model": "zoo/tiny",
        "prompt": CODE,
        "temperature": temperature,
        "seed": 7,
        "max_tokens": 40,
        "stop": ["Parameters"],
        "frequency_penalty": 0.5,
        "extra_body": {"return_token_ids": True},
    }
    answer = checked(client.completions.create(**asked))
    assert isinstance(answer, Completion)
    (choice,) = answer.choices
    (output,) = expected.outputs
    assert (choice.text, choice.finish_reason, choice.token_ids) == (
        output.text,
        output.finish_reason,
        output.token_ids,
    )
    assert answer.usage is not None and answer.usage.completion_tokens == len(output.token_ids)
    chunks = streamed(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == output.text
    assert list(chain.from_iterable(chunk.choices[0].token_ids for chunk in chunks[:-1])) == output.token_ids
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == output.finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.model_dump() | {"prompt_tokens_details": None} == (
        answer.usage.model_dump() | {"prompt_tokens_details": None}
    )
    assert {chunk.id for chunk in chunks} != {answer.id}


def test_several_prompts_and_choices_keep_their_order(client: OpenAI, llm: LLM) -> None:
    prompts = [CODE, "import os\n", "class A:"]
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=12, n=2)
    expected = [completion.text for output in llm.generate(prompts, params) for completion in output.outputs]
    asked: dict[str, Any] = {
        "model": "zoo/tiny", "prompt": prompts, "n": 2, "temperature": 1.0, "seed": 5, "max_tokens": 12,
    }  # fmt: skip
    answer = checked(client.completions.create(**asked))
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text for choice in answer.choices] == expected
    texts = [""] * 6
    for chunk in streamed(client.completions.create(**asked, stream=True)):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected
    ids = [llm.engine.tokenizer.encode(prompt) for prompt in prompts]
    assert [choice.text for choice in client.completions.create(**asked | {"prompt": ids}).choices] == expected


def test_log_probabilities_of_a_completion(client: OpenAI, llm: LLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=8, logprobs=3, prompt_logprobs=3)
    (expected,) = llm.generate(CODE, params)
    asked: dict[str, Any] = {
        "model": "zoo/tiny", "prompt": CODE, "temperature": 0.0, "max_tokens": 8, "logprobs": 3,
    }  # fmt: skip
    places = expected.outputs[0].logprobs
    ids = expected.outputs[0].token_ids
    found = checked(client.completions.create(**asked)).choices[0].logprobs
    assert found.token_logprobs == [place[i].logprob for place, i in zip(places, ids, strict=True)]
    assert found.top_logprobs == [{e.decoded_token: e.logprob for e in place.values()} for place in places]
    assert "".join(found.tokens) == expected.outputs[0].text
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(8)]
    parts = [chunk.choices[0].logprobs for chunk in streamed(client.completions.create(**asked, stream=True))]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert list(chain.from_iterable(getattr(part, name) for part in parts)) == getattr(found, name)
    # with echo the prompt's own come first
    echoed = client.completions.create(**asked, echo=True).choices[0]  # the type forgets the first token's null
    assert echoed.text == CODE + expected.outputs[0].text
    assert "".join(echoed.logprobs.tokens) == echoed.text
    scored = [place[i].logprob for place, i in zip(expected.prompt_logprobs[1:], expected.prompt_token_ids[1:])]  # noqa: B905
    assert echoed.logprobs.token_logprobs == [None, *scored, *found.token_logprobs]
    assert echoed.logprobs.text_offset == [len("".join(echoed.logprobs.tokens[:i])) for i in range(len(scored) + 9)]


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_a_chat_is_what_the_engine_says(client: OpenAI, llm: LLM, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=80, logprobs=2, n=2)
    (expected,) = llm.chat(CHAT, params)
    asked: dict[str, Any] = {
        "model": "zoo/tiny",
        "messages": CHAT,
        "temperature": temperature,
        "seed": 3,
        "max_completion_tokens": 80,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
    }
    answer = checked(client.chat.completions.create(**asked))
    assert isinstance(answer, ChatCompletion)
    assert [choice.message.content for choice in answer.choices] == [output.text for output in expected.outputs]
    assert [choice.finish_reason for choice in answer.choices] == [o.finish_reason for o in expected.outputs]
    for choice, output in zip(answer.choices, expected.outputs, strict=True):
        places = list(zip(output.logprobs, output.token_ids, strict=True))
        assert [entry.logprob for entry in choice.logprobs.content] == [place[i].logprob for place, i in places]
        for entry, (place, _) in zip(choice.logprobs.content, places, strict=True):
            assert [top.logprob for top in entry.top_logprobs] == [e.logprob for e in place.values() if e.rank <= 2]
            assert bytes(entry.bytes).decode() == ("" if entry.token in ENDS else entry.token)
    texts, reasons = ["", ""], [None, None]
    for chunk in streamed(client.chat.completions.create(**asked, stream=True)):
        assert isinstance(chunk, ChatCompletionChunk)
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [output.text for output in expected.outputs]
    assert reasons == [output.finish_reason for output in expected.outputs]


def test_an_answer_can_be_sent_back_as_it_came(client: OpenAI) -> None:
    first = client.chat.completions.create(model="zoo/tiny", messages=CHAT, max_tokens=10, temperature=0)
    second = client.chat.completions.create(
        model="zoo/tiny",
        messages=[*CHAT, first.choices[0].message.model_dump(), {"role": "user", "content": "Why?"}],  # type: ignore[list-item]
        max_tokens=10,
    )
    assert checked(second).usage.prompt_tokens > first.usage.prompt_tokens + 10


def test_a_grammar_makes_the_form_of_an_answer(client: OpenAI) -> None:
    class Person(BaseModel):
        colour: Literal["red", "green"]
        likes_code: bool

    parsed = client.chat.completions.parse(
        model="zoo/tiny", messages=CHAT, response_format=Person, max_tokens=60, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, Person)
    answer = client.chat.completions.create(
        model="zoo/tiny", messages=CHAT, max_tokens=20, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert checked(answer).choices[0].message.content in ("yes", "no")


def test_required_and_named_tools_are_called(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "zoo/tiny", "messages": CHAT, "tools": TOOLS, "max_tokens": 80, "temperature": 0}
    answer = checked(client.chat.completions.create(**asked, tool_choice="required", parallel_tool_calls=False))
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.function.name in ("add", "negate") and isinstance(json.loads(call.function.arguments), dict)
    named: dict[str, Any] = {**asked, "tool_choice": {"type": "function", "function": {"name": "add"}}}
    (call,) = checked(client.chat.completions.create(**named)).choices[0].message.tool_calls
    assert json.loads(call.function.arguments).keys() == {"a", "b"}
    chunks = streamed(client.chat.completions.create(**named, stream=True))
    begin, *rest = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert (begin.function.name, begin.function.arguments, begin.type) == ("add", "", "function") and begin.id
    assert "".join(piece.function.arguments for piece in rest) == call.function.arguments
    assert len(rest) > 2 and {(piece.index, piece.id, piece.function.name) for piece in rest} == {(0, None, None)}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    with pytest.raises(openai.BadRequestError, match="--tool-call-parser"):
        client.chat.completions.create(**asked)
    none = checked(client.chat.completions.create(**asked, tool_choice="none")).choices[0].message
    assert none.tool_calls is None and none.content


def test_speculation_is_told_and_can_be_turned_off(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "zoo/tiny", "prompt": CODE, "max_tokens": 40, "temperature": 0,
    }  # fmt: skip
    ours = checked(client.completions.create(**asked, extra_body={"return_token_origins": True}))
    plain = checked(client.completions.create(**asked, extra_body={"num_speculative_tokens": 0}))
    assert ours.choices[0].text == plain.choices[0].text
    counts = ours.usage.speculation
    assert counts["num_accepted_tokens"] == ours.choices[0].origins.count("draft") > 0
    assert counts["num_steps"] == ours.choices[0].origins.count("target")
    assert counts["mean_acceptance_length"] == 1 + counts["num_accepted_tokens"] / counts["num_drafts"]
    assert counts["num_accepted_tokens"] == sum(counts["num_accepted_tokens_per_pos"])
    details = ours.usage.completion_tokens_details
    assert details.accepted_prediction_tokens == counts["num_accepted_tokens"]
    assert details.rejected_prediction_tokens == counts["num_draft_tokens"] - counts["num_accepted_tokens"]
    assert plain.usage.speculation["num_draft_tokens"] == 0 and plain.usage.speculation["num_steps"] == 40


def test_errors_are_those_of_the_client(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt", prompt="x")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="temperature=-1") as wrong:
        client.completions.create(model="zoo/tiny", prompt="x", temperature=-1)
    assert wrong.value.param == "temperature" and wrong.value.type == "invalid_request_error"
