"""Samples of a truncated distribution without sorting the vocabulary: what `truncate` of the reference keeps.

Four kernels, each of which leaves greedy rows alone:

    sample    a histogram of a sample of the vocabulary, and a token that may be the best (`threshold_estimate.py`)
    bracket   largest logit and about the whole mass of each chunk (`row_max.py`); from these and the sample, two logits
              between which the last kept token should stand (`threshold_estimate.py`)
    sift      masses are added; tokens inside the bracket and tokens that may be chosen are listed (`threshold_scan.py`)
    cut       the row is cut where the kept tokens end, exactly; noise decides among them (`threshold_select.py`)

The first runs beside the second. A guess costs time and never changes the result.
"""

import torch
import triton
from torch import Tensor

from outrider.kernels.hopper.launch import counters
from outrider.kernels.hopper.sampling.threshold_estimate import (
    NUM_BINS,
    RECORD,
    SAMPLE,
    SEGMENT,
    bracket_kernel,
    sample_kernel,
)
from outrider.kernels.hopper.sampling.threshold_scan import HOPEFUL, LOOK, TILE, TILES, sift_kernel
from outrider.kernels.hopper.sampling.threshold_select import cut_kernel

_MAX_CHUNKS = 512
_SEGMENT = 1024
"""Keys that a program of the second reading may list."""

_FEW = 64
_OPEN_BINS = 256
_LIST_BLOCK = 1024
_NOISE_BLOCK = 512

_QUIET = 12288
"""Rows of which fewer tokens lie above the lower end of the bracket take noise for these, and for no other token."""

_FEW_ROWS = 32

_CHUNK = 4096
"""Logits of a program of either reading, which is one warp; those of few rows are spread over more of them."""

_SAMPLE_REGISTERS = 80
"""For many rows: so few that the first reading finds room beside the sample."""

_SIFT_REGISTERS = 96

_FIRST_TILE = 256
"""Logits that a warp looks at a time in the first reading."""

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def choose_random(logits: Tensor, *, rows: Tensor, positions: Tensor, columns: Columns) -> Tensor:
    """Tokens [num_rows] int64 of logits [num_rows, vocab_size] fp32, at least one row.

    columns: temperature, top_k, top_p, min_p, seeds, completion_indices.
    """
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    chunk = 1024 if num_rows <= _FEW_ROWS else _CHUNK
    num_chunks = triton.cdiv(vocab_size, chunk)
    assert num_chunks <= _MAX_CHUNKS, f"a vocabulary of {vocab_size} is too large"

    def scratch(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    histograms = scratch(num_rows, NUM_BINS, dtype=torch.int32)
    scales = scratch(num_rows, 2, dtype=torch.float32)
    firm = scratch(num_rows)
    maxima = scratch(num_rows, num_chunks)
    sums = scratch(num_rows, num_chunks, 2, dtype=torch.float32)
    records = scratch(num_rows, RECORD, dtype=torch.float32)
    bins = scratch(num_rows, _OPEN_BINS)
    fews = scratch(num_rows, _FEW + 1)
    counts = scratch(num_rows, num_chunks)
    lists = scratch(num_rows, num_chunks, _SEGMENT)
    hopeful = scratch(num_rows, num_chunks, HOPEFUL, dtype=torch.int16)
    found = scratch(num_rows, num_chunks, 2)
    out = scratch(num_rows)
    temperature, top_k, top_p, min_p, seeds, completion_indices = columns
    limits = (rows, temperature, top_k, top_p, min_p, seeds, completion_indices, positions)
    sample_kernel[(num_rows,)](
        logits,
        histograms,
        scales,
        firm,
        *limits,
        logits.stride(0),
        vocab_size,
        SAMPLE=SAMPLE,
        SEGMENT=SEGMENT,
        NUM_BINS=NUM_BINS,
        QUIET=_QUIET,
        num_warps=8,
        maxnreg=128 if num_rows <= _FEW_ROWS else _SAMPLE_REGISTERS,
        launch_pdl=True,
    )
    bracket_kernel[(num_chunks, num_rows)](
        logits,
        maxima,
        sums,
        histograms,
        scales,
        firm,
        records,
        bins,
        fews,
        counters(logits.device, num_rows),
        *limits,
        logits.stride(0),
        vocab_size,
        num_chunks,
        STEPS=chunk // _FIRST_TILE,
        TILE=_FIRST_TILE,
        CHUNKS=triton.next_power_of_2(num_chunks),
        SAMPLE=SAMPLE,
        NUM_BINS=NUM_BINS,
        OPEN_BINS=_OPEN_BINS,
        FEW=_FEW,
        RECORD=RECORD,
        QUIET=_QUIET,
        num_warps=1,
        maxnreg=64,
        launch_pdl=True,
    )
    sift_kernel[(num_chunks, num_rows)](
        logits,
        records,
        bins,
        counts,
        lists,
        hopeful,
        found,
        rows,
        seeds,
        completion_indices,
        positions,
        logits.stride(0),
        vocab_size,
        STEPS=chunk // (TILES * TILE),
        TILES=TILES,
        TILE=TILE,
        SEGMENT=_SEGMENT,
        HOPEFUL=HOPEFUL,
        LOOK=LOOK,
        NUM_BINS=_OPEN_BINS,
        RECORD=RECORD,
        num_warps=1,
        maxnreg=_SIFT_REGISTERS,
        launch_pdl=True,
    )
    cut_kernel[(num_rows,)](
        logits,
        maxima,
        records,
        firm,
        bins,
        counts,
        lists,
        fews,
        found,
        *limits,
        out,
        logits.stride(0),
        vocab_size,
        num_chunks,
        FEW=_FEW,
        BLOCK=_LIST_BLOCK,
        NOISE_BLOCK=_NOISE_BLOCK,
        SEGMENT=_SEGMENT,
        WIDTH=triton.next_power_of_2(num_chunks),
        NUM_BINS=_OPEN_BINS,
        RECORD=RECORD,
        num_warps=8,
        maxnreg=128,
        launch_pdl=True,
    )
    return out
