"""/pooling: the numbers of any task, for a text or for each of its tokens."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from outrider.core.pooling import (
    CLASSIFY,
    EMBED,
    MAX_RETURNED_TOKEN_IDS,
    TOKEN_CLASSIFY,
    TOKEN_EMBED,
    PoolingRequestOutput,
)
from outrider.server.body import read_body
from outrider.server.errors import refused
from outrider.server.fields import INT32, WHOLE, WHOLE_IDS, TokenId
from outrider.server.front import Front
from outrider.server.pooling.call import Entries, PoolingCall, usage_of
from outrider.server.pooling.inputs import InputFields
from outrider.server.pooling.vectors import Encoding, encoded

_TASKS = (EMBED, CLASSIFY, TOKEN_EMBED, TOKEN_CLASSIFY)
"""Tasks that read one text."""


PooledTask = Annotated[
    Literal["embed", "classify", "token_embed", "token_classify"], Field(json_schema_extra={"x-limit": "task"})
]
ReturnedIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_RETURNED_TOKEN_IDS), WHOLE_IDS]


class PoolingRequest(InputFields):
    """Body of /pooling."""

    task: PooledTask | None = Field(
        None, description="token_embed and token_classify give numbers for each token. Default: the model's own task."
    )
    encoding_format: Encoding | None = Field(
        None,
        description="float: a list of numbers, or of lists (the default). base64: little-endian fp32, row after row; "
        "shape says how many.",
    )
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=INT32, json_schema_extra={"x-limit": "dimensions"}), WHOLE] | None = (
        Field(None, description="Keep this many leading numbers of each vector. For embed and token_embed.")
    )
    normalize: bool | None = Field(None, description="Another name of use_activation, for embed and token_embed.")
    step_tag_id: TokenId | None = Field(
        None, description="token_classify: the numbers at tokens with this id only, the ends of steps of a solution."
    )
    returned_token_ids: ReturnedIds | None = Field(
        None, description="token_classify: these columns of a token's numbers only, in this order."
    )


async def pooling(request: Request) -> Response:
    """Handles POST /pooling."""
    front: Front = request.app.state.front
    body = await read_body(request, PoolingRequest)
    front.check_model(body.model)
    abilities = front.info.pooling
    assert abilities is not None, "the engine generates"
    offered = [task for task in _TASKS if task in abilities.tasks]
    if body.task is not None and body.task not in offered:
        raise refused(
            f"task={body.task!r} is not one of this model's: {', '.join(offered)}. Leave it out for its own.",
            param="task",
        )
    task = body.task or (abilities.default_task if abilities.default_task in offered else offered[0])
    call = PoolingCall(front, body, prefix="pool")
    params = replace(
        body.params(task, dimensions=body.dimensions, normalize=body.normalize),
        step_tag_id=body.step_tag_id,
        returned_token_ids=body.returned_token_ids,
    )
    outputs = await call.read(request, body.inputs(front), params)
    num_values = sum(len(output.outputs.values) for output in outputs)
    return await call.answer(lambda: _answer(call, outputs, body.encoding_format or "float"), num_values=num_values)


def _answer(call: PoolingCall, outputs: list[PoolingRequestOutput], encoding: Encoding) -> dict[str, Any]:
    def entry(index: int, output: PoolingRequestOutput) -> dict[str, Any]:
        pooled = output.outputs
        shape = list(pooled.shape)
        return {"object": "pooling", "index": index, "shape": shape, "data": encoded(pooled, encoding)}

    return call.envelope() | {"data": Entries(outputs, entry), "usage": usage_of(outputs)}
