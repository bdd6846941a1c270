"""Which endpoints a server offers: those for a task that its model does. The others say how to start such a server."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from outrider.core.pooling import SCORE
from outrider.engine.messages import EngineInfo
from outrider.server.errors import APIError
from outrider.server.front import Front
from outrider.server.openapi import Operation

GENERATE = "generate"


def tasks_of(info: EngineInfo) -> tuple[str, ...]:
    """Tasks that the model does; scoring is one for every model that can compare two texts."""
    abilities = info.pooling
    if abilities is None:
        return (GENERATE,)
    scores = abilities.pair_input is not None and SCORE not in abilities.tasks
    return (*abilities.tasks, SCORE) if scores else abilities.tasks


def is_served(operation: Operation, info: EngineInfo) -> bool:
    """True if the model does a task of the endpoint."""
    return not operation.tasks or not set(operation.tasks).isdisjoint(tasks_of(info))


def refusing(operation: Operation, front: Front) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that refuses every request with 404, and says which server would answer it."""
    info, name = front.info, front.model_names[0]
    needs, tasks = " or ".join(operation.tasks), ", ".join(tasks_of(info))
    if info.pooling is None:
        reason = f"it needs a pooling model (task {needs}), and {name} generates text"
        remedy = "Start a server for one: outrider serve MODEL --runner pooling."
    elif operation.tasks == (GENERATE,):
        reason = f"it needs a model that generates text, and {name} runs as a pooling model ({tasks})"
        remedy = "Start a server that generates: outrider serve MODEL --runner generate."
    else:
        reason = f"it needs a model for the task {needs}, and the tasks of {name} are {tasks}"
        remedy = "Start a server with such a model."

    async def refuse(request: Request) -> Response:
        """Refuses a request that this model cannot answer."""
        raise APIError(
            f"{request.url.path} is not offered by this server: {reason}. {remedy}",
            status=404,
            param="model",
            code="wrong_kind_of_model",
        )

    return refuse
