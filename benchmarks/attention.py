"""Paged attention: decode and verify against the bytes of KV, prefill against torch's SDPA."""

import random
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.timing import READ_BANDWIDTH, Table, microseconds, save
from outrider.kernels.hopper.attention import AttentionPlan, paged_attention, plan_attention
from outrider.kernels.interface.cache import DeviceCounts

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 32, 8, 128


def _blocks(num_rows: int, length: int, block_size: int, max_length: int) -> Tensor:
    per_row = -(-length // block_size)
    tables = torch.zeros(num_rows, -(-max_length // block_size), dtype=torch.int32)
    tables[:, :per_row] = (torch.randperm(num_rows * per_row) + 1).view(num_rows, per_row)
    return tables.cuda()


def _caches(count: int, num_blocks: int, block_size: int) -> list[tuple[Tensor, Tensor]]:
    shape = (num_blocks, block_size, NUM_KV_HEADS, HEAD_DIM)
    return [tuple(torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2)) for _ in range(count)]


def _layers(q: Tensor, caches: list[tuple[Tensor, Tensor]], plan: AttentionPlan, calls: int) -> None:
    for i in range(calls):
        paged_attention(q, *caches[i % len(caches)], plan, scale=HEAD_DIM**-0.5)


def decode() -> Table:
    """One layer, as one of many in a graph: the plan is made before, once for all layers."""
    table = Table(
        f"Decode and verify, one layer of {NUM_HEADS} / {NUM_KV_HEADS} heads of {HEAD_DIM}",
        ["requests", "length", "new tokens", "bound", "block size", "µs a layer", "TB/s", "of read bandwidth"],
    )
    cases = [
        (64, 640, 1, 640),
        (64, 640, 4, 640),
        (64, 640, 1, 4096),
        (8, 4096, 1, 4096),
        (8, 4096, 4, 4096),
        (256, 640, 1, 640),
        (8, 640, 1, 4096),
        (1, 640, 1, 640),
        (1, 640, 1, 4096),
        (1, 640, 4, 4096),
        (1, 4096, 1, 4096),
        (1, 32768, 1, 32768),
    ]
    for num_rows, length, num_new, bound in cases:
        for block_size in (16, 64):
            num_bytes = num_rows * length * NUM_KV_HEADS * HEAD_DIM * 4
            caches = _caches(max(2, int(5e8 // num_bytes)), num_rows * (-(-length // block_size)) + 1, block_size)
            q = torch.randn(num_rows * num_new, NUM_HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
            lengths = torch.arange(length - num_new + 1, length + 1, device="cuda").repeat(num_rows)
            plan = plan_attention(
                _blocks(num_rows, length, block_size, bound),
                lengths,
                row_counts=(num_new,) * num_rows,
                kv_length_bound=bound,
            )
            _layers(q, caches, plan, 1)
            time = microseconds(partial(_layers, q, caches, plan, 32), calls=32)
            rate = num_bytes / time * 1e6
            table.add(num_rows, length, num_new, bound, block_size, time, rate / 1e12, f"{rate / READ_BANDWIDTH:.0%}")
    return table


def mixed() -> Table:
    """Rows of any length, as they meet in a server, alone and beside chunks of prompts. KV counts once for each row."""
    table = Table(
        "Rows of 64 to 1500 tokens (uniform), beside chunks of prompts, one layer",
        ["decode rows", "new tokens", "chunks [begin, end)", "padded to tokens", "µs a layer", "TB/s"],
    )
    rng = random.Random(1)
    num_blocks, bound = 12000, 8192
    caches = _caches(8, num_blocks, 16)
    cases: list[tuple[int, int, list[tuple[int, int]], int | None]] = [
        (16, 1, [], None),
        (48, 1, [], None),
        (128, 1, [], None),
        (128, 4, [], None),
        (127, 1, [(400, 510)], 256),
        (118, 1, [(300, 700), (0, 480)], 1024),
        (118, 4, [(300, 700), (0, 480)], 1536),
        (32, 1, [(2048, 3040)], 1024),
        (0, 1, [(0, 512)] * 4, 2048),
    ]
    for num_rows, num_new, chunks, padded in cases:
        ends = [rng.randint(64, 1500) for _ in range(num_rows)] + [end for _, end in chunks]
        counts = [num_new] * num_rows + [end - begin for begin, end in chunks]
        lengths = [
            length for end, count in zip(ends, counts, strict=True) for length in range(end - count + 1, end + 1)
        ]
        tables = torch.zeros(len(ends) + (padded is not None), bound // 16, dtype=torch.int32)
        places = iter(torch.randperm(num_blocks).tolist())
        for row, end in enumerate(ends):
            needed = -(-end // 16)
            tables[row, :needed] = torch.tensor([next(places) for _ in range(needed)])
        row_counts: tuple[int, ...] | DeviceCounts = tuple(counts)
        if padded is not None:
            lengths += [0] * (padded - len(lengths))
            on_device = torch.tensor([*counts, padded - sum(counts)], device="cuda")
            row_counts = DeviceCounts(on_device, on_device.cumsum(0) - on_device, decode_width=num_new)
        q = torch.randn(len(lengths), NUM_HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
        plan = plan_attention(
            tables.cuda(), torch.tensor(lengths, device="cuda"), row_counts=row_counts, kv_length_bound=bound
        )
        _layers(q, caches, plan, 1)
        time = microseconds(partial(_layers, q, caches, plan, 32), calls=32)
        rate = sum(ends) * NUM_KV_HEADS * HEAD_DIM * 4 / time * 1e6
        shown = ", ".join(f"[{begin}, {end})" for begin, end in chunks) or "–"
        table.add(num_rows, num_new, shown, padded or "–", time, rate / 1e12)
    return table


def plans() -> Table:
    table = Table("The plan, once a step", ["requests", "new tokens", "bound", "µs"])
    for num_rows, num_new, bound in [(1, 4, 4096), (64, 4, 4096), (256, 1, 4096), (8, 4096, 4096)]:
        tables = _blocks(num_rows, bound, 16, bound)
        lengths = torch.arange(bound - num_new + 1, bound + 1, device="cuda").repeat(num_rows)

        def make(tables: Tensor, lengths: Tensor, counts: tuple[int, ...], bound: int) -> None:
            plan = plan_attention(tables, lengths, row_counts=counts, kv_length_bound=bound)
            plan.work(num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM, kv_start=0, window=None)

        time = microseconds(partial(make, tables, lengths, (num_new,) * num_rows, bound))
        table.add(num_rows, num_new, bound, time)
    return table


def prefill() -> Table:
    table = Table("Causal prefill", ["requests", "length", "kernel", "ms", "TFLOP/s"])
    for num_rows, length in [(8, 4096), (64, 512), (1, 16384)]:
        num_flops = 2 * num_rows * NUM_HEADS * HEAD_DIM * length * length
        (cache,) = _caches(1, num_rows * length // 16 + 1, 16)
        q = torch.randn(num_rows * length, NUM_HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
        lengths = torch.arange(1, length + 1, device="cuda").repeat(num_rows)
        blocks = _blocks(num_rows, length, 16, length)
        plan = plan_attention(blocks, lengths, row_counts=(length,) * num_rows, kv_length_bound=length)
        _layers(q, [cache], plan, 1)
        ours = microseconds(partial(_layers, q, [cache], plan, 2), calls=2, replays=5)
        table.add(num_rows, length, "ours", ours / 1e3, num_flops / ours / 1e6)
        dense = [torch.randn(num_rows, NUM_HEADS, length, HEAD_DIM, device="cuda").bfloat16() for _ in range(3)]
        for name, backend in (
            ("SDPA, flash", SDPBackend.FLASH_ATTENTION),
            ("SDPA, cuDNN", SDPBackend.CUDNN_ATTENTION),
        ):
            with sdpa_kernel(backend):
                attend = partial(torch.nn.functional.scaled_dot_product_attention, *dense, is_causal=True)
                time = microseconds(attend, replays=5)
            table.add(num_rows, length, name, time / 1e3, num_flops / time / 1e6)
    return table


def main() -> None:
    notes = "KV in random blocks, rotated through more than the L2 holds. SDPA reads dense K and V of 32 heads."
    save(
        "attention",
        "Paged attention with the same bits for every batch",
        [decode(), mixed(), plans(), prefill()],
        notes,
    )
