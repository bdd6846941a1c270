"""Conversations as token ids: equal to what transformers' own call gives, and refused in words."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from outrider.core.errors import RequestError
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer

TEMPLATE = (
    "{% if tools %}TOOLS{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>{% endif %}"
    "{% for message in messages %}<|user|>{{ message.role }}:"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments.city }})"
    "{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}A:{% if enable_thinking %}<think>{% endif %}{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "the quick fox"},
    {"role": "assistant", "reasoning_content": "hm", "content": "jumps over"},
]


def text_of(tokenizer: Tokenizer, messages: list[dict[str, Any]], **options: Any) -> str:
    return tokenizer.decode(encode_chat(tokenizer, messages, ChatOptions(**options)), skip_special_tokens=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tools": TOOLS},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"chat_template_kwargs": {"enable_thinking": True}},
    ],
    ids=repr,
)
def test_ids_are_those_of_transformers(byte_level: Tokenizer, byte_level_directory: Path, options: Any) -> None:
    oracle = PreTrainedTokenizerFast.from_pretrained(byte_level_directory)
    wanted = {"add_generation_prompt": not options.get("continue_final_message", False)} | options
    wanted |= wanted.pop("chat_template_kwargs", {})
    expected = oracle.apply_chat_template(TALK, chat_template=TEMPLATE, tokenize=True, return_dict=False, **wanted)
    assert encode_chat(byte_level, TALK, ChatOptions(chat_template=TEMPLATE, **options)) == expected


def test_chat_ends_with_the_assistants_header(byte_level: Tokenizer) -> None:
    token_ids = encode_chat(byte_level, [{"role": "user", "content": "hi"}], ChatOptions())
    text = byte_level.decode(token_ids, skip_special_tokens=False)
    assert text == "<|user|>hi<|end|>A:"
    assert len(set(token_ids) & byte_level._special_ids) == 2, "marks of the template are one token each"


def test_a_message_that_is_continued_is_left_open(byte_level: Tokenizer) -> None:
    assert text_of(byte_level, TALK, continue_final_message=True).endswith("<|user|>jumps over")


def test_reasoning_is_text_like_any_other(byte_level: Tokenizer) -> None:
    assert "<think>hm</think>jumps over" in text_of(byte_level, TALK, chat_template=TEMPLATE)


def test_tool_calls_and_text_parts_reach_the_template_as_it_expects_them(byte_level: Tokenizer) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]},
    ]
    text = text_of(byte_level, messages, chat_template=TEMPLATE)
    assert "user:a\nb<|end|>" in text and "weather(Rome)" in text


def test_half_of_a_surrogate_pair_reaches_the_prompt_as_its_escape(byte_level: Tokenizer) -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "Rome \\ud83d"}'}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    ids = encode_chat(byte_level, messages, ChatOptions(chat_template=TEMPLATE))
    assert "weather(Rome \\ud83d)" in byte_level.decode(ids, skip_special_tokens=False)


def test_chat_without_a_template_is_refused(byte_fallback: Tokenizer) -> None:
    with pytest.raises(RequestError, match=r"no chat template\. Give chat_template, or use generate\(\)"):
        encode_chat(byte_fallback, TALK, ChatOptions())
    assert encode_chat(byte_fallback, TALK[:1], ChatOptions(chat_template="{{ messages[0].content }}"))


@pytest.mark.parametrize(
    ("messages", "options", "message"),
    [
        ([], {}, "messages=\\[\\] is empty"),
        ([{"content": "a"}], {}, "has no role"),
        (["a"], {}, "has no role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, "content holds .*image_url"),
        (TALK, {"chat_template": "{{ raise_exception('no system role') }}"}, "refuses these messages: no system role"),
        (TALK, {"chat_template": "{% if %}"}, "the chat template refuses these messages"),
        ([{"role": "a", "tool_calls": [{"function": {"arguments": "{"}}]}], {}, "arguments '{' cannot be read as JSON"),
        ([{"role": "a", "tool_calls": [{"function": {"arguments": "[" * 9999}}]}], {}, "cannot be read as JSON: max"),
        ([{"role": "a", "tool_calls": [{"function": {"arguments": "1" * 9999}}]}], {}, "cannot be read as JSON: Exc"),
    ],
)
def test_conversations_that_cannot_be_rendered_are_refused(
    byte_level: Tokenizer, messages: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        encode_chat(byte_level, messages, ChatOptions(**options))


def test_to_continue_and_to_begin_a_message_at_once_is_refused() -> None:
    with pytest.raises(RequestError, match="Leave add_generation_prompt unset"):
        ChatOptions(continue_final_message=True, add_generation_prompt=True)
