"""/v1/embeddings: a vector for each text."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from outrider.core.pooling import EMBED, PoolingRequestOutput
from outrider.server.body import read_body
from outrider.server.fields import INT32, WHOLE
from outrider.server.front import Front
from outrider.server.pooling.call import Entries, PoolingCall, usage_of
from outrider.server.pooling.inputs import InputFields
from outrider.server.pooling.vectors import Encoding, encoded


class EmbeddingRequest(InputFields):
    """Body of /v1/embeddings."""

    encoding_format: Encoding | None = Field(
        None, description="float: a list of numbers (the default). base64: little-endian fp32; the same values."
    )
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=INT32, json_schema_extra={"x-limit": "dimensions"}), WHOLE] | None = (
        Field(
            None,
            description="Keep this many leading numbers of a vector, before its length becomes 1. For models that were "
            "trained for it.",
        )
    )
    normalize: bool | None = Field(
        None,
        description="Scale a vector to length 1; another name of use_activation. Default: as the model's files say.",
    )


async def embeddings(request: Request) -> Response:
    """Handles POST /v1/embeddings."""
    front: Front = request.app.state.front
    body = await read_body(request, EmbeddingRequest)
    front.check_model(body.model)
    call = PoolingCall(front, body, prefix="embd")
    params = body.params(EMBED, dimensions=body.dimensions, normalize=body.normalize)
    outputs = await call.read(request, body.inputs(front), params)
    num_values = sum(len(output.outputs.values) for output in outputs)
    return await call.answer(lambda: _answer(call, outputs, body.encoding_format or "float"), num_values=num_values)


def _answer(call: PoolingCall, outputs: list[PoolingRequestOutput], encoding: Encoding) -> dict[str, Any]:
    def entry(index: int, output: PoolingRequestOutput) -> dict[str, Any]:
        return {"object": "embedding", "index": index, "embedding": encoded(output.outputs, encoding)}

    return call.envelope() | {"data": Entries(outputs, entry), "usage": usage_of(outputs)}
