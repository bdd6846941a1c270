"""Leaks put in on purpose, one at a time, on a GPU: each must turn the comparison red.

A stock GEMM does not leak at the zoo's widths: `test_llama_identity.py` shows it at full size.
"""

import pytest
import torch

from outrider.attention.base import AttentionBackend
from outrider.device.padded_layout import PaddedSizes
from outrider.device.table import RequestTable
from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.triton import attention_plan
from outrider.sampling.sampler import Sampler
from tests.support import request_mix

from . import gpu_engine


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


@pytest.fixture(scope="module")
def cases():
    return request_mix.make_cases(gpu_engine.ZOO_EOS)


def _make(**options):
    return request_mix.make(gpu_engine.ZOO / "tiny", device="cuda", **options)


def _truth(cases):
    llm = _make(
        max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, max_num_batched_tokens=512, enforce_eager=True
    )
    return [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]


@pytest.fixture(scope="module")
def truth(cases):
    return _truth(cases)


def _found(cases, truth, **options):
    config = request_mix.replay(cases, truth) | {"num_speculative_tokens": 3}
    llm = _make(speculative_config=config, max_num_batched_tokens=41, max_num_seqs=9, **options)
    try:
        return request_mix.mismatches(cases, request_mix.run(llm, cases), truth)
    except AssertionError as error:
        return [f"the engine noticed it: {error}"]


def test_without_a_leak_nothing_differs(cases, truth):
    assert _found(cases, truth) == []


def test_attention_that_depends_on_the_chunk(cases, truth, monkeypatch):
    """Steps with chunks round once more, as a split by query length would."""
    original = AttentionBackend.attend

    def attend(self, q, cache, batch, metadata, **kwargs):
        out = original(self, q, cache, batch, metadata, **kwargs)
        if not isinstance(batch.row_counts, DeviceCounts) and max(batch.row_counts) <= 4:
            return out
        return torch.nextafter(out, out + 1)

    monkeypatch.setattr(AttentionBackend, "attend", attend)
    assert _found(cases, truth) != []


def test_a_mixed_layout_of_the_step_before(cases, truth, monkeypatch):
    original, kept = PaddedSizes.fill, {}

    def fill(self, plan, *, padding_row):
        now = original(self, plan, padding_row=padding_row)
        return kept.setdefault((self, len(kept) // 7), now) if plan is not None else now

    monkeypatch.setattr(PaddedSizes, "fill", fill)
    assert _found(cases, truth) != []


def test_a_mixed_step_with_a_tile_too_few(cases, truth, monkeypatch):
    """The last tile of a step that has several is left out: its tokens keep what was there."""
    original = attention_plan.make_tiles_on_device

    def make(rows, **sizes):
        tiles = original(rows, **sizes)
        is_last = tiles.table[:, 2].cumsum(0) == tiles.table[:, 2].sum()
        tiles.table[:, 2] *= ~(is_last.cumsum(0) == 1)
        return tiles

    monkeypatch.setattr("outrider.kernels.triton.attention.make_tiles_on_device", make)
    monkeypatch.setattr(PaddedSizes, "fill", _without_padding)
    assert _found(cases, truth) != []


def _without_padding(self, plan, *, padding_row, fill=PaddedSizes.fill):
    """Padding tokens have no row, so the last tile is a request's."""
    numbers = fill(self, plan, padding_row=padding_row)
    if plan is not None:
        numbers[5 * (self.num_rows + 1) - 1] = 0
    return numbers


def test_noise_keyed_by_batch_row(cases, truth, monkeypatch):
    original = Sampler.__call__

    def call(self, logits, batch, table, **masks):
        table.completion_index.copy_(torch.arange(len(table.completion_index), device=table.completion_index.device))
        return original(self, logits, batch, table, **masks)

    monkeypatch.setattr(Sampler, "__call__", call)
    wrong = _found(cases, truth)
    assert any("temperature 1" in line for line in wrong)
    assert not any(line.startswith("greedy") for line in wrong)


def test_padding_that_has_room(cases, truth, monkeypatch):
    """The row of padding claims a request's block: captured graphs then write over its KV."""
    original = RequestTable.admit

    def admit(self, admissions, new_blocks=()):
        original(self, admissions, new_blocks)
        self.max_total[self.padding_row] = 100
        self.block_tables[0][self.padding_row] = 1

    monkeypatch.setattr(RequestTable, "admit", admit)
    assert _found(cases, truth) != []
