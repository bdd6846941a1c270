"""Which platform and which backend run, and what is refused by name."""

import pytest
import torch

from outrider.attention import backends as package
from outrider.attention.base import AttentionBackend
from outrider.attention.kv import KVCache, KVSpec
from outrider.attention.selector import select_backend
from outrider.core import plugins
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.platforms.base import BasePlatform, platform_names, select_platform

SPEC = KVSpec(num_layers=3, num_kv_heads=2, head_dim=32, dtype=torch.float32, block_size=16)
CPU = select_platform("cpu")


@pytest.mark.parametrize("name", platform_names())
def test_platforms_keep_their_contract(name):
    platform = select_platform(name)
    assert isinstance(platform, BasePlatform) and platform.name == name
    known = set(plugins.names(package))
    assert set(platform.attention_backends) <= known
    assert all(reason for reason in platform.excluded_backends.values())
    key = platform.key(platform.resolve_dtype("auto"))
    assert {"device", "capability", "torch", "dtype"} <= set(key)
    assert all(isinstance(value, str) for value in key.values())


def test_the_key_of_a_cpu_changes_with_its_threads():
    before = CPU.key(torch.float32)
    torch.set_num_threads(2)
    try:
        assert CPU.key(torch.float32) != before
    finally:
        torch.set_num_threads(1)
    assert CPU.key(torch.float32) == before
    assert before["capability"] == torch.backends.cpu.get_cpu_capability()


def test_a_cpu_computes_in_float32():
    assert CPU.resolve_dtype("auto") == CPU.resolve_dtype("float32") == torch.float32
    with pytest.raises(ConfigError, match=r"dtype='bfloat16'.*a CPU computes in float32"):
        CPU.resolve_dtype("bfloat16")


def test_auto_takes_a_platform_that_is_built():
    assert select_platform("auto").name in platform_names()


@pytest.mark.parametrize("name", ["rocm"])
def test_platforms_that_come_later_are_refused_by_name(name):
    if name in platform_names():
        pytest.skip(f"{name} is built")
    with pytest.raises(UnsupportedError, match=rf"device='{name}' is not built yet.*cpu"):
        select_platform(name)


def test_an_unknown_platform_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"device='base' is not known.*auto, cpu"):
        select_platform("base")


@pytest.mark.parametrize("name", plugins.names(package))
def test_backends_keep_their_contract(name):
    backend = plugins.find(package, name, what="backend").Backend
    assert issubclass(backend, AttentionBackend) and backend.name == name
    assert backend.refuses(SPEC, CPU) is None or isinstance(backend.refuses(SPEC, CPU), str)


def test_auto_says_why_it_chose():
    selection = select_backend("auto", SPEC, CPU)
    assert selection.backend.name == CPU.attention_backends[0]
    assert "cpu" in selection.reason
    names = {selection.backend.name, *(name for name, _ in selection.refused)}
    assert names == set(plugins.names(package))
    assert select_backend("oracle", SPEC, CPU).reason == "asked for by name"


def test_a_backend_that_cannot_run_is_an_error():
    odd = KVSpec(num_layers=1, num_kv_heads=1, head_dim=24, dtype=torch.float32, block_size=16)
    with pytest.raises(ConfigError, match=r"'oracle' cannot be used: head_dim=24 is not a multiple of 16.*auto"):
        select_backend("oracle", odd, CPU)
    with pytest.raises(ConfigError, match=r"no attention backend can run.*head_dim=24"):
        select_backend("auto", odd, CPU)
    with pytest.raises(ConfigError, match=r"'flash9' is not known.*oracle"):
        select_backend("flash9", SPEC, CPU)


def test_a_cache_has_the_bytes_its_spec_counts():
    cache = KVCache(SPEC, 5, device=torch.device("cpu"))
    assert len(cache) == 3
    assert all(layer.k.shape == layer.v.shape == (5, 16, 2, 32) for layer in cache)
    num_bytes = sum(tensor.nbytes for layer in cache for tensor in (layer.k, layer.v))
    assert num_bytes == 5 * SPEC.bytes_per_block
