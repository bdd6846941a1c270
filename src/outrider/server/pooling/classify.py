"""/classify: the value of each label for each text."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from outrider.core.pooling import CLASSIFY, PoolingRequestOutput
from outrider.server.body import read_body
from outrider.server.front import Front
from outrider.server.pooling.call import PoolingCall, usage_of
from outrider.server.pooling.inputs import InputFields


class ClassifyRequest(InputFields):
    """Body of /classify."""


async def classify(request: Request) -> Response:
    """Handles POST /classify."""
    front: Front = request.app.state.front
    body = await read_body(request, ClassifyRequest)
    front.check_model(body.model)
    call = PoolingCall(front, body, prefix="classify")
    outputs = await call.read(request, body.inputs(front), body.params(CLASSIFY))
    num_values = sum(len(output.outputs.values) for output in outputs)
    return await call.answer(lambda: _answer(call, outputs), num_values=num_values)


def _answer(call: PoolingCall, outputs: list[PoolingRequestOutput]) -> dict[str, Any]:
    abilities = call.front.info.pooling
    assert abilities is not None, "the engine generates"
    return call.envelope() | {
        "data": [
            _entry(index, output.outputs.values.tolist(), abilities.labels) for index, output in enumerate(outputs)
        ],
        "usage": usage_of(outputs),
    }


def _entry(index: int, values: list[float], labels: tuple[str, ...]) -> dict[str, Any]:
    """A text's values and its label, which has the largest one; the first of equal ones."""
    best = max(range(len(values)), key=values.__getitem__)
    return {"index": index, "label": labels[best] if labels else None, "probs": values, "num_classes": len(values)}
