"""The row-invariant GEMM: its bits, its accuracy, and odd shapes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import triton
from torch import Tensor

from outrider.kernels.triton.launch import empty_rows

from .comparison import assert_close, relative_rms, replayed
from .stack import kernel_module

module: Any = kernel_module("linear")
choose_work, empty_weight, linear = module.choose_work, module.empty_weight, module.linear
linear_compilations, num_segments = module.linear_compilations, module.num_segments

SHAPES = {
    "llama qkv": (6144, 4096),
    "llama o": (4096, 4096),
    "llama gate_up": (28672, 4096),
    "llama down": (4096, 14336),
    "qwen3 moe qkv": (5120, 2048),
    "qwen3 moe o": (2048, 4096),
    "qwen3 small down": (1024, 3072),
    "odd N, short K": (1003, 72),
    "odd N, segments": (997, 2888),
    "K that TMA cannot read": (320, 2051),
}


def make(shape: tuple[int, int], num_tokens: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    output_size, input_size = shape
    weight = empty_weight(output_size, input_size, dtype=dtype, device=torch.device("cuda"))
    weight.copy_(torch.randn(output_size, input_size, device="cuda") * input_size**-0.5)
    return torch.randn(num_tokens, input_size, device="cuda").to(dtype), weight


def works() -> list[Any]:
    tiles = [*module._SMALL.values(), *module._LARGE]
    return [module.Work(tile, across) for tile in dict.fromkeys(tiles) for across in (1, 2)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_row_has_the_same_bits_for_every_number_of_tokens(shape: tuple[int, int]) -> None:
    x, weight = make(shape, 8192)
    everything = linear(x, weight, out_dtype=torch.float32)
    assert not everything.isnan().any()
    for num_tokens in (1, 2, 3, 7, 8, 16, 17, 31, 33, 64, 65, 100, 128, 129, 200, 256, 257, 511, 1000, 2048, 4099):
        rows = torch.randperm(8192, device="cuda")[:num_tokens]
        out = linear(x[rows], weight, out_dtype=torch.float32)
        assert torch.equal(out, everything[rows]), f"{num_tokens} tokens"


def test_all_that_a_model_launches_is_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module._linear_kernel.device_caches.clear()
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(call) for call in linear_compilations(torch.bfloat16, torch.device("cuda"))]:
            done.result()
    compiled: list[object] = []
    monkeypatch.setattr(triton.knobs.compilation, "listener", lambda **event: compiled.append(event))
    for name in ("llama qkv", "llama gate_up", "llama down", "qwen3 moe o"):
        for num_tokens in (1, 17, 40, 65, 128, 200, 256, 300, 640, 1024):
            x, weight = make(SHAPES[name], num_tokens)
            linear(x, weight)
            if num_segments(*SHAPES[name]) == 1:
                linear(x, weight, out_dtype=torch.float32)
    assert compiled == []


@pytest.mark.parametrize("num_tokens", [1, 20, 80, 150, 300])
def test_what_lies_behind_the_last_row_is_read_and_does_not_matter(num_tokens: int) -> None:
    x, weight = make((1000, 2888), num_tokens)
    expected = linear(x, weight, out_dtype=torch.float32)
    for filling in (float("nan"), float("inf"), 1e30):
        padded = empty_rows(num_tokens, 2888, dtype=torch.bfloat16, device=x.device)
        assert padded.untyped_storage().nbytes() > x.untyped_storage().nbytes()
        padded._base.fill_(filling)
        padded.copy_(x)
        assert torch.equal(linear(padded, weight, out_dtype=torch.float32), expected)


@pytest.mark.parametrize("shape", [(1003, 2888), (1000, 1000), (4096, 8192), (64, 256), (130, 2048)])
def test_no_choice_of_tile_changes_a_bit(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = make(shape, 700)
    expected = linear(x, weight, out_dtype=torch.float32)
    for work in works():
        tile, across = work
        if across > num_segments(*shape):
            continue
        loops = num_segments(*shape) // across > 1
        if loops and tile not in module._LARGE:
            continue  # not a way of working
        monkeypatch.setattr(module, "choose_work", lambda *_, work=work, **__: work)
        for num_tokens in (1, 5, 64, 130, 700):
            rows = torch.randperm(700, device="cuda")[:num_tokens]
            out = linear(x[rows], weight, out_dtype=torch.float32)
            assert torch.equal(out, expected[rows]), f"{work}, {num_tokens} tokens"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(4096, 4096), (1003, 2888), (997, 333)])
def test_close_to_double_precision(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = make(shape, 77, dtype)
    bias = torch.randn(shape[0], device="cuda").to(dtype)
    exact = x.double() @ weight.double().T
    assert_close("linear", linear(x, weight), exact, dtype=dtype)
    assert_close("linear", linear(x, weight, bias), exact + bias.double(), dtype=dtype)


def test_as_accurate_as_cublas() -> None:
    x, weight = make((4096, 14336), 64)
    exact = x.double() @ weight.double().T
    out = linear(x, weight, out_dtype=torch.float32)
    assert_close("linear, fp32 out", out, exact, dtype=torch.bfloat16)
    assert relative_rms(linear(x, weight), exact) <= 1.02 * relative_rms(x @ weight.T, exact)


def test_float32_rows_have_the_same_bits() -> None:
    x, weight = make((333, 1001), 300, torch.float32)
    everything = linear(x, weight)
    for num_tokens in (1, 31, 32, 33, 100):
        assert torch.equal(linear(x[:num_tokens], weight), everything[:num_tokens])


def test_no_tokens() -> None:
    x, weight = make((1003, 256), 0)
    assert linear(x, weight).shape == (0, 1003)


def test_strided_and_unaligned_input() -> None:
    x, weight = make((1003, 2888), 40)
    expected = linear(x, weight)
    wide = torch.full((40, 3001), float("nan"), device="cuda", dtype=torch.bfloat16)
    for place in (0, 8, 3):
        view = wide[:, place : place + 2888]
        view.copy_(x)
        assert torch.equal(linear(view, weight), expected)
    every_second = torch.full((80, 2888), float("nan"), device="cuda", dtype=torch.bfloat16)[::2]
    assert torch.equal(linear(every_second.copy_(x), weight), expected)


def test_largest_vocabulary() -> None:
    x, weight = make((262144, 640), 300)
    everything = linear(x, weight, out_dtype=torch.float32)
    assert torch.equal(linear(x[:1], weight, out_dtype=torch.float32), everything[:1])
    assert_close("linear, fp32 out", everything[:4], x[:4].double() @ weight.double().T, dtype=torch.bfloat16)


@pytest.mark.parametrize("num_tokens", [1, 40, 300, 3000])
def test_a_captured_chain_of_layers_with_other_data(num_tokens: int) -> None:
    """Layers overlap with the next one's start; each must see what the one before has written."""
    x, first = make((1024, 512), num_tokens)
    _, second = make((512, 1024), 0)
    other = torch.randn_like(x)

    def run(x: Tensor) -> Tensor:
        for _ in range(6):
            x = linear(linear(x, first), second)
        return x

    expected = other
    for _ in range(6):
        expected = linear(expected, first)
        torch.cuda.synchronize()
        expected = linear(expected, second)
        torch.cuda.synchronize()
    assert torch.equal(replayed(lambda: run(x), lambda: x.copy_(other)), expected)


def test_the_choice_of_work_is_quick_enough_to_compile() -> None:
    """Few variants: every shape of three models and every number of tokens."""
    variants = {
        (choose_work(num_tokens, *shape, num_ctas=132), num_segments(*shape))
        for shape in SHAPES.values()
        for num_tokens in range(1, 9000)
    }
    assert len(variants) <= 16


@pytest.mark.parametrize("shape", [(6144, 4096), (8192, 8192)], ids=str)
def test_a_shard_of_the_rows_has_the_bits_of_the_whole_layer(shape: tuple[int, int]) -> None:
    """Segments of K follow the whole layer's shape, not the shard's."""
    x, weight = make(shape, 300)
    shards = weight.chunk(8)
    assert num_segments(*shape) != num_segments(*shards[0].shape), "the shard alone would be cut otherwise"
    for num_tokens in (1, 40, 300):
        whole = linear(x[:num_tokens], weight, out_dtype=torch.float32)
        parts = [linear(x[:num_tokens], shard, out_dtype=torch.float32, whole_shape=shape) for shard in shards]
        assert torch.equal(torch.cat(parts, dim=1), whole)
