"""Leaks put in on purpose, one at a time, on a GPU: each must turn the comparison red.

A stock GEMM does not leak at the zoo's widths: `test_llama_identity.py` shows it at full size.
"""

import pytest
import torch

from outrider.attention.base import AttentionBackend
from outrider.device.table import RequestTable
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
    return request_mix.mismatches(cases, request_mix.run(llm, cases), truth)


def test_without_a_leak_nothing_differs(cases, truth):
    assert _found(cases, truth) == []


def test_attention_that_depends_on_the_chunk(cases, truth, monkeypatch):
    """Rows of several tokens round once more, as a split by query length would."""
    original = AttentionBackend.attend

    def attend(self, q, cache, batch, metadata, **kwargs):
        out = original(self, q, cache, batch, metadata, **kwargs)
        if max(batch.row_counts) <= 4:
            return out
        return torch.nextafter(out, out + 1)

    monkeypatch.setattr(AttentionBackend, "attend", attend)
    assert _found(cases, truth) != []


def test_noise_keyed_by_batch_row(cases, truth, monkeypatch):
    original = Sampler.__call__

    def call(self, logits, batch, table):
        table.completion_index.copy_(torch.arange(len(table.completion_index), device=table.completion_index.device))
        return original(self, logits, batch, table)

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
