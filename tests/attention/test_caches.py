"""Caches of layers: memory as large as the spec says, groups by window, and each layer's own shape in its place."""

import psutil
import pytest
import torch

from outrider.attention.backends.oracle import Backend
from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.attention.caches.latent import Latent
from outrider.attention.caches.model_caches import ModelCaches
from outrider.attention.caches.paged import groups_of
from outrider.attention.caches.paged_kv import LayerKV, PagedKV
from outrider.attention.caches.zeroed import zeroed
from outrider.kernels import load_kernels

CPU = torch.device("cpu")
FULL = PagedKV(num_kv_heads=2, head_dim=32, value_dim=16, dtype=torch.float32)
NARROW = PagedKV(num_kv_heads=1, head_dim=16, value_dim=16, dtype=torch.bfloat16, window=24)
WIDE = PagedKV(num_kv_heads=4, head_dim=16, value_dim=16, dtype=torch.float32, window=100)
LATENT = Latent(rank=512, rope_size=64, dtype=torch.bfloat16)
STATE = DeltaState(num_key_heads=2, num_value_heads=6, key_size=16, value_size=32, dtype=torch.bfloat16)
OTHER = DeltaState(num_key_heads=1, num_value_heads=2, key_size=8, value_size=16, dtype=torch.float32)


def made(specs, *, states=(), block_size: int = 32) -> ModelCaches:
    groups = groups_of([spec for spec in specs if isinstance(spec, PagedKV)], block_size=block_size)
    return ModelCaches(
        specs, backend=Backend(load_kernels(("reference",))), groups=groups, device=CPU, states=states
    )  # fmt: skip


def windows_of(specs) -> list[int | None]:
    return [group.window for group in groups_of(specs, block_size=16)]


def bytes_of(*tensors: torch.Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("spec", [FULL, NARROW, WIDE])
def test_blocks_have_the_bytes_that_the_spec_counts(spec):
    cache = spec.allocate(5, block_size=32, group=0, device=CPU)
    assert cache.k.shape == (5, 32, spec.num_kv_heads, spec.head_dim)
    assert cache.v.shape == (5, 32, spec.num_kv_heads, spec.value_dim)
    assert bytes_of(cache.k, cache.v) == 5 * spec.bytes_per_block(32)


def test_latent_rows_have_the_bytes_that_their_spec_counts():
    cache = LATENT.allocate(5, block_size=32, group=0, device=CPU)
    assert cache.rows.shape == (5, 32, 576) and cache.rows.nbytes == 5 * LATENT.bytes_per_block(32)
    assert windows_of([LATENT, FULL]) == [None], "they share the blocks of layers without a window"


@pytest.mark.parametrize("num_drafts", [0, 3, 16])
def test_states_have_the_bytes_that_their_specs_count(num_drafts):
    cache = StateCache([STATE, OTHER], 7, num_drafts=num_drafts, device=CPU)
    tensors = [tensor for layer in cache for tensor in vars_of(layer)]
    assert bytes_of(*tensors) == 7 * cache.bytes_per_row
    assert cache[0].state.nbytes == 7 * STATE.state_bytes
    snapshots = [spec.allocate_snapshots(3, device=CPU) for spec in (STATE, OTHER)]
    assert bytes_of(*(tensor for layer in snapshots for tensor in vars_of(layer))) == 3 * cache.bytes_per_snapshot


def vars_of(layer) -> list[torch.Tensor]:
    return [getattr(layer, name) for name in type(layer).__dataclass_fields__]


def test_layers_of_one_window_form_a_group_whatever_their_shapes():
    assert windows_of([]) == [None]
    assert windows_of([NARROW, FULL, WIDE, NARROW]) == [None, 100, 24]
    assert windows_of([NARROW, WIDE]) == [100, 24]
    other = PagedKV(num_kv_heads=1, head_dim=16, value_dim=16, dtype=torch.float32)
    caches = made([NARROW, FULL, other, WIDE])
    caches.allocate([9, 5, 3])
    assert caches.group_indices == [0, 1, 2]
    assert [cache.group for cache in caches] == [2, 0, 0, 1]
    assert [cache.k.shape[0] for cache in caches] == [3, 9, 9, 5]
    for group, num_blocks in enumerate((9, 5, 3)):
        tensors = [tensor for cache in caches if cache.group == group for tensor in (cache.k, cache.v)]
        assert bytes_of(*tensors) == num_blocks * caches.bytes_per_block(group)


def test_states_keep_their_place_among_the_layers_when_blocks_are_allocated_again():
    states = StateCache([STATE, OTHER], 4, num_drafts=3, device=CPU)
    caches = made([STATE, FULL, OTHER], states=states)
    caches.allocate([2])
    states[1].state.fill_(7.0)
    caches.allocate([11])
    assert caches[0] is states[0] and caches[2] is states[1] and bool((caches[2].state == 7).all())
    assert isinstance(caches[1], LayerKV) and caches[1].k.shape[0] == 11


def test_a_pool_without_a_block_beside_the_null_block_is_not_allocated():
    with pytest.raises(AssertionError, match="num_blocks=1: block 0 is the null block"):
        made([FULL]).allocate([1])


def test_memory_that_is_not_written_takes_none() -> None:
    """On a CPU, where the KV cache has a fixed size that few requests fill."""
    process, count = psutil.Process(), 1 << 26
    before = process.memory_info().rss
    kept = [zeroed((count,), dtype=dtype, device=CPU) for dtype in (torch.float32, torch.bfloat16)]
    assert process.memory_info().rss - before < 16 << 20
    assert all(memory.shape == (count,) and not memory[:: 1 << 22].any() for memory in kept)
    kept[0].fill_(1.0)
    assert process.memory_info().rss - before > 200 << 20
    kept.clear()
    assert process.memory_info().rss - before < 16 << 20
