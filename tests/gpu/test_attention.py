"""Paged attention: the same bits however a token's request is chunked and batched; accuracy; what must not be read."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.triton import attention_plan

from .comparison import assert_close, replayed
from .stack import kernel_module

module = kernel_module("attention")
paged_attention, plan_attention = module.paged_attention, module.plan_attention

LENGTHS = (700, 1, 33, 300, 1500, 64, 257)
BOUND = 2048


@dataclass(frozen=True)
class Layer:
    head_dim: int
    group: int
    num_kv_heads: int
    block_size: int = 16
    kv_start: int = 0
    window: int | None = None
    has_sinks: bool = False
    dtype: torch.dtype = torch.bfloat16


LAYERS = [
    Layer(128, 4, 8),
    Layer(128, 4, 8, block_size=64),
    Layer(128, 8, 2, block_size=128, dtype=torch.float16),
    Layer(128, 7, 4, kv_start=3),
    Layer(128, 4, 2, window=100, has_sinks=True),
    Layer(64, 8, 2, window=300, has_sinks=True),
    Layer(64, 1, 8, block_size=32),
    Layer(64, 3, 2, block_size=8, kv_start=1),
    Layer(256, 2, 4),
    Layer(256, 8, 1, block_size=32, window=77),
]


class Requests:
    """Seven requests, their KV in shuffled blocks, NaN in every slot that is not theirs."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        blocks = [-(-length // layer.block_size) for length in LENGTHS]
        order = (torch.randperm(sum(blocks)) + 1).split(blocks)
        self.tables = torch.zeros(len(LENGTHS), BOUND // layer.block_size, dtype=torch.int32, device="cuda")
        for row, ids in enumerate(order):
            self.tables[row, : len(ids)] = ids.int()
        shape = (sum(blocks) + 1, layer.block_size, layer.num_kv_heads, layer.head_dim)
        self.k, self.v = (torch.randn(shape, device="cuda").to(layer.dtype) for _ in range(2))
        is_used = torch.zeros(shape[0] * shape[1], dtype=torch.bool, device="cuda")
        for row, length in enumerate(LENGTHS):
            is_used[self.slots(row, length)] = True
        for cache in (self.k, self.v):
            cache.view(-1, *shape[2:])[~is_used] = float("nan")
        heads = layer.group * layer.num_kv_heads
        self.q = [torch.randn(length, heads, layer.head_dim, device="cuda").to(layer.dtype) for length in LENGTHS]
        self.sinks = torch.randn(heads, device="cuda").to(layer.dtype) if layer.has_sinks else None

    def slots(self, row: int, length: int) -> Tensor:
        places = torch.arange(length, device="cuda")
        size = self.layer.block_size
        return self.tables[row].long()[places // size] * size + places % size

    def attend(self, *stretches: tuple[int, int, int]) -> list[Tensor]:
        """Outputs of tokens [begin, end) of rows, all in one call."""
        q = torch.cat([self.q[row][begin:end] for row, begin, end in stretches])
        lengths = torch.cat([torch.arange(begin + 1, end + 1) for _, begin, end in stretches]).cuda()
        counts = tuple(end - begin for _, begin, end in stretches)
        rows = torch.tensor([row for row, _, _ in stretches], device="cuda")
        plan = plan_attention(self.tables[rows], lengths, row_counts=counts, kv_length_bound=BOUND)
        return list(self.run(q, plan).split(counts))

    def run(self, q: Tensor, plan: attention_plan.Work) -> Tensor:
        layer = self.layer
        return paged_attention(
            q,
            self.k,
            self.v,
            plan,
            scale=layer.head_dim**-0.5,
            kv_start=layer.kv_start,
            window=layer.window,
            sinks=self.sinks,
        )

    def exact(self, row: int, begin: int, end: int) -> Tensor:
        """Dense attention in double precision."""
        layer, length = self.layer, LENGTHS[row]
        slots = self.slots(row, length)
        k, v = (
            cache.view(-1, layer.num_kv_heads, layer.head_dim)[slots].double().repeat_interleave(layer.group, dim=1)
            for cache in (self.k, self.v)
        )
        scores = torch.einsum("thd,lhd->thl", self.q[row][begin:end].double(), k) * layer.head_dim**-0.5
        places = torch.arange(length, device="cuda")
        ends = torch.arange(begin + 1, end + 1, device="cuda").view(-1, 1, 1)
        starts = torch.full_like(ends, layer.kv_start)
        if layer.window is not None:
            starts = torch.maximum(starts, ends - layer.window)
        is_seen = (places < ends) & (places >= starts)
        scores = scores.masked_fill(~is_seen, -1e300)
        if self.sinks is not None:
            sinks = self.sinks.double().view(1, -1, 1).expand(end - begin, -1, 1)
            scores = torch.cat([scores, sinks], dim=2)
        weights = torch.softmax(scores, dim=-1)[..., :length] * is_seen
        return torch.einsum("thl,lhd->thd", weights, v)


@pytest.fixture(params=LAYERS, ids=str)
def requests(request: pytest.FixtureRequest) -> Requests:
    return Requests(request.param)


def test_close_to_double_precision(requests: Requests) -> None:
    for num_new in (1, 4, 90):
        stretches = [(row, max(0, length - num_new), length) for row, length in enumerate(LENGTHS)]
        exact = torch.cat([requests.exact(*stretch) for stretch in stretches])
        assert_close("attention", torch.cat(requests.attend(*stretches)), exact, dtype=requests.layer.dtype)


def test_prefill_decode_verify_and_chunks_have_the_same_bits(requests: Requests) -> None:
    whole = requests.attend(*[(row, 0, length) for row, length in enumerate(LENGTHS)])
    assert not any(out.isnan().any() for out in whole)
    for num_new in (1, 2, 4, 8):
        stretches = [(row, max(0, length - num_new), length) for row, length in enumerate(LENGTHS)]
        for out, (row, begin, end) in zip(requests.attend(*stretches), stretches, strict=True):
            assert torch.equal(out, whole[row][begin:end]), f"{num_new} tokens of request {row}"
    for size in (7, 16, 64, 200):
        for begin in range(0, LENGTHS[0], size):
            end = min(begin + size, LENGTHS[0])
            (out,) = requests.attend((0, begin, end))
            assert torch.equal(out, whole[0][begin:end]), f"chunk of {size} at {begin}"
    for begin in range(0, LENGTHS[4], 113):
        (out,) = requests.attend((4, begin, begin + 1))
        assert torch.equal(out, whole[4][begin : begin + 1]), f"token {begin} alone"


def test_rows_of_every_kind_in_one_batch(requests: Requests) -> None:
    stretches = [(1, 0, 1), (4, 1400, 1500), (0, 690, 694), (2, 32, 33), (3, 0, 300), (6, 250, 257), (5, 40, 64)]
    for out, (row, begin, end) in zip(requests.attend(*stretches), stretches, strict=True):
        (alone,) = requests.attend((row, begin, end))
        assert torch.equal(out, alone), f"request {row}"


def test_split_or_whole_makes_no_difference(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    stretches = [(row, max(0, length - 3), length) for row, length in enumerate(LENGTHS)]
    split = requests.attend(*stretches)
    monkeypatch.setattr(attention_plan, "_MAX_PARTIAL_BYTES", 0)
    whole = requests.attend(*stretches)
    assert all(torch.equal(ours, other) for ours, other in zip(split, whole, strict=True))


def test_padding_tokens_give_zeros_and_change_nothing(requests: Requests) -> None:
    q = torch.cat([requests.q[0][696:700], requests.q[3][299:300]]).contiguous()
    lengths = torch.tensor([697, 698, 0, 0, 300], device="cuda")
    tables = requests.tables[[0, 3]]
    plan = plan_attention(tables, lengths, row_counts=(4, 1), kv_length_bound=BOUND)
    out = requests.run(q, plan)
    verify, decode = requests.attend((0, 696, 700), (3, 299, 300))
    assert torch.equal(out[:2], verify[:2])
    assert not out[2:4].any()
    assert torch.equal(out[4:], decode)


def test_a_captured_graph_follows_the_lengths(requests: Requests) -> None:
    """Lengths, tables and queries change in place; the host knows a bound only."""
    ends = torch.tensor(LENGTHS, device="cuda")
    lengths = (ends // 2).clamp(min=1)
    counts = (1,) * len(LENGTHS)
    q = torch.cat([requests.q[row][length - 1 : length] for row, length in enumerate(LENGTHS)])
    queries = torch.randn_like(q)

    def run() -> Tensor:
        plan = plan_attention(requests.tables, lengths, row_counts=counts, kv_length_bound=BOUND)
        return requests.run(queries, plan)

    def change() -> None:
        lengths.copy_(ends)
        queries.copy_(q)

    expected = torch.cat(requests.attend(*[(row, length - 1, length) for row, length in enumerate(LENGTHS)]))
    assert torch.equal(replayed(run, change), expected)


@pytest.mark.parametrize("chunk", [0, 5, 31, 300])
def test_a_captured_graph_follows_the_counts(requests: Requests, chunk: int) -> None:
    """Rows change their tokens in place: decode rows, chunks of a prompt, rows without tokens, padding at the end."""
    num_rows, num_tokens, width = len(LENGTHS) + 1, 360, 4
    stretches = [(5, 60, 64), (1, 0, 1), (0, 697, 700), (4, 1499, 1500), (6, 250, 252), (3, 0, chunk), (2, 30, 33)]
    starts, counts, lengths, rows = (
        torch.zeros(size, dtype=torch.int64, device="cuda") for size in (num_rows, num_rows, num_tokens, num_rows)
    )
    queries = torch.randn(num_tokens, *requests.q[0].shape[1:], device="cuda").to(requests.q[0].dtype)
    counts[-1] = num_tokens

    def run() -> Tensor:
        row_counts = DeviceCounts(counts, starts, decode_width=width)
        plan = plan_attention(requests.tables[rows], lengths, row_counts=row_counts, kv_length_bound=BOUND)
        return requests.run(queries, plan)

    def change() -> None:
        found = [end - begin for _, begin, end in stretches]
        counts.copy_(torch.tensor([*found, num_tokens - sum(found)]))
        starts.copy_(counts.cumsum(0) - counts)
        rows.copy_(torch.tensor([row for row, _, _ in stretches] + [0]))
        real = torch.cat([torch.arange(begin + 1, end + 1) for _, begin, end in stretches])
        lengths[: len(real)] = real.cuda()
        queries[: len(real)] = torch.cat([requests.q[row][begin:end] for row, begin, end in stretches])

    out = replayed(run, change)
    places = counts.tolist()
    for (row, begin, end), ours in zip(stretches, out.split(places), strict=False):
        if end > begin:
            assert torch.equal(ours, requests.attend((row, begin, end))[0]), (row, begin, end)
    assert not out[sum(places[:-1]) :].any()


def test_no_tokens() -> None:
    requests = Requests(LAYERS[0])
    empty = torch.zeros(0, dtype=torch.int64, device="cuda")
    plan = plan_attention(requests.tables[:0], empty, row_counts=(), kv_length_bound=1)
    assert requests.run(requests.q[0][:0], plan).shape == (0, 32, 128)
