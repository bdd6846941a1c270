"""/tokenize and /detokenize: what the model's tokenizer makes of a text, a conversation, or of ids."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outrider.engine.chat import ChatOptions
from outrider.server.body import read_body
from outrider.server.chat import Message, plain_message
from outrider.server.errors import refused
from outrider.server.fields import MAX_IDS, WHOLE_IDS, ModelName, Strict, TokenId
from outrider.server.front import Front
from outrider.server.tools import Tool


class TokenizeRequest(Strict):
    """Body of /tokenize: a prompt or messages."""

    model: ModelName | None = None
    prompt: str | None = Field(None, description="A text; or messages.")
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = Field(None, description="Of messages.")
    add_special_tokens: bool | None = Field(None, description="Of a prompt; unset: yes.")
    add_generation_prompt: bool | None = Field(None, description="Of messages; unset: yes.")
    continue_final_message: bool | None = Field(None, description="Of messages.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Of messages.")
    return_token_strs: bool | None = Field(None, description="The answer has token_strs, too.")


class DetokenizeRequest(Strict):
    """Body of /detokenize."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_IDS), WHOLE_IDS]


async def tokenize(request: Request) -> Response:
    """Token ids of a text or of a conversation."""
    front: Front = request.app.state.front
    body = await read_body(request, TokenizeRequest)
    front.check_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise refused("prompt and messages: give one of them.", param="prompt")
    if body.messages is not None:
        options = ChatOptions(
            tools=[tool.model_dump(exclude_none=True) for tool in body.tools] if body.tools else None,
            chat_template=front.options.chat_template,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message or False,
            chat_template_kwargs=body.chat_template_kwargs or {},
        )
        messages = [plain_message(message) for message in body.messages]
        token_ids = await front.aside(lambda: front.encode_chat(messages, options))
    else:
        text, adds = body.prompt or "", body.add_special_tokens is not False
        token_ids = await front.aside(lambda: front.tokenizer.encode(text, add_special_tokens=adds))
    answer = {"count": len(token_ids), "max_model_len": front.info.max_model_len, "tokens": token_ids}
    if body.return_token_strs:
        answer["token_strs"] = [front.tokenizer.decode([entry], skip_special_tokens=False) for entry in token_ids]
    return JSONResponse(answer)


async def detokenize(request: Request) -> Response:
    """Text of token ids, special tokens included."""
    front: Front = request.app.state.front
    body = await read_body(request, DetokenizeRequest)
    front.check_model(body.model)
    most = front.info.vocab_size
    wrong = next((entry for entry in body.tokens if entry >= most), None)
    if wrong is not None:
        raise refused(f"tokens holds {wrong}, which is no token id. Use 0 to {most - 1}.", param="tokens")
    tokens = body.tokens
    text = await front.aside(lambda: front.tokenizer.decode(tokens, skip_special_tokens=False))
    return JSONResponse({"prompt": text})
