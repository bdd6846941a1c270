"""/tokenize and /detokenize: the model's tokenizer over HTTP."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outrider.engine.chat import ChatOptions
from outrider.engine.token_bytes import readable
from outrider.server.body import read_body
from outrider.server.chat_messages import MAX_MESSAGES, Message, plain_message
from outrider.server.errors import refused
from outrider.server.fields import MAX_IDS, WHOLE_IDS, ModelName, TokenId
from outrider.server.front import Front
from outrider.server.strict import Strict
from outrider.server.tools import Tool

_MAX_DECODED = 1 << 16
"""Maximum number of ids that become a text, if the context is smaller: the library keeps Python's lock meanwhile."""


class TokenizeRequest(Strict):
    """Body of /tokenize: a prompt or messages."""

    model: ModelName | None = None
    prompt: str | None = Field(None, description="A text. Give prompt or messages.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = Field(
        None, description="Tools for the chat template. Needs messages."
    )
    add_special_tokens: bool | None = Field(
        None, description="Adds the tokenizer's special tokens. Default true for a prompt, false for messages."
    )
    add_generation_prompt: bool | None = Field(None, description="Default true. Applies to messages.")
    continue_final_message: bool | None = Field(None, description="Default false. Applies to messages.")
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Further variables for the chat template. Applies to messages."
    )
    return_token_strs: bool | None = Field(None, description="Adds token_strs, the text of each token.")


class DetokenizeRequest(Strict):
    """Body of /detokenize."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_IDS), WHOLE_IDS]


async def tokenize(request: Request) -> Response:
    """Handles POST /tokenize."""
    front: Front = request.app.state.front
    body = await read_body(request, TokenizeRequest)
    front.check_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise refused("exactly one of prompt and messages is needed. Give one of them.", param="prompt")
    options: ChatOptions | None = None
    if body.messages is not None:
        options = ChatOptions(
            tools=[tool.model_dump(exclude_none=True) for tool in body.tools] if body.tools else None,
            chat_template=front.options.chat_template,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message or False,
            add_special_tokens=body.add_special_tokens or False,
            chat_template_kwargs=body.chat_template_kwargs or {},
        )
    return await front.aside(lambda: _tokenized(front, body, options), request)


def _tokenized(front: Front, body: TokenizeRequest, options: ChatOptions | None) -> Response:
    """The answer to /tokenize; `options` are those of a conversation."""
    if options is not None:
        token_ids = front.encode_chat([plain_message(message) for message in body.messages or ()], options)
    else:
        token_ids = front.encode(body.prompt or "", add_special_tokens=body.add_special_tokens is not False)
    answer = {"count": len(token_ids), "max_model_len": front.info.max_model_len, "tokens": token_ids}
    if body.return_token_strs:
        answer["token_strs"] = [readable(front.tokenizer.token_bytes.of(entry)) for entry in token_ids]
    return JSONResponse(answer)


async def detokenize(request: Request) -> Response:
    """Handles POST /detokenize. The text includes special tokens."""
    front: Front = request.app.state.front
    body = await read_body(request, DetokenizeRequest)
    front.check_model(body.model)
    most = front.info.vocab_size
    tokens = body.tokens
    longest = max(front.info.max_model_len, _MAX_DECODED)
    if len(tokens) > longest:
        raise refused(
            f"tokens holds {len(tokens)} ids; at most {longest} are taken. Send several lists.", param="tokens"
        )
    if tokens and max(tokens) >= most:
        raise refused(
            f"tokens contains {max(tokens)}, which is not a token id of this model. Use 0 to {most - 1}.",
            param="tokens",
        )
    return await front.aside(
        lambda: JSONResponse({"prompt": front.tokenizer.decode(tokens, skip_special_tokens=False)}), request
    )
