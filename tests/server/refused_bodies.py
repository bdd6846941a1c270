"""Bodies that a server must refuse, made from one seed: each has one thing wrong, and says which field that is.

The rest of the body is a valid request with random valid fields. Knows the API's fields; no server.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

VOCAB_SIZE = 3072
"""Vocabulary of the zoo's target."""
MAX_MODEL_LEN = 2048

Fields = dict[str, Any]


class Raw(str):
    """Text that is put into a body verbatim: numbers that JSON does not have, and the like."""

    __slots__ = ()


@dataclass(frozen=True)
class Bad:
    """One request that must be refused."""

    path: str
    content: bytes
    names: tuple[str, ...]
    """The error's message or param has one of these."""
    what: str
    """For a person."""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def encoded(body: Any) -> bytes:
    """JSON, with what is `Raw` as it is."""
    raws: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(str(value))
            return f"@raw{len(raws) - 1}@"
        if isinstance(value, dict):
            return {key: marked(entry) for key, entry in value.items()}
        return [marked(entry) for entry in value] if isinstance(value, list) else value

    text = json.dumps(marked(body))
    for index, raw in enumerate(raws):
        text = text.replace(f'"@raw{index}@"', raw)
    return text.encode()


HUGE = [Raw("1e400"), Raw("-1e400"), Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), 10**30, -(10**30)]
NO_NUMBER: list[Any] = ["hot", "0.5", "", [], [1], {}, {"a": 1}, True, False]
NO_INTEGER: list[Any] = [*NO_NUMBER, 1.5, -0.25, *HUGE]
NO_BOOL: list[Any] = ["true", "", 1, 0, 0.0, [], {}]
NO_TEXT: list[Any] = [1, 1.5, True, [], {}, [["a"]], {"a": "b"}]
NO_TOKEN_ID: list[Any] = ["5", 1.5, True, None, [], {}, -1, VOCAB_SIZE, 2**31, 2**63, -(2**63), *HUGE]


def ids_with(wrong: Any) -> list[list[Any]]:
    """Lists of token ids with something wrong at their beginning, middle or end."""
    return [[wrong], [5, wrong], [5, 6, wrong, 7]]


NO_IDS: list[Any] = [5, "5", {}, True, *(ids for wrong in NO_TOKEN_ID for ids in ids_with(wrong))]

SAMPLING: dict[str, list[Any]] = {
    "temperature": [*NO_NUMBER, *HUGE, -0.1, -1, 10001],
    "top_p": [*NO_NUMBER, *HUGE, 0, -0.5, 1.5],
    "min_p": [*NO_NUMBER, *HUGE, -0.1, 1.01],
    "repetition_penalty": [*NO_NUMBER, *HUGE, 0, -1, 1e5],
    "presence_penalty": [*NO_NUMBER, *HUGE, -2.1, 3],
    "frequency_penalty": [*NO_NUMBER, *HUGE, -2.1, 3],
    "n": [*NO_INTEGER, 0, -1, 129, 10**9],
    "top_k": [*NO_INTEGER, -2, 2**31],
    "seed": [*NO_INTEGER, 2**63, -(2**63) - 1],
    "max_tokens": [*NO_INTEGER, 0, -1, 2**31],
    "min_tokens": [*NO_INTEGER, -1, 2**31],
    "prompt_logprobs": [*NO_INTEGER, -1, 21],
    "truncate_prompt_tokens": [*NO_INTEGER, 0, -2, 2**31],
    "priority": [*NO_INTEGER, 2**31, -(2**31) - 1],
    "num_speculative_tokens": [*NO_INTEGER, -1, 2**31],
    "stop": [1, {}, True, [1], [["a"]], [""], "", ["a"] * 17, "x" * 257, ["x" * 100_000], [None]],
    "stop_token_ids": [*NO_IDS, [5] * 25],
    "allowed_token_ids": [*NO_IDS, []],
    "logprob_token_ids": [*NO_IDS, [5] * 33],
    "bad_words": [5, "word", {}, [5], [""], [None], ["   "], [["a"]], ["word"] * 33, ["of many words " * 20]],
    "logit_bias": [
        [],
        5,
        "5",
        {"a": 1},
        {"": 1},
        {"-1": 1},
        {"1.5": 1},
        {"01": 1},
        {str(VOCAB_SIZE): 1},
        {str(10**30): 1},
        {"5": "1"},
        {"5": None},
        {"5": [1]},
        *({"5": huge} for huge in HUGE),
        {"5": 1000},
        {str(token_id): 1.0 for token_id in range(VOCAB_SIZE)},
        {str(token_id): -100 for token_id in range(301)},
    ],
    "ignore_eos": NO_BOOL,
    "skip_special_tokens": NO_BOOL,
    "include_stop_str_in_output": NO_BOOL,
    "stream": NO_BOOL,
    "return_token_ids": NO_BOOL,
    "return_token_origins": NO_BOOL,
    "model": [*NO_TEXT, "", "gpt-4", "../../etc/passwd", "x" * 10_000, "zoo/tiny\u0000"],
    "stream_options": [1, "x", [], {"include_usage": 1}, {"nothing": True}, {"include_obfuscation": True}],
    "request_id": [*NO_TEXT, "", "x" * 129, "a\nb", "é"],
    "response_format": [
        1,
        "json",
        [],
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x y"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
    ],
}
"""Values that a field must refuse."""


def nested(depth: int, *, opening: str, closing: str) -> Raw:
    """Something in something in something."""
    return Raw(opening * depth + "1" + closing * depth)


GRAMMARS: list[Fields] = [
    *({"regex": text} for text in ("(", "[z-a]", "a{2,1}", r"(a)\1", "(?=a)b", "*a", "(?<!a)b", r"\p{Nothing}")),
    *({"regex": text} for text in ("a{9999999999}", "(" * 5000 + "a" + ")" * 5000, ".*" * 3000, "x" * 70_000)),
    *({"regex": value} for value in (1, [], {}, True)),
    *({"json": schema} for schema in ("not json", "[1,2", "{", "false", "", 5, [], True)),
    {"json": {"type": "nonsense"}},
    {"json": {"type": 5}},
    {"json": {"$ref": "#/nowhere"}},
    {"json": {"$ref": "http://elsewhere.invalid/schema.json"}},
    {"json": {"$ref": "file:///etc/passwd"}},
    {"json": {"type": "integer", "minimum": 5, "maximum": 4}},
    {"json": {"enum": []}},
    {"json": {"anyOf": []}},
    {"json": {"type": "array", "uniqueItems": True}},
    {"json": {"type": "string", "pattern": "("}},
    {"json": {"type": "string", "format": "nothing"}},
    {"json": {"type": "string", "minLength": 10**12}},
    {"json": {"type": "string", "maxLength": -1}},
    {"json": {"type": "object", "required": ["a"], "additionalProperties": False}},
    {"json": {"not": {}}},
    {"json": {"if": {}, "then": {}}},
    {"json": {"properties": 3}},
    {"json": {"type": "number", "multipleOf": 0}},
    {"json": nested(190, opening='{"items":', closing="}")},
    {"json": nested(20_000, opening='{"items":', closing="}")},
    {"json": '{"items":' * 6000 + "{}" + "}" * 6000},
    *(
        {"grammar": text}
        for text in ("", "hello", "root ::= nowhere", "start: nowhere", "start: /(/", 'start: "', "\x00")
    ),
    *({"grammar": text} for text in ("root ::= [z-a]", "start: @x", "{" * 1000, "root ::= " + "(" * 3000)),
    {"grammar": "root ::= " + "(" * 3000 + '"a"' + ")" * 3000},
    *({"choice": value} for value in ([], [""], "ab", [1], [["a"]], ["a"] * 1025, ["a" * 70_000])),
    {},
    {"regex": "a", "json": {}},
    {"regex": "a", "nothing": 1},
    {"json_object": False},
    {"structural_tag": "x"},
]
"""Values that `structured_outputs` must refuse."""

TOGETHER: list[tuple[str, Fields, tuple[str, ...]]] = [
    ("min_tokens above max_tokens", {"min_tokens": 9, "max_tokens": 8}, ("min_tokens",)),
    ("usage of what is no stream", {"stream_options": {"include_usage": True}}, ("stream_options",)),
    (
        "two forms",
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
        ("response_format",),
    ),
    ("a form and ignore_eos", {"structured_outputs": {"regex": "a+"}, "ignore_eos": True}, ("ignore_eos",)),
    ("a form and bad words", {"structured_outputs": {"regex": "a+"}, "bad_words": ["b"]}, ("bad_words",)),
    ("only eos, and not yet", {"allowed_token_ids": [3071], "min_tokens": 2}, ("allowed_token_ids",)),
    ("more completions than are let in", {"n": 128, "prompt": ["x"] * 256}, ("completions", "prompt", "n=")),
]
"""Fields that do not go together."""

MESSAGES: list[Any] = [
    None,
    [],
    "hello",
    {},
    [[]],
    ["hello"],
    [{}],
    [{"role": "user"}],
    [{"role": "king", "content": "x"}],
    [{"role": 5, "content": "x"}],
    [{"content": "x"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": None}],
    [{"role": "user", "content": []}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://elsewhere.invalid/x.png"}}]}],
    [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}],
    [{"role": "user", "content": "x", "nothing": 1}],
    [{"role": "assistant", "content": "x", "refusal": "no"}],
    [{"role": "assistant", "content": "x", "prefix": True}],
    [{"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}],
    [{"role": "tool", "content": "x"}],
    [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}],
    [{"role": "user", "content": nested(100_000, opening="[", closing="]")}],
    [{"role": "user", "content": "many " * 5000}],
]

CHAT: list[tuple[str, Any, tuple[str, ...]]] = [
    ("chat_template", "{% for i in range(10**9) %}x{% endfor %}", ("chat_template",)),
    (
        "chat_template",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        ("chat_template",),
    ),
    ("chat_template", "{{ 'x' * 10**10 }}", ("chat_template",)),
    ("chat_template", "{{ ''.__class__.__mro__[1].__subclasses__() }}", ("chat_template",)),
    ("chat_template", "{% include '/etc/passwd' %}", ("chat_template",)),
    ("chat_template", "{% if", ("chat_template",)),
    ("chat_template", 5, ("chat_template",)),
    ("chat_template_kwargs", 5, ("chat_template_kwargs",)),
    ("chat_template_kwargs", [], ("chat_template_kwargs",)),
    ("chat_template_kwargs", {"chat_template": "{{ 1 }}"}, ("chat_template",)),
    ("chat_template_kwargs", {"tokenize": True}, ("chat_template_kwargs", "tokenize")),
    ("chat_template_kwargs", {"conversation": []}, ("chat_template_kwargs", "conversation")),
    ("chat_template_kwargs", {"messages": []}, ("chat_template_kwargs", "messages")),
    ("chat_template_kwargs", {"add_generation_prompt": False}, ("chat_template_kwargs", "add_generation_prompt")),
    ("documents", 5, ("documents",)),
    ("documents", [5], ("documents",)),
    ("top_logprobs", 3, ("top_logprobs",)),
    ("add_special_tokens", 1, ("add_special_tokens",)),
    ("reasoning_effort", "high", ("reasoning_effort",)),
    ("store", True, ("store",)),
    ("web_search_options", {}, ("web_search_options",)),
    ("top_logprobs", 21, ("top_logprobs",)),
    ("logprobs", 5, ("logprobs",)),
    ("max_completion_tokens", 5, ("max_completion_tokens",)),
    ("continue_final_message", 1, ("continue_final_message",)),
    ("tools", 5, ("tools",)),
    ("tools", [{"type": "function"}], ("tools",)),
    ("tools", [{"type": "function", "function": {"name": "no spaces here"}}], ("tools",)),
    ("tools", [{"type": "function", "function": {"name": "f", "parameters": []}}], ("tools",)),
    ("tools", [{"type": "function", "function": {"name": "f"}}] * 129, ("tools",)),
    ("tools", [{"type": "retrieval"}], ("tools",)),
    ("tool_choice", "required", ("tool_choice",)),
    ("tool_choice", "any", ("tool_choice",)),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}, ("tool_choice",)),
    ("parallel_tool_calls", 1, ("parallel_tool_calls",)),
]
"""(field, value, names) of chats."""

TOKENS: list[tuple[str, Fields, tuple[str, ...]]] = [
    ("/tokenize", {}, ("prompt",)),
    ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, ("prompt",)),
    *(("/tokenize", {"prompt": wrong}, ("prompt",)) for wrong in NO_TEXT),
    *(("/tokenize", {"prompt": "x", "add_special_tokens": wrong}, ("add_special_tokens",)) for wrong in NO_BOOL),
    ("/tokenize", {"messages": []}, ("messages",)),
    ("/tokenize", {"messages": [{"role": "user"}]}, ("messages",)),
    ("/tokenize", {"prompt": "x", "max_tokens": 5}, ("max_tokens",)),
    ("/detokenize", {}, ("tokens",)),
    *(("/detokenize", {"tokens": wrong}, ("tokens",)) for wrong in NO_IDS),
    ("/detokenize", {"tokens": [5], "model": "gpt-4"}, ("model",)),
    ("/detokenize", {"tokens": [5] * 1_000_000}, ("tokens", "the body")),
]
"""(path, body, names) of what makes tokens and text."""

PROMPTS: list[Any] = [
    None,
    "",
    [],
    [[]],
    5,
    True,
    {},
    {"a": 1},
    ["a", 5],
    [5, "a"],
    [[5], "a"],
    [""],
    ["a", ""],
    [None],
    [[None]],
    [[[5]]],
    *([wrong] for wrong in NO_TOKEN_ID if wrong != "5"),  # that is a text
    *([5, wrong] for wrong in NO_TOKEN_ID),
    *([[5], [wrong]] for wrong in NO_TOKEN_ID),
    ["a"] * 257,
    [5] * (1 << 18 | 1),
    [5] * MAX_MODEL_LEN,
    "many words " * 3000,
    "x" * 1_000_000,
    nested(100_000, opening="[", closing="]"),
    nested(100_000, opening='{"a":', closing="}"),
]

VALID: list[tuple[str, Callable[[random.Random], Any]]] = [
    ("temperature", lambda dice: dice.choice([0, 0.0, 1, 0.7])),
    ("top_p", lambda dice: dice.choice([1, 0.9, 0.1])),
    ("top_k", lambda dice: dice.choice([-1, 0, 40])),
    ("seed", lambda dice: dice.randrange(2**62)),
    ("stop", lambda dice: dice.choice([None, "zebra", ["a", "b"]])),
    ("user", lambda dice: "someone"),
    ("num_speculative_tokens", lambda dice: dice.choice([0, 1, 3, 99])),
    ("logit_bias", lambda dice: {str(dice.randrange(VOCAB_SIZE)): dice.choice([-100, -1.5, 0, 4])}),
    ("frequency_penalty", lambda dice: dice.choice([-2, 0.5, 2])),
    ("return_token_ids", lambda dice: dice.choice([True, False, None])),
]
"""Fields that may accompany the wrong one."""

BODIES: list[bytes] = [
    b"",
    b" ",
    b"null",
    b"true",
    b"5",
    b'"prompt"',
    b"[]",
    b"[{}]",
    b"{",
    b"}",
    b'{"prompt"',
    b'{"prompt":',
    b'{"prompt":"x"',
    b'{"prompt":"x",}',
    b"{'prompt':'x'}",
    b'{"prompt":"x"}{"prompt":"x"}',
    b'{"prompt":"\xff\xfe"}',
    b'{"prompt":"\xc3\x28"}',
    b'{"prompt":"\xed\xa0\x80"}',
    b'{"prompt":"\\ud800"}',
    b'{"prompt":"\\udc00\\ud800"}',
    b'{"prompt":"\\x"}',
    b'{"prompt":"x","seed":' + b"9" * 5000 + b"}",
    b'{"prompt":"a\nb"}',
    b'\xef\xbb\xbf{"prompt":"x"}',
    '{"prompt":"x"}'.encode("utf-16"),
    b"\x00" * 100,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"prompt":"' + b"x" * 5_000_000 + b'"}',
]
"""No JSON objects in UTF-8, or too long."""


def bodies(seed: int, count: int) -> Iterator[Bad]:
    """`count` of them, every kind in turn; the same for the same seed."""
    dice = random.Random(seed)
    kinds = [
        _field,
        _field,
        _field,
        _field,
        _prompt,
        _messages,
        _grammar,
        _grammar,
        _chat,
        _together,
        _tokens,
        _unknown,
        _body,
    ]
    for index in range(count):
        yield kinds[index % len(kinds)](dice)


def _around(dice: random.Random, *, is_chat: bool, without: set[str]) -> Fields:
    body: Fields = {"messages": [{"role": "user", "content": "x"}]} if is_chat else {"prompt": "x"}
    body["max_tokens"] = 4
    for name, value in dice.sample(VALID, dice.randrange(4)):
        if name not in without:
            body[name] = value(dice)
    return body


def _request(body: Fields, names: tuple[str, ...], *, is_chat: bool, dice: random.Random) -> Bad:
    entries = list(body.items())
    dice.shuffle(entries)
    path = "/v1/chat/completions" if is_chat else "/v1/completions"
    content = encoded(dict(entries))
    return Bad(path, content, names, f"{path} {content[:300].decode(errors='replace')}")


def _field(dice: random.Random) -> Bad:
    name = dice.choice(list(SAMPLING))
    value = dice.choice(SAMPLING[name])
    is_chat = dice.random() < 0.4
    body = {**_around(dice, is_chat=is_chat, without={name}), name: value}
    if name == "stream_options":
        body["stream"] = True
    names = (name, "structured_outputs") if name == "response_format" else (name,)
    return _request(body, names, is_chat=is_chat, dice=dice)


def _prompt(dice: random.Random) -> Bad:
    body = {**_around(dice, is_chat=False, without=set()), "prompt": dice.choice(PROMPTS)}
    if dice.random() < 0.05:
        del body["prompt"]
    return _request(body, ("prompt", "the body"), is_chat=False, dice=dice)


def _messages(dice: random.Random) -> Bad:
    body = {**_around(dice, is_chat=True, without=set()), "messages": dice.choice(MESSAGES)}
    if dice.random() < 0.05:
        del body["messages"]
    return _request(body, ("messages", "prompt", "the body"), is_chat=True, dice=dice)


def _grammar(dice: random.Random) -> Bad:
    grammar = dice.choice(GRAMMARS)
    is_chat = dice.random() < 0.4
    body = {**_around(dice, is_chat=is_chat, without=set()), "structured_outputs": grammar}
    return _request(body, ("structured_outputs", "the body"), is_chat=is_chat, dice=dice)


def _chat(dice: random.Random) -> Bad:
    name, value, names = dice.choice(CHAT)
    body = {**_around(dice, is_chat=True, without=set()), name: value}
    return _request(body, names, is_chat=True, dice=dice)


def _tokens(dice: random.Random) -> Bad:
    path, body, names = dice.choice(TOKENS)
    content = encoded(body)
    return Bad(path, content, names, f"{path} {content[:300].decode()}")


def _together(dice: random.Random) -> Bad:
    _, fields, names = dice.choice(TOGETHER)
    is_chat = "prompt" not in fields and dice.random() < 0.4
    body = {**_around(dice, is_chat=is_chat, without=set()), **fields}
    return _request(body, names, is_chat=is_chat, dice=dice)


def _unknown(dice: random.Random) -> Bad:
    names = ["suffix", "metadata", "functions", "guided_json", "maxtokens", "Temperature", "__proto__", "a" * 3000]
    name = dice.choice([*names, "".join(dice.choices("abcdefghij_$. é\u0000", k=dice.randint(1, 12))) + "_x"])
    is_chat = dice.random() < 0.4
    body = {**_around(dice, is_chat=is_chat, without=set()), name: dice.choice([1, True, "x", [1], {"a": 1}])}
    if dice.random() < 0.1:
        body |= {f"field_{index}": index for index in range(5000)}
        name = "field_"
    shown = json.dumps(name, ensure_ascii=False)[1:-1][:40]
    return _request(body, (shown,), is_chat=is_chat, dice=dice)


def _body(dice: random.Random) -> Bad:
    path = dice.choice(["/v1/completions", "/v1/chat/completions"])
    if dice.random() < 0.1:
        headers = {
            "Content-Type": dice.choice(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
        }
        return Bad(path, b'{"prompt": "x"}', ("content-type",), f"{path} {headers}", headers)
    content = dice.choice(BODIES)
    if dice.random() < 0.3:
        content = bytes(dice.choices(range(256), k=dice.randint(1, 200)))
    names = ("the body", "prompt", "messages", "not JSON")
    return Bad(path, content, names, f"{path} {content[:100]!r}")
