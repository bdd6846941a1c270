"""The requests of each load, from fixed seeds: the same for every engine and every way to it."""

import random
from collections.abc import Sequence

from benchmarks.traffic.shapes import Shape
from outrider.bench.serve.workload import Ask, arrivals

_SEEDS = {"at-once": 0, "rate": 1, "arriving": 2, "warm-up": 3}
_NUM_WARM_UP = 128


def at_once(shape: Shape) -> list[Ask]:
    """The requests that are submitted together."""
    return _mixed(shape, shape.num_at_once, seed=_SEEDS["at-once"])


def warm_up(shape: Shape) -> list[Ask]:
    """Requests like those of `at_once`, sent before anything is measured."""
    return _mixed(shape, min(shape.num_at_once, _NUM_WARM_UP), seed=_SEEDS["warm-up"])


def at_rate(shape: Shape, rate: float) -> tuple[list[Ask], list[float]]:
    """Requests, and the seconds from the start at which each is sent: a Poisson process."""
    count = max(round(rate * shape.rate_seconds), 1)
    seed = _SEEDS["rate"]
    return _mixed(shape, count, seed=seed), arrivals(count, rate=rate, burstiness=1.0, seed=seed)


def running_and_arriving(shape: Shape) -> tuple[list[Ask], list[Ask]]:
    """Requests that decode until they are cancelled, and prompts that come in meanwhile."""
    rng = random.Random(_SEEDS["arriving"])
    most = shape.max_model_len - shape.running_len
    running = [_ask(rng, shape, shape.running_len, most) for _ in range(shape.num_running)]
    arriving = [_ask(rng, shape, shape.arriving_len, 4) for _ in range(shape.num_arriving)]
    return running, arriving


def _mixed(shape: Shape, count: int, *, seed: int) -> list[Ask]:
    rng = random.Random(seed)
    return [_ask(rng, shape, rng.randint(*shape.prompt_len), rng.randint(*shape.output_len)) for _ in range(count)]


def _ask(rng: random.Random, shape: Shape, length: int, max_tokens: int) -> Ask:
    return Ask(prompt=[rng.randrange(shape.vocab) for _ in range(length)], max_tokens=max_tokens)


def num_output_tokens(asks: Sequence[Ask]) -> int:
    """Tokens that the answers have, as none ends early."""
    return sum(ask.max_tokens for ask in asks)
