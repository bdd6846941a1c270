"""The prefix cache against a dict of whole prefixes; tokens of two kinds, so that prefixes meet often."""

import random

from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.prefix import PrefixCache
from outrider.scheduler.request_state import RequestState


def new_request(token_ids: list[int]) -> RequestState:
    request = Request(
        request_id="r",
        prompt_token_ids=tuple(token_ids),
        params=SamplingParams(),
        seed=0,
        eos_token_ids=(),
        max_total_tokens=1 << 20,
    )
    return RequestState(request=request)


class Simulation:
    """Requests that start, grow and leave; `published` maps each whole prefix to the block that ends it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.size = self.rng.choice((1, 2, 3))
        self.pool = BlockPool(self.rng.randrange(4, 20))
        self.cache = PrefixCache(self.pool, self.size, enabled=True)
        self.published: dict[tuple[int, ...], int] = {}
        self.requests: list[RequestState] = []
        self.num_offered: dict[int, int] = {}  # leading blocks of a request that were published once, or found
        self.names: dict[tuple[int, ...], bytes] = {}

    def tokens(self, count: int) -> list[int]:
        return [self.rng.randrange(2) for _ in range(count)]

    def brute_force_match(self, token_ids: list[int]) -> list[int]:
        found = []
        for end in range(self.size, len(token_ids), self.size):  # a block that ends at the last token is not used
            if tuple(token_ids[:end]) not in self.published:
                break
            found.append(self.published[tuple(token_ids[:end])])
        return found

    def allocate(self, count: int) -> list[int]:
        taken = self.pool.allocate(count)
        self.published = {prefix: block_id for prefix, block_id in self.published.items() if block_id not in taken}
        return taken

    def start(self) -> None:
        request = new_request(self.tokens(self.rng.randrange(1, 9)))
        found = self.cache.match(request).block_ids
        assert found == self.brute_force_match(request.token_ids)
        for block_id in found:
            self.pool.share(block_id)
        fresh = -(-request.num_tokens // self.size) - len(found)
        if fresh > self.pool.num_free:
            self.pool.release(found)
            return
        request.block_ids = found + self.allocate(fresh)
        request.num_cached_blocks = len(found)
        request.num_computed_tokens = len(found) * self.size
        self.requests.append(request)
        self.num_offered[id(request)] = len(found)

    def grow(self) -> None:
        """Some known tokens are computed, and some new ones confirmed; then what is whole is published."""
        request = self.rng.choice(self.requests)
        request.num_computed_tokens = self.rng.randrange(request.num_computed_tokens, request.num_tokens + 1)
        room = (len(request.block_ids) + self.pool.num_free) * self.size - request.num_tokens
        request.token_ids += self.tokens(self.rng.randrange(min(room, 5) + 1))
        request.block_ids += self.allocate(-(-request.num_tokens // self.size) - len(request.block_ids))
        self.cache.publish(request)
        whole = request.num_computed_tokens // self.size
        for index in range(self.num_offered[id(request)], whole):
            self.published.setdefault(tuple(request.token_ids[: (index + 1) * self.size]), request.block_ids[index])
        self.num_offered[id(request)] = whole

    def leave(self) -> None:
        request = self.requests.pop(self.rng.randrange(len(self.requests)))
        self.pool.release(reversed(request.block_ids))

    def run(self) -> None:
        for _ in range(80):
            self.rng.choice([self.start, self.grow, self.grow, self.leave] if self.requests else [self.start])()
            for request in self.requests:
                for index, name in enumerate(request.block_hashes):
                    prefix = tuple(request.token_ids[: (index + 1) * self.size])
                    assert self.names.setdefault(prefix, name) == name
            assert len(set(self.names.values())) == len(self.names), "two prefixes have one name"


def test_match_equals_the_longest_published_prefix() -> None:
    num_hits = 0
    for seed in range(120):
        simulation = Simulation(seed)
        try:
            simulation.run()
        except AssertionError as error:
            error.add_note(f"seed={seed}")
            raise
        num_hits += sum(request.num_cached_blocks > 0 for request in simulation.requests)
    assert num_hits > 50


def test_same_tokens_behind_another_prefix_are_another_block() -> None:
    pool = BlockPool(10)
    cache = PrefixCache(pool, 2, enabled=True)
    request = new_request([1, 2, 3, 4])
    request.block_ids = pool.allocate(2)
    request.num_computed_tokens = 4
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5])).block_ids == request.block_ids
    assert cache.match(new_request([3, 4, 3, 4, 5])).block_ids == []
    assert cache.match(new_request([1, 3, 2, 4, 5])).block_ids == []
    assert cache.match(new_request([1, 2, 4, 3, 5])).block_ids == request.block_ids[:1]


def test_block_that_ends_at_the_last_known_token_is_not_used() -> None:
    pool = BlockPool(10)
    cache = PrefixCache(pool, 2, enabled=True)
    request = new_request([1, 2, 3, 4])
    request.block_ids = pool.allocate(2)
    request.num_computed_tokens = 4
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4])).block_ids == request.block_ids[:1]


def test_nothing_behind_the_computed_or_the_confirmed_tokens_is_published() -> None:
    pool = BlockPool(10)
    cache = PrefixCache(pool, 2, enabled=True)
    request = new_request([1, 2, 3, 4, 5, 6])
    request.block_ids = pool.allocate(4)
    request.num_computed_tokens = 3
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5, 6])).block_ids == request.block_ids[:1]
    request.num_computed_tokens = 8  # more is written than is confirmed
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5, 6, 7, 8, 9])).block_ids == request.block_ids[:3]


def test_disabled_cache_finds_and_publishes_nothing() -> None:
    pool = BlockPool(10)
    cache = PrefixCache(pool, 2, enabled=False)
    request = new_request([1, 2, 3, 4])
    request.block_ids = pool.allocate(2)
    request.num_computed_tokens = 4
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5])).block_ids == []
    pool.release(request.block_ids)
    assert pool.num_free == pool.num_usable
