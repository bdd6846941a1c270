"""One call to a pooling model: its requests, its id, and the envelope and usage of its answer."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from outrider.core.content import ContentKey
from outrider.core.errors import RequestError
from outrider.core.pooling import (
    EMBED,
    TOKEN_CLASSIFY,
    TOKEN_EMBED,
    PoolingParams,
    PoolingRequestOutput,
    ScoringRequestOutput,
)
from outrider.core.request import Request
from outrider.server.errors import APIError, refused
from outrider.server.event_stream import while_connected
from outrider.server.front import Front, Maker
from outrider.server.large_answer import encoded
from outrider.server.pooling.fields import PoolingFields
from outrider.server.pooling.inputs import PoolingInput
from outrider.server.pooling.job import PoolingJob
from outrider.server.request_log import note_delivery

_LARGE = 1 << 13
"""Numbers from which on an answer is written beside the event loop."""
MAX_VALUES = 1 << 23
"""Maximum number of numbers in an answer: 2048 vectors of 4096. Each has some 20 bytes."""
READ_AT_ONCE = 64
"""Texts that are read in one turn of the admission threads."""
_DEPTH = 2
"""Levels of an answer that are taken apart: itself, its data, and an entry."""


class Entries(Sequence[dict[str, Any]]):
    """The entries of an answer's list, each of which is made when it is written: as lists of Python's floats, all of
    them together would need eight times the memory of the numbers."""

    def __init__(self, outputs: Sequence[Any], entry: Callable[[int, Any], dict[str, Any]]) -> None:
        self._outputs = outputs
        self._entry = entry

    def __len__(self) -> int:
        return len(self._outputs)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._entry(place, self._outputs[place]) for place in range(len(self))[index]]
        return self._entry(index, self._outputs[index])


class PoolingCall:
    """The parts that the endpoints of a pooling model share."""

    def __init__(self, front: Front, body: PoolingFields, *, prefix: str) -> None:
        """prefix: of the answer's id."""
        self.front = front
        self.body = body
        self.id = f"{prefix}-{body.request_id or front.new_id()}"
        self.created = int(time.time())
        self.model = body.model or front.model_names[0]

    async def outputs(self, request: HTTPRequest, makers: Sequence[Maker], *, count: int) -> list[PoolingRequestOutput]:
        """Runs the `count` requests of the makers; the outputs in their order. Raises APIError or RequestError."""
        job = await self.front.pool(
            makers, count=count, priority=self.body.priority or 0, request=request, cache_salt=self.body.cache_salt
        )
        note_delivery(request, answer_id=self.id, delivery=job)
        return await while_connected(request, job, self._outputs(job))

    async def _outputs(self, job: PoolingJob) -> list[PoolingRequestOutput]:
        count = sum(map(self._num_values, job.requests))
        if count > MAX_VALUES:
            raise refused(
                f"the answer would have {count} numbers; at most {MAX_VALUES} are returned at once. Send fewer texts, "
                "or shorter ones to a task by token.",
                param="input",
            )
        return await job.outputs()

    def _num_values(self, request: Request) -> int:
        """The number of numbers that a request gives."""
        params, abilities = request.pooling, self.front.pooling.abilities
        assert params is not None, "the request generates"
        if params.task in (EMBED, TOKEN_EMBED):
            width = params.dimensions or abilities.embedding_size or 1
        else:
            width = len(params.returned_token_ids or ()) or abilities.num_labels or 1
        return width * (len(request.prompt_token_ids) if params.task in (TOKEN_EMBED, TOKEN_CLASSIFY) else 1)

    def envelope(self) -> dict[str, Any]:
        """The fields at the head of an answer with a list."""
        return {"id": self.id, "object": "list", "created": self.created, "model": self.model}

    async def read(
        self, request: HTTPRequest, inputs: Sequence[PoolingInput], params: PoolingParams
    ) -> list[PoolingRequestOutput]:
        """Runs a request for each text. Raises APIError or RequestError."""
        slices = [inputs[begin : begin + READ_AT_ONCE] for begin in range(0, len(inputs), READ_AT_ONCE)]
        makers = [partial(self._requests, each, params) for each in slices]
        return await self.outputs(request, makers, count=len(inputs))

    def _requests(
        self,
        inputs: Sequence[PoolingInput],
        params: PoolingParams,
        *,
        new_id: Callable[[], str],
        content_keys: Sequence[ContentKey],
    ) -> list[Request]:
        requests = []
        for each in inputs:
            try:
                request = self.front.pooling.request(
                    each.prompt(),
                    params,
                    request_id=new_id(),
                    add_special_tokens=each.add_special_tokens,
                    content_keys=content_keys,
                )
            except RequestError as error:
                raise refused(f"{each.name}: {error}", param=each.name) from error
            requests.append(request)
        return requests

    async def answer(self, make: Callable[[], dict[str, Any]], *, num_values: int) -> Response:
        """The response that `make` makes, with `num_values` numbers; beside the event loop if they are many."""
        if num_values <= _LARGE:
            return _written(make)
        return await self.front.aside(partial(_written, make))


def usage_of(outputs: Sequence[PoolingRequestOutput] | Sequence[ScoringRequestOutput]) -> dict[str, Any]:
    """`usage` of an answer: tokens that the model read. A query counts for each document that it is compared with."""
    count = sum(len(output.prompt_token_ids) for output in outputs)
    return {
        "prompt_tokens": count,
        "total_tokens": count,
        "prompt_tokens_details": {"cached_tokens": sum(output.num_cached_tokens for output in outputs)},
    }


def _written(make: Callable[[], dict[str, Any]]) -> Response:
    try:
        text = encoded(make(), depth=_DEPTH)
    except ValueError as error:  # JSON has no word for infinity and NaN
        raise APIError(
            "the model gave a value that is not a finite number. Its weights are damaged or too large for its dtype.",
            status=500,
            kind="generation_error",
            code="generation_failed",
        ) from error
    return Response(text.encode(), media_type="application/json")
