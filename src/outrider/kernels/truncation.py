"""Samples of a truncated distribution without sorting the vocabulary: what `truncate` of the reference keeps.

Five kernels, each of which leaves greedy rows alone:

    maxima    largest logit and about the whole mass of each chunk                               (`sampling.py`)
    sample    a histogram of a sample of the vocabulary, and a token that may be the best        (`bracket.py`)
    bracket   from both, two logits between which the last kept token should stand               (`bracket.py`)
    sift      masses are added; tokens inside the bracket and tokens that may be chosen are listed   (`sift.py`)
    cut       the row is cut where the kept tokens end, exactly, and noise decides among them        (`cut.py`)

The second runs beside the first. A guess costs time and never changes the result.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from outrider.kernels.bracket import NUM_BINS, RECORD, SAMPLE, SEGMENT, bracket_kernel, sample_kernel
from outrider.kernels.cut import cut_kernel
from outrider.kernels.sift import HOPEFUL, LOOK, TILE, TILES, sift_kernel

_MAX_CHUNKS = 512
_SEGMENT = 1024
"""Keys that a program of the second reading may list."""

_FEW = 64
_OPEN_BINS = 256
_LIST_BLOCK = 2048
_NOISE_BLOCK = 512

_QUIET = 12288
"""Rows of which fewer tokens lie above the lower end of the bracket take noise for these, and for no other token."""

_FEW_ROWS = 32
_STEPS = 8

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class Sample(NamedTuple):
    """What a part of each row showed before the whole was read."""

    histograms: Tensor  # [R, NUM_BINS] int32
    scales: Tensor  # [R, 2] fp32
    firm: Tensor  # [R] int64


def look_at_sample(logits: Tensor, *, rows: Tensor, positions: Tensor, columns: Columns) -> Sample:
    """logits [num_rows, vocab_size] fp32, at least one row.

    It is launched behind a kernel that waited for the logits before it let others begin, and so begins beside it.
    """
    num_rows, vocab_size = logits.shape
    sample = Sample(
        histograms=torch.empty(num_rows, NUM_BINS, dtype=torch.int32, device=logits.device),
        scales=torch.empty(num_rows, 2, dtype=torch.float32, device=logits.device),
        firm=torch.empty(num_rows, dtype=torch.int64, device=logits.device),
    )
    temperature, top_k, top_p, min_p, seeds, choices = columns
    sample_kernel[(num_rows,)](
        logits,
        *sample,
        rows,
        temperature,
        top_k,
        top_p,
        min_p,
        seeds,
        choices,
        positions,
        logits.stride(0),
        vocab_size,
        SAMPLE=SAMPLE,
        SEGMENT=SEGMENT,
        NUM_BINS=NUM_BINS,
        QUIET=_QUIET,
        num_warps=8,
        maxnreg=128,
        launch_pdl=True,
    )
    return sample


def choose_random(
    logits: Tensor,
    sample: Sample,
    maxima: Tensor,
    sums: Tensor,
    *,
    rows: Tensor,
    positions: Tensor,
    columns: Columns,
) -> Tensor:
    """Tokens [num_rows] int64, at least one row; maxima and sums of each chunk are made already.

    columns: temperature, top_k, top_p, min_p, seeds, choices.
    """
    num_rows, vocab_size = logits.shape
    num_chunks = maxima.shape[1]

    def scratch(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    out = scratch(num_rows)
    records = scratch(num_rows, RECORD, dtype=torch.float32)
    bins = scratch(num_rows, _OPEN_BINS)
    fews = scratch(num_rows, _FEW + 1)
    steps = 2 if num_rows <= _FEW_ROWS else _STEPS
    num_sifts = triton.cdiv(vocab_size, steps * TILES * TILE)
    counts = scratch(num_rows, num_sifts)
    lists = scratch(num_rows, num_sifts, _SEGMENT)
    hopeful = scratch(num_rows, num_sifts, HOPEFUL, dtype=torch.int16)
    found = scratch(num_rows, num_sifts, 2)
    temperature, top_k, top_p, min_p, seeds, choices = columns
    limits = (rows, temperature, top_k, top_p, min_p)
    keyed_by = (seeds, choices, positions)
    sizes = (logits.stride(0), vocab_size, num_chunks)
    assert max(num_chunks, num_sifts) <= _MAX_CHUNKS, f"a vocabulary of {vocab_size} is too large"
    bracket_kernel[(num_rows,)](
        logits,
        maxima,
        sums,
        *sample,
        records,
        bins,
        fews,
        *limits,
        *keyed_by,
        *sizes,
        CHUNKS=triton.next_power_of_2(num_chunks),
        SAMPLE=SAMPLE,
        NUM_BINS=NUM_BINS,
        OPEN_BINS=_OPEN_BINS,
        FEW=_FEW,
        RECORD=RECORD,
        QUIET=_QUIET,
        num_warps=1,
        launch_pdl=True,
    )
    sift_kernel[(num_sifts, num_rows)](
        logits,
        records,
        bins,
        counts,
        lists,
        hopeful,
        found,
        rows,
        *keyed_by,
        logits.stride(0),
        vocab_size,
        STEPS=steps,
        TILES=TILES,
        TILE=TILE,
        SEGMENT=_SEGMENT,
        HOPEFUL=HOPEFUL,
        LOOK=LOOK,
        NUM_BINS=_OPEN_BINS,
        RECORD=RECORD,
        num_warps=1,
        maxnreg=96,
        launch_pdl=True,
    )
    cut_kernel[(num_rows,)](
        logits,
        maxima,
        records,
        sample.firm,
        bins,
        counts,
        lists,
        fews,
        found,
        *limits,
        *keyed_by,
        out,
        *sizes,
        num_sifts,
        FEW=_FEW,
        BLOCK=_LIST_BLOCK,
        NOISE_BLOCK=_NOISE_BLOCK,
        SEGMENT=_SEGMENT,
        WIDTH=triton.next_power_of_2(num_sifts),
        NUM_BINS=_OPEN_BINS,
        RECORD=RECORD,
        CHUNKS=triton.next_power_of_2(num_chunks),
        num_warps=8,
        maxnreg=128,
        launch_pdl=True,
    )
    return out
