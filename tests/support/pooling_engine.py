"""An engine process of a pooling model that is a thread of the test: its numbers follow from the ids that it gets."""

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from outrider.core.pooling import PoolingAbilities, PoolingOutput, PoolingRequestOutput
from outrider.core.request import Request
from outrider.engine.messages import Abort, Add, Added, Begin, Refused, Turn
from tests.support.scripted_engine import INFO, EngineEnd

EMBEDDER = PoolingAbilities(
    tasks=("embed", "token_embed"),
    default_task="embed",
    pair_input="vectors",
    embedding_size=4,
    matryoshka_dimensions=(2, 4),
)
RERANKER = PoolingAbilities(tasks=("score",), default_task="score", pair_input="joined")
CLASSIFIER = PoolingAbilities(
    tasks=("classify", "token_classify"), default_task="classify", labels=("good", "bad", "neither")
)


def numbers(token_ids: list[int], size: int = 4) -> list[float]:
    """fp32 numbers that depend on all ids and their order."""
    total = 0
    for token_id in token_ids:
        total = (total * 31 + token_id + 7) % 1009
    values = [((total * (place + 3)) % 1009 - 500) / 700 for place in range(size)]
    return array("f", values).tolist()


def pooled(request: Request, abilities: PoolingAbilities) -> PoolingRequestOutput:
    """The output of a request."""
    assert request.pooling is not None, "the request generates"
    ids, task = list(request.prompt_token_ids), request.pooling.task
    size = {"score": 1, "classify": abilities.num_labels, "token_classify": abilities.num_labels}.get(task or "", 4)
    size = min(size, request.pooling.dimensions or size)
    if task in ("token_embed", "token_classify"):
        rows = [numbers(ids[: place + 1], size) for place in range(len(ids))]
        output = PoolingOutput(values=array("f", [value for row in rows for value in row]), shape=(len(ids), size))
    else:
        output = PoolingOutput(values=array("f", numbers(ids, size)), shape=(size,))
    return PoolingRequestOutput(request_id=request.request_id, prompt_token_ids=ids, outputs=output)


@dataclass
class PlayedEngine:
    """Answers every request at once, or keeps some."""

    abilities: PoolingAbilities
    seen: list[Request] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    keeps: Callable[[Request], bool] = lambda request: False
    """Requests that are never answered."""
    is_late: Callable[[Request], bool] = lambda request: False
    """Requests that are answered with the 64th one."""
    refuses: Callable[[Request], str | None] = lambda request: None
    """The engine's refusal of a request."""

    def play(self, engine: EngineEnd, _: Begin) -> None:
        """The life of the process, for `play_engine`."""
        late: list[PoolingRequestOutput] = []
        engine.send(replace(INFO, vocab_size=3072, max_model_len=128, pooling=self.abilities))
        while True:
            message = engine.receive()
            if isinstance(message, Abort):
                self.aborted.append(message.request_id)
            if not isinstance(message, Add):
                continue
            request = message.request
            self.seen.append(request)
            if refusal := self.refuses(request):
                engine.send(Turn([Refused(request.request_id, refusal)], [], None))
                continue
            outputs = [] if self.keeps(request) else [pooled(request, self.abilities)]
            if self.is_late(request):
                late += outputs
                outputs = []
            elif late and len(self.seen) % 64 == 0:
                time.sleep(0.05)  # the front has read all others
                outputs += late
                late = []
            engine.send(Turn([Added(request.request_id)], [], None, outputs))
