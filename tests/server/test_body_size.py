"""Bodies that ask for more work than they are worth: refused by their counts, before they are parsed or explained."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from outrider.server.body import parsed
from outrider.server.body_size import MAX_CONTAINERS, MAX_TEXTS, MAX_VALUES, check_counts
from outrider.server.chat import ChatRequest
from outrider.server.completions import CompletionRequest
from outrider.server.errors import APIError
from outrider.server.messages.body import MessagesRequest
from outrider.server.responses.body import ResponseRequest
from outrider.server.strict import Strict
from outrider.server.tokens import TokenizeRequest

MANY = 1_300_000


def listed(entry: str, count: int = MANY) -> str:
    return f"[{','.join([entry] * count)}]"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (f'{{"messages":{listed("{}")}}}', "objects and lists"),
        (f'{{"prompt":{listed("[]")}}}', "objects and lists"),
        (f'{{"prompt":{listed("1")}}}', "values"),
        (f'{{"stop":{listed(json.dumps(""))}}}', "texts"),
        ("[" * MANY, "objects and lists"),
        ('{"a":' * MANY, "texts"),
        ('{"' + "x" * 1000 + '":{' + ",".join(f'"k{i}":1' for i in range(300_000)) + "}}", "texts"),
    ],
    ids=lambda value: value[:20],
)
def test_a_body_of_many_values_is_refused_before_it_is_parsed(
    body: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatRequest, "model_validate_json", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(APIError, match=f"holds [0-9]+ {kind}; at most [0-9]+ are taken") as refusal:
        parsed(body.encode(), ChatRequest)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "text",
    ["{" * MANY, "," * MANY, '"' * MANY, "\\" * MANY, '\\"{,' * 300_000, "\\\\[" * 300_000],
    ids=lambda text: text[:4],
)
def test_marks_inside_a_text_count_for_nothing(text: str) -> None:
    check_counts(json.dumps({"prompt": text, "stop": [text]}).encode())


def test_as_much_as_is_allowed_is_counted_exactly() -> None:
    for opening, entry, most in (("[", "1", MAX_VALUES), ("[", "[]", MAX_CONTAINERS - 1), ("[", '""', MAX_TEXTS)):
        check_counts(f"{opening}{','.join([entry] * most)}]".encode())
        with pytest.raises(APIError):
            check_counts(f"{opening}{','.join([entry] * (most + 1))}]".encode())


WRONG: list[tuple[type[BaseModel], str]] = [
    (ChatRequest, f'{{"messages":{listed("{}", 9000)}}}'),
    (ChatRequest, f'{{"messages":[{{"role":"user","content":{listed("{}", 9000)}}}]}}'),
    (ChatRequest, f'{{"messages":[{{"role":"user","content":"x"}}],"tools":{listed("{}", 9000)}}}'),
    (ChatRequest, f'{{"messages":[{{"role":"user","content":"x"}}],"documents":{listed("1", 9000)}}}'),
    (CompletionRequest, f'{{"prompt":{listed("[]", 9000)}}}'),
    (CompletionRequest, f'{{"prompt":{listed("{}", 9000)}}}'),
    (CompletionRequest, f'{{"prompt":{listed("-1", 100_000)}}}'),
    (CompletionRequest, f'{{"prompt":"x","stop":{listed("1", 100_000)}}}'),
    (CompletionRequest, f'{{"prompt":"x","allowed_token_ids":{listed("-1", 100_000)}}}'),
    (CompletionRequest, f'{{"prompt":"x","bad_words":{listed("1", 100_000)}}}'),
    (CompletionRequest, f'{{"prompt":"x","structured_outputs":{{"choice":{listed("1", 100_000)}}}}}'),
    (CompletionRequest, '{"prompt":"x","logit_bias":{' + ",".join(f'"x{i}":1' for i in range(50_000)) + "}}"),
    (CompletionRequest, '{"prompt":"x",' + ",".join(f'"x{i}":1' for i in range(50_000)) + "}"),
    (CompletionRequest, '{"prompt":"x",' + ",".join(f'"x{i}":null' for i in range(50_000)) + "}"),
    (ResponseRequest, f'{{"input":{listed("{}", 9000)}}}'),
    (ResponseRequest, '{"input":"x","metadata":{' + ",".join(f'"x{i}":1' for i in range(50_000)) + "}}"),
    (ResponseRequest, f'{{"input":"x","include":{listed("1", 100_000)}}}'),
    (MessagesRequest, f'{{"max_tokens":1,"messages":{listed("{}", 9000)}}}'),
    (MessagesRequest, f'{{"max_tokens":1,"messages":[{{"role":"user","content":{listed("{}", 9000)}}}]}}'),
    (TokenizeRequest, f'{{"messages":{listed("{}", 9000)}}}'),
]


@pytest.mark.parametrize(("model", "body"), WRONG, ids=[body[:60] for _, body in WRONG])
def test_the_first_wrong_entry_answers_for_all(model: type[BaseModel], body: str) -> None:
    """The number of errors is that of fields and their forms, and not that of a list's entries."""
    with pytest.raises(ValidationError) as found:
        model.model_validate_json(body)
    assert found.value.error_count() < 32
    with pytest.raises(APIError) as refusal:
        parsed(body.encode(), model)
    assert refusal.value.status == 400 and len(str(refusal.value)) < 1000


def test_a_conversation_has_as_many_messages_as_openai_takes() -> None:
    message = {"role": "user", "content": "x"}
    assert len(ChatRequest.model_validate({"messages": [message] * 2048}).messages) == 2048
    with pytest.raises(ValidationError, match="2048"):
        ChatRequest.model_validate({"messages": [message] * 2049})


def test_every_list_and_dict_of_a_body_ends_at_its_first_error() -> None:
    def check(schema: Any) -> int:
        if isinstance(schema, dict):
            is_list = schema.get("type") in ("list", "dict")
            assert not is_list or schema.get("fail_fast"), schema
            return is_list + sum(check(part) for part in schema.values())
        return sum(map(check, schema)) if isinstance(schema, (list, tuple)) else 0

    for model in (ChatRequest, CompletionRequest, ResponseRequest, MessagesRequest, TokenizeRequest):
        assert issubclass(model, Strict) and check(model.__pydantic_core_schema__) > 0


def test_an_error_shows_the_beginning_of_a_value_without_writing_all_of_it() -> None:
    class Never:
        def __str__(self) -> str:
            raise AssertionError("the end of the value was written")

    from outrider.server.body import _shown

    assert _shown([*range(100), Never()]).endswith("…")
    assert _shown("x" * 1000) == '"' + "x" * 78 + "…"
    assert _shown({"a": 1}) == '{"a": 1}'
