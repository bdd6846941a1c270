"""Renders the messages of a conversation as text, with the model's template or the caller's, and with tools.

Markers that a template or a model puts in its text, such as the beginning and end of reasoning, are passed through:
they are text like any other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from outrider.core.errors import RequestError
from outrider.engine.content_form import FORMATS, arrange, check_texts
from outrider.engine.template import Deadline
from outrider.engine.tokenizer import Tokenizer

_NO_VARIABLES = frozenset(
    (
        "conversation", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs",
    )
)  # fmt: skip
"""Arguments of transformers' `apply_chat_template` that its templates never see."""

Message = Mapping[str, Any]
"""{"role", "content"} and any other keys that the template reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """Options that control how a conversation is rendered; names and meanings are as in vLLM."""

    tools: Sequence[Mapping[str, Any]] | None = None
    """JSON schemas of the functions that the model may call."""
    chat_template: str | None = None
    """A Jinja template in place of the model's own."""
    add_generation_prompt: bool | None = None
    """End with the assistant's header; None: True unless `continue_final_message` is set."""
    continue_final_message: bool = False
    """Leave the last message open, so that the output continues it."""
    chat_template_content_format: str = "auto"
    """Form of the contents that the template gets: "string" (text), "openai" (parts), or "auto", what it shows."""
    add_special_tokens: bool = False
    """Add the tokenizer's special tokens, such as bos, to the rendered text; most templates write them themselves."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further variables for the template, such as enable_thinking."""

    def __post_init__(self) -> None:
        if self.chat_template_content_format not in FORMATS:
            raise RequestError(
                f"chat_template_content_format={self.chat_template_content_format!r} is not known. Use "
                f"{', '.join(FORMATS)}."
            )
        if wrong := sorted(_NO_VARIABLES & self.chat_template_kwargs.keys()):
            raise RequestError(
                f"chat_template_kwargs has {wrong[0]!r}, which is not a variable of chat templates. Leave it out."
            )
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message=True leaves the last message open, and add_generation_prompt=True begins "
                "another. Leave add_generation_prompt unset."
            )


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], options: ChatOptions, *, max_tokens: int | None = None
) -> list[int]:
    """Token ids of a conversation. A text that certainly has more than `max_tokens` is refused before they are made."""
    if not messages:
        raise RequestError("messages=[] is empty. Give at least one message.")
    if options.chat_template is None and not tokenizer.chat_template:
        raise RequestError("The model has no chat template. Give chat_template, or use generate() with plain text.")
    deadline = Deadline()
    arranged, is_checked = arrange(
        [_plain(message) for message in messages],
        lambda marked: _render(tokenizer, marked, options, continues=False, deadline=deadline),
        content_format=options.chat_template_content_format,
    )
    text = _render(tokenizer, arranged, options, continues=options.continue_final_message, deadline=deadline)
    if not is_checked:
        check_texts(arranged, text)
    # arguments of a call may hold half of a surrogate pair, which is encoded as the escape that the model wrote
    text = text.encode("utf-8", "backslashreplace").decode()
    if max_tokens is not None:
        tokenizer.check_length(text, max_tokens=max_tokens)
    return tokenizer.encode(text, add_special_tokens=options.add_special_tokens)


def _render(
    tokenizer: Tokenizer,
    messages: Sequence[dict[str, Any]],
    options: ChatOptions,
    *,
    continues: bool,
    deadline: Deadline,
) -> str:
    """The text of a conversation. Raises RequestError if the template refuses it."""
    adds = options.add_generation_prompt
    try:
        return tokenizer.render_chat(
            messages,
            tools=list(options.tools) if options.tools is not None else None,
            chat_template=options.chat_template,
            add_generation_prompt=not options.continue_final_message if adds is None else adds,
            continue_final_message=continues,
            deadline=deadline,
            **options.chat_template_kwargs,
        )
    except (
        TemplateError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        raise RequestError(
            f"the chat template refuses these messages: {error}. Change them, or the template."
        ) from error


def _plain(message: Message) -> dict[str, Any]:
    """A message as templates expect it: parts are of text only, and a tool call's arguments are an object."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RequestError(f"message {message!r} has no role. A message is {{'role': …, 'content': …}}.")
    plain = dict(message)
    content = plain.get("content")
    if isinstance(content, (list, tuple)):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise RequestError(f"content holds {part!r}. Only {{'type': 'text', 'text': …}} is built.")
        plain["content"] = [{"type": "text", "text": part["text"]} for part in content]
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_with_object(call) for call in plain["tool_calls"]]
    return plain


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"] or "{}")
        except (ValueError, RecursionError) as error:  # also for numbers that are too long, and for too many brackets
            raise RequestError(
                f"tool call arguments {function['arguments'][:80]!r} cannot be read as JSON: {error}. Give an object."
            ) from error
    return dict(call) | {"function": function}
