"""The texts of a request for vectors or classes: `input`, or the `messages` of one conversation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from outrider.engine.admission import Prompt
from outrider.engine.chat import ChatOptions
from outrider.server.chat_messages import MAX_MESSAGES, Message, plain_message
from outrider.server.errors import refused
from outrider.server.fields import MAX_IDS, WHOLE_IDS, TokenId
from outrider.server.front import Front
from outrider.server.pooling.fields import PoolingFields

MAX_INPUTS = 2048
"""Maximum number of texts of a request, as at OpenAI."""

Ids = Annotated[
    list[TokenId], Field(min_length=1, max_length=MAX_IDS, json_schema_extra={"x-limit": "whole-context"}), WHOLE_IDS
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingInput:
    """One text of a request."""

    name: str
    """Its field in the body."""
    given: str | list[int] | Callable[[], list[int]]
    """The text, its token ids, or a function that makes them and takes time."""
    add_special_tokens: bool = True
    """For a text."""

    def prompt(self) -> Prompt:
        """The prompt that admission takes. Raises RequestError."""
        given = self.given() if callable(self.given) else self.given
        return given if isinstance(given, str) else {"prompt_token_ids": given}


class InputFields(PoolingFields):
    """Fields of endpoints that read texts one by one."""

    input: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS)]
        | None
    ) = Field(None, description="Text, token ids, or a list of either. Give input or messages.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        None, description="A conversation, which becomes one text by the chat template."
    )
    add_special_tokens: bool | None = Field(
        None, description="Adds the tokenizer's special tokens. Default true for a text, false for messages."
    )
    add_generation_prompt: bool | None = Field(None, description="Default false. Applies to messages.")
    continue_final_message: bool | None = Field(None, description="Default false. Applies to messages.")
    chat_template: str | None = Field(
        None, description="A Jinja template for messages. Needs a server with --trust-request-chat-template."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Further variables for the chat template. Applies to messages."
    )

    def inputs(self, front: Front) -> list[PoolingInput]:
        """The texts in their order. Raises APIError."""
        if (self.input is None) == (self.messages is None):
            raise refused("exactly one of input and messages is needed. Give one of them.", param="input")
        if self.messages is not None:
            return [PoolingInput(name="messages", given=self._conversation(front))]
        for name in ("add_generation_prompt", "continue_final_message", "chat_template", "chat_template_kwargs"):
            if getattr(self, name):
                raise refused(f"{name} is given without messages. Give messages, or leave it out.", param=name)
        given: Any = self.input
        adds = self.add_special_tokens is not False
        if isinstance(given, str) or isinstance(given[0], int):
            return [PoolingInput(name="input", given=given, add_special_tokens=adds)]
        return [
            PoolingInput(name=f"input[{index}]", given=each, add_special_tokens=adds)
            for index, each in enumerate(given)
        ]

    def _conversation(self, front: Front) -> Callable[[], list[int]]:
        server = front.options
        if self.chat_template is not None and not server.trusts_request_chat_template:
            raise refused(
                "this server does not accept chat_template from callers. Start it with --trust-request-chat-template, "
                "or with --chat-template FILE.",
                param="chat_template",
            )
        options = ChatOptions(
            chat_template=self.chat_template or server.chat_template,
            add_generation_prompt=self.add_generation_prompt or False,
            continue_final_message=self.continue_final_message or False,
            add_special_tokens=self.add_special_tokens or False,
            chat_template_kwargs=self.chat_template_kwargs or {},
        )
        return lambda: front.encode_chat([plain_message(message) for message in self.messages or ()], options)
