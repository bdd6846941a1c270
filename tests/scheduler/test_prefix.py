"""The prefix cache against a dict of whole prefixes; tokens and contents of two kinds, so that prefixes meet often."""

import random
from array import array
from hashlib import sha256

import pytest

from outrider.core.content import ContentKey, content_digest
from outrider.core.kv_groups import BlockGroup
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.prefix import PrefixCache
from outrider.scheduler.request_state import BlockList, RequestState

KEYS = [content_digest("image", bytes([index])) for index in range(2)]


def new_request(token_ids: list[int], content_keys: tuple[ContentKey, ...] = ()) -> RequestState:
    request = Request(
        request_id="r",
        prompt_token_ids=tuple(token_ids),
        params=SamplingParams(),
        seed=0,
        eos_token_ids=(),
        max_total_tokens=1 << 20,
        content_keys=content_keys,
    )
    return RequestState(request=request)


Prefix = tuple[object, ...]


def cache_of(pool: BlockPool, block_size: int, *, enabled: bool = True) -> PrefixCache:
    return PrefixCache([pool], [BlockGroup(block_size=block_size)], enabled=enabled)


def prefix_of(request: RequestState, end: int) -> Prefix:
    """For each token before `end`: its id, and the content and the token of it at that place."""
    return tuple(
        (
            token_id,
            frozenset(
                (entry.key, index - entry.first_token, entry.num_tokens)
                for entry in request.request.content_keys
                if index >= entry.first_token
                and (entry.num_tokens is None or index < entry.first_token + entry.num_tokens)
            ),
        )
        for index, token_id in enumerate(request.token_ids[:end])
    )


class Simulation:
    """Requests that start, grow and leave; `published` maps each whole prefix to the block that ends it."""

    def __init__(self, seed: int, *, has_contents: bool) -> None:
        self.rng = random.Random(seed)
        self.has_contents = has_contents
        self.size = self.rng.choice((1, 2, 3))
        self.pool = BlockPool(self.rng.randrange(4, 20))
        self.cache = cache_of(self.pool, self.size, enabled=True)
        self.published: dict[Prefix, int] = {}
        self.requests: list[RequestState] = []
        self.num_offered: dict[int, int] = {}  # leading blocks of a request that were published once, or found
        self.names: dict[Prefix, bytes] = {}

    def tokens(self, count: int) -> list[int]:
        return [self.rng.randrange(2) for _ in range(count)]

    def contents(self, num_tokens: int) -> tuple[ContentKey, ...]:
        """Different pieces of content, in any order; they may overlap."""
        if not self.has_contents:
            return ()
        kinds = {
            (self.rng.choice(KEYS), self.rng.randrange(num_tokens), self.rng.choice((1, 2, 5, None)))
            for _ in range(self.rng.choice((0, 0, 1, 2)))
        }
        listed = [ContentKey(key=key, first_token=first, num_tokens=count) for key, first, count in kinds]
        return tuple(self.rng.sample(listed, len(listed)))

    def brute_force_match(self, request: RequestState) -> list[int]:
        found = []
        for end in range(self.size, request.num_tokens, self.size):  # a block that ends at the last token is not used
            if prefix_of(request, end) not in self.published:
                break
            found.append(self.published[prefix_of(request, end)])
        return found

    def allocate(self, count: int) -> list[int]:
        taken = self.pool.allocate(count)
        self.published = {prefix: block_id for prefix, block_id in self.published.items() if block_id not in taken}
        return taken

    def start(self) -> None:
        tokens = self.tokens(self.rng.randrange(1, 9))
        request = new_request(tokens, self.contents(len(tokens)))
        (found,) = self.cache.match(request).block_ids
        assert found == self.brute_force_match(request)
        for block_id in found:
            self.pool.share(block_id)
        fresh = -(-request.num_tokens // self.size) - len(found)
        if fresh > self.pool.num_free:
            self.pool.release(found)
            return
        request.blocks = [BlockList(found + self.allocate(fresh))]
        request.num_published_tokens = request.num_computed_tokens = len(found) * self.size
        self.requests.append(request)
        self.num_offered[id(request)] = len(found)

    def grow(self) -> None:
        """Some known tokens are computed, and some new ones confirmed; then what is whole is published."""
        request = self.rng.choice(self.requests)
        request.num_computed_tokens = self.rng.randrange(request.num_computed_tokens, request.num_tokens + 1)
        room = (len(request.block_ids) + self.pool.num_free) * self.size - request.num_tokens
        request.token_ids += self.tokens(self.rng.randrange(min(room, 5) + 1))
        request.blocks[0].ids += self.allocate(-(-request.num_tokens // self.size) - len(request.block_ids))
        self.cache.publish(request)
        whole = request.num_computed_tokens // self.size
        for index in range(self.num_offered[id(request)], whole):
            self.published.setdefault(prefix_of(request, (index + 1) * self.size), request.block_ids[index])
        self.num_offered[id(request)] = whole

    def leave(self) -> None:
        request = self.requests.pop(self.rng.randrange(len(self.requests)))
        self.pool.release(reversed(request.block_ids))

    def run(self) -> None:
        for _ in range(80):
            self.rng.choice([self.start, self.grow, self.grow, self.leave] if self.requests else [self.start])()
            for request in self.requests:
                for index, name in enumerate(request.block_hashes):
                    prefix = prefix_of(request, (index + 1) * self.size)
                    assert self.names.setdefault(prefix, name) == name
            assert len(set(self.names.values())) == len(self.names), "two prefixes have one name"


def num_hits(*, has_contents: bool) -> int:
    """Requests of many simulations that started behind published blocks, some of them with content."""
    found = 0
    for seed in range(120):
        simulation = Simulation(seed, has_contents=has_contents)
        try:
            simulation.run()
        except AssertionError as error:
            error.add_note(f"seed={seed}")
            raise
        found += sum(
            request.num_published_tokens > 0 and bool(request.request.content_keys) == has_contents
            for request in simulation.requests
        )
    return found


@pytest.mark.parametrize("has_contents", [False, True])
def test_match_equals_the_longest_published_prefix(has_contents: bool) -> None:
    assert num_hits(has_contents=has_contents) > 50


def test_same_tokens_behind_another_prefix_are_another_block() -> None:
    pool = BlockPool(10)
    cache = cache_of(pool, 2, enabled=True)
    request = new_request([1, 2, 3, 4])
    request.blocks = [BlockList(pool.allocate(2))]
    request.num_computed_tokens = 4
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5])).block_ids[0] == request.block_ids
    assert cache.match(new_request([3, 4, 3, 4, 5])).block_ids[0] == []
    assert cache.match(new_request([1, 3, 2, 4, 5])).block_ids[0] == []
    assert cache.match(new_request([1, 2, 4, 3, 5])).block_ids[0] == request.block_ids[:1]


def test_block_that_ends_at_the_last_known_token_is_not_used() -> None:
    pool = BlockPool(10)
    cache = cache_of(pool, 2, enabled=True)
    request = new_request([1, 2, 3, 4])
    request.blocks = [BlockList(pool.allocate(2))]
    request.num_computed_tokens = 4
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4])).block_ids[0] == request.block_ids[:1]


def test_nothing_behind_the_computed_or_the_confirmed_tokens_is_published() -> None:
    pool = BlockPool(10)
    cache = cache_of(pool, 2, enabled=True)
    request = new_request([1, 2, 3, 4, 5, 6])
    request.blocks = [BlockList(pool.allocate(4))]
    request.num_computed_tokens = 3
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5, 6])).block_ids[0] == request.block_ids[:1]
    request.num_computed_tokens = 8  # more is written than is confirmed
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5, 6, 7, 8, 9])).block_ids[0] == request.block_ids[:3]


def test_disabled_cache_finds_and_publishes_nothing() -> None:
    pool = BlockPool(10)
    cache = cache_of(pool, 2, enabled=False)
    request = new_request([1, 2, 3, 4])
    request.blocks = [BlockList(pool.allocate(2))]
    request.num_computed_tokens = 4
    cache.publish(request)
    assert cache.match(new_request([1, 2, 3, 4, 5])).block_ids[0] == []
    pool.release(request.block_ids)
    assert pool.num_free == pool.num_usable


def test_names_without_content_are_those_of_ids_alone() -> None:
    """Blocks that were published before content existed keep their names."""
    cache = cache_of(BlockPool(4), 2, enabled=True)
    request = new_request([1, 2, 3, 4, 5])
    cache.match(request)
    first = sha256(array("q", [1, 2]).tobytes()).digest()
    assert request.block_hashes == [first, sha256(first + array("q", [3, 4]).tobytes()).digest()]


def test_an_image_one_token_later_is_another_block() -> None:
    cache = cache_of(BlockPool(4), 4, enabled=True)
    names = set()
    for first in range(5):
        request = new_request([7] * 9, (ContentKey(key=KEYS[0], first_token=first, num_tokens=2),))
        cache.match(request)
        names.add(tuple(request.block_hashes))
    assert len(names) == 5
    assert len({name[0] for name in names}) == 5, "at 4 the first block is one of ids alone"


def test_content_of_the_whole_request_is_in_every_block() -> None:
    cache = cache_of(BlockPool(9), 2, enabled=True)
    plain, adapted = new_request([7] * 9), new_request([7] * 9, (ContentKey(key=content_digest("adapter", b"a")),))
    for request in (plain, adapted):
        cache.match(request)
    assert len(plain.block_hashes) == len(adapted.block_hashes) == 4
    assert not set(plain.block_hashes) & set(adapted.block_hashes)
