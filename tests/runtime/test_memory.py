"""The KV budget as blocks: what one group gets, how several share, and when it is too small."""

import pytest

from outrider.core.config import engine_config
from outrider.core.errors import ConfigError
from outrider.core.kv_groups import BlockGroup
from outrider.runtime.memory import KVBudget, size_groups

FULL = BlockGroup(block_size=16)
NARROW = BlockGroup(block_size=16, window=24)
WIDE = BlockGroup(block_size=16, window=100)


def sizes(num_bytes: int, groups, bytes_per_block, *, max_model_len: int = 4096, **options) -> tuple[int, ...]:
    config = engine_config("nowhere", **({"max_num_seqs": 4, "max_num_batched_tokens": 64} | options))
    config = config.resolve(max_num_seqs=4, num_prompt_tokens=64)
    return size_groups(
        config, KVBudget(num_bytes, "by hand"), groups=groups, bytes_per_block=bytes_per_block,
        max_model_len=max_model_len,
    )  # fmt: skip


def test_one_group_gets_the_whole_budget_up_to_what_requests_can_use():
    assert sizes(10_000, [FULL], [33]) == (303,)
    assert sizes(1 << 30, [FULL], [33]) == (1 + 4 * 256,)
    assert sizes(10_000, [FULL], [33], num_gpu_blocks_override=7) == (7,)


def test_groups_get_as_many_tokens_until_a_window_needs_no_more():
    assert sizes(30_000, [FULL, WIDE, NARROW], [100, 50, 250]) == (75, 75, 75)
    full, wide, narrow = sizes(5_000_000, [FULL, WIDE, NARROW], [9_000, 50, 2_000])
    # for each of four rows 24 (or 100) tokens, two steps of 64 and two blocks; that twice
    assert narrow == 1 + 2 * 4 * (10 + 2)
    assert wide == 1 + 2 * 4 * (15 + 2)
    assert full == (5_000_000 - narrow * 2_000 - wide * 50) // 9_000 > wide
    assert sizes(1 << 40, [FULL, WIDE, NARROW], [9_000, 50, 2_000]) == (1 + 4 * 256, wide, narrow)


def test_the_budget_is_never_exceeded_and_what_a_window_leaves_is_used():
    for num_bytes in range(40_000, 4_000_000, 37_777):
        counts = sizes(num_bytes, [FULL, NARROW], [700, 300])
        used = counts[0] * 700 + counts[1] * 300
        assert used <= num_bytes and min(counts) >= 2
        is_capped = counts[0] == 1 + 4 * 256
        assert is_capped or num_bytes - used < 1_000


def test_short_requests_need_no_more_under_a_window_than_without():
    assert sizes(1 << 30, [FULL, WIDE], [10, 10], max_model_len=40) == (13, 13)


def test_a_budget_without_two_blocks_is_an_error():
    with pytest.raises(ConfigError, match=r"one KV block takes 300 bytes and there is room for 1: two are the least"):
        sizes(599, [FULL, NARROW], [100, 200])
    assert sizes(600, [FULL, NARROW], [100, 200]) == (2, 2)
