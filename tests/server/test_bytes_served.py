"""Bytes and offsets of tokens in answers: whole and streamed, completions and chats, prompts and echo."""

from typing import Any

import pytest

from tests.support.http_calls import events, post
from tests.support.server_under_test import ServerUnderTest

TEXT = "é🎉日 ok"
ENDS = ("<|im_end|>", "<|endoftext|>")
ASKED: dict[str, Any] = {"structured_outputs": {"choice": [TEXT]}, "temperature": 0, "max_tokens": 40}


def choices(server: ServerUnderTest, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choice of the answer, or those of all events."""
    status, answer, _ = post(server, path, ASKED | body)
    assert status == 200, answer
    found = events(answer) if body.get("stream") else [answer]
    return [chunk["choices"][0] for chunk in found]


def test_joined_bytes_of_a_chat_are_its_text(server: ServerUnderTest) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 2}
    (whole,) = choices(server, "v1/chat/completions", body)
    assert whole["message"]["content"] == TEXT
    content = whole["logprobs"]["content"]
    assert bytes(value for token in content for value in token["bytes"]).decode() == TEXT
    assert any(r"\x" in token["token"] for token in content), "a token is a part of a character"
    assert content[-1]["token"] in ENDS and content[-1]["bytes"] == []
    streamed = choices(server, "v1/chat/completions", body | {"stream": True})
    parts = [entry for chunk in streamed for entry in (chunk["logprobs"] or {"content": []})["content"]]
    assert parts == content


def test_special_tokens_have_bytes_where_the_text_has_them(server: ServerUnderTest) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "skip_special_tokens": False}
    (whole,) = choices(server, "v1/chat/completions", body | {"include_stop_str_in_output": True})
    data = bytes(value for token in whole["logprobs"]["content"] for value in token["bytes"])
    assert data.decode() == whole["message"]["content"] == TEXT + whole["logprobs"]["content"][-1]["token"]


@pytest.mark.parametrize("echo", [False, True])
def test_offsets_of_a_completion_are_places_in_its_text(server: ServerUnderTest, echo: bool) -> None:
    body = {"prompt": "日é x", "logprobs": 1, "echo": echo}
    (whole,) = choices(server, "v1/completions", body)
    found, text = whole["logprobs"], whole["text"]
    assert text == ("日é x" if echo else "") + TEXT
    data = text.encode()
    num_bytes = 0
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert offset == len(data[:num_bytes].decode(errors="ignore")), token
        is_part = token.startswith("bytes:")
        raw = (
            token.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1")
            if is_part
            else token.encode()
        )
        num_bytes += 0 if token in ENDS else len(raw)
    assert num_bytes == len(data)
    if not echo:
        parts = [chunk["logprobs"] for chunk in choices(server, "v1/completions", body | {"stream": True})]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [entry for part in parts for entry in part[name]] == found[name]


def test_prompts_and_their_pieces_have_bytes(server: ServerUnderTest) -> None:
    prompt = "日é<|im_end|>x"
    token_ids = post(server, "tokenize", {"prompt": prompt, "return_token_strs": True})[1]
    assert "<|im_end|>" in token_ids["token_strs"] and "\N{REPLACEMENT CHARACTER}" not in "".join(
        token_ids["token_strs"]
    )
    (whole,) = choices(server, "v1/completions", {"prompt": prompt, "prompt_logprobs": 0})
    places = whole["prompt_logprobs"][1:]
    data = b"".join(
        bytes(place[str(token_id)]["bytes"]) for place, token_id in zip(places, token_ids["tokens"][1:], strict=True)
    )
    assert prompt.encode().endswith(data) and b"<|im_end|>x" in data
