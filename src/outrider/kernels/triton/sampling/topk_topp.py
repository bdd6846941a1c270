"""Samples from a truncated distribution (that of the reference's `truncate`) without sorting the vocabulary.

Four kernels, each of which leaves greedy rows alone:

    sample_histogram    a histogram of several thousand tokens of the row, and the incumbent: a token that is kept for
                        certain and may be the best
    threshold_estimate  the first reading: largest logit and approximate mass; from these and the histogram, a
                        bracket: two logits between which the last kept token should lie
    threshold_scan      the second reading: exact masses; undecided tokens (inside the bracket) and candidates (tokens
                        that may be better than the incumbent) are listed
    threshold_select    the exact threshold among the undecided tokens; noise decides among the candidates it keeps

    | certain .............. | undecided .. threshold .. | dropped ......... |    tokens in order
                           high                         low

The first runs beside the second. Each row has a record (`record.py`) through which they exchange their results. A wrong
estimate costs time and never changes the result.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from outrider.kernels.triton.launch import OVERLAPPED, counters, registers
from outrider.kernels.triton.sampling.record import MASSES, RECORD, SCALES, SUMS
from outrider.kernels.triton.sampling.sample_histogram import NUM_BINS, SAMPLE, SEGMENT, sample_histogram
from outrider.kernels.triton.sampling.threshold_estimate import threshold_estimate
from outrider.kernels.triton.sampling.threshold_scan import SHORTLIST, SHORTLIST_BLOCK, TILE, TILES, threshold_scan
from outrider.kernels.triton.sampling.threshold_select import threshold_select

_MAX_CHUNKS = 512
"""Largest number of chunks of a row; `threshold_select` examines them together."""

_SEGMENT = 1024
"""Keys that a program of the second reading may list."""

_MAX_BOUNDARY = 64
"""Undecided tokens of the threshold's bin that are compared with each other; with more, bins are divided again."""

_UNDECIDED_BINS = 256
_LIST_BLOCK = 1024
_NOISE_BLOCK = 512

_MAX_NOISE_CANDIDATES = 12288
"""Up to this many tokens above the bracket's lower end, only these take noise; with more, the whole row does."""

_FEW_ROWS = 32
"""Up to this many rows are cut into smaller chunks, to fill the GPU."""

_CHUNK = 4096
"""Logits of a program (one warp) of either reading."""

_SMALL_CHUNK = 1024
"""Likewise for few rows."""

_SAMPLE_REGISTERS = 80
"""Registers per thread of `sample_histogram` for many rows: few enough that the first reading fits beside it."""

_SCAN_REGISTERS = 96

_FIRST_TILE = 256
"""Logits that a warp reads at a time in the first reading."""


class RowParams(NamedTuple):
    """Sampling parameters of rows: tensors in the order in which the kernels take them."""

    rows: Tensor  # [num_rows] int64, entry of each row in the columns
    temperature: Tensor  # [num_table_rows] fp32, a column, as are the next five
    top_k: Tensor  # int64
    top_p: Tensor  # fp32
    min_p: Tensor  # fp32
    seeds: Tensor  # int64
    completion_indices: Tensor  # int64
    positions: Tensor  # [num_rows] int64


def choose_random(logits: Tensor, params: RowParams) -> Tensor:
    """Tokens [num_rows] int64 of logits [num_rows, vocab_size] fp32, at least one row."""
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    chunk = _SMALL_CHUNK if num_rows <= _FEW_ROWS else _CHUNK
    num_chunks = triton.cdiv(vocab_size, chunk)
    assert num_chunks <= _MAX_CHUNKS, f"a vocabulary of {vocab_size} is too large"

    def scratch(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    histograms = scratch(num_rows, NUM_BINS, dtype=torch.int32)
    scales = scratch(num_rows, SCALES.value, dtype=torch.float32)
    incumbent = scratch(num_rows)
    maxima = scratch(num_rows, num_chunks)
    sums = scratch(num_rows, num_chunks, SUMS.value, dtype=torch.float32)
    records = scratch(num_rows, RECORD, dtype=torch.float32)
    bins = scratch(num_rows, _UNDECIDED_BINS)
    boundaries = scratch(num_rows, _MAX_BOUNDARY + 1)
    counts = scratch(num_rows, num_chunks)
    lists = scratch(num_rows, num_chunks, _SEGMENT)
    shortlists = scratch(num_rows, num_chunks, SHORTLIST, dtype=torch.int16)
    masses = scratch(num_rows, num_chunks, MASSES.value)
    out = scratch(num_rows)
    sample_histogram[(num_rows,)](
        logits,
        histograms,
        scales,
        incumbent,
        *params,
        logits.stride(0),
        vocab_size,
        SAMPLE=SAMPLE,
        SEGMENT=SEGMENT,
        NUM_BINS=NUM_BINS,
        MAX_NOISE_CANDIDATES=_MAX_NOISE_CANDIDATES,
        num_warps=8,
        **registers(128 if num_rows <= _FEW_ROWS else _SAMPLE_REGISTERS),
        **OVERLAPPED,
    )
    threshold_estimate[(num_chunks, num_rows)](
        logits,
        maxima,
        sums,
        histograms,
        scales,
        incumbent,
        records,
        bins,
        boundaries,
        counters(logits.device, num_rows),
        *params,
        logits.stride(0),
        vocab_size,
        num_chunks,
        STEPS=chunk // _FIRST_TILE,
        TILE=_FIRST_TILE,
        CHUNKS=triton.next_power_of_2(num_chunks),
        SAMPLE=SAMPLE,
        NUM_BINS=NUM_BINS,
        UNDECIDED_BINS=_UNDECIDED_BINS,
        MAX_BOUNDARY=_MAX_BOUNDARY,
        RECORD=RECORD,
        MAX_NOISE_CANDIDATES=_MAX_NOISE_CANDIDATES,
        num_warps=1,
        **registers(64),
        **OVERLAPPED,
    )
    threshold_scan[(num_chunks, num_rows)](
        logits,
        records,
        bins,
        counts,
        lists,
        shortlists,
        masses,
        params.rows,
        params.seeds,
        params.completion_indices,
        params.positions,
        logits.stride(0),
        vocab_size,
        STEPS=chunk // (TILES * TILE),
        TILES=TILES,
        TILE=TILE,
        SEGMENT=_SEGMENT,
        SHORTLIST=SHORTLIST,
        SHORTLIST_BLOCK=SHORTLIST_BLOCK,
        NUM_BINS=_UNDECIDED_BINS,
        RECORD=RECORD,
        num_warps=1,
        **registers(_SCAN_REGISTERS),
        **OVERLAPPED,
    )
    threshold_select[(num_rows,)](
        logits,
        maxima,
        records,
        incumbent,
        bins,
        counts,
        lists,
        boundaries,
        masses,
        *params,
        out,
        logits.stride(0),
        vocab_size,
        num_chunks,
        MAX_BOUNDARY=_MAX_BOUNDARY,
        BLOCK=_LIST_BLOCK,
        NOISE_BLOCK=_NOISE_BLOCK,
        SEGMENT=_SEGMENT,
        WIDTH=triton.next_power_of_2(num_chunks),
        NUM_BINS=_UNDECIDED_BINS,
        RECORD=RECORD,
        num_warps=8,
        **registers(128),
        **OVERLAPPED,
    )
    return out
