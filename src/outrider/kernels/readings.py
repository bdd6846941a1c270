"""Both readings of all rows in one kernel: the second finds in the L2 what the first brought there.

Programs come in phases, first readings some groups of rows ahead of second ones:

    F0 F1 F2 S0 F3 S1 F4 S2 ... S(n-1)

The program that ends the first reading of a row makes its bracket; second ones wait for it. A program waits only for
such as come before it, which the GPU has started earlier, so it does not matter how many have room at a time.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.bracket import set_bracket
from outrider.kernels.mass import slope_of
from outrider.kernels.maxima import read_chunk
from outrider.kernels.native import launch_dependents, wait
from outrider.kernels.sift import load_tiles, sift

READY = tl.constexpr(1 << 16)
"""What is added to a row's counter of programs when its bracket is made."""


@triton.jit(do_not_specialize=["num_rows", "num_groups", "group", "lead"])
def readings_kernel(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_sums,  # [R, num_chunks, 2] fp32
    p_histograms,
    p_scales,
    p_firm,
    p_records,
    p_bins,
    p_fews,
    p_counts,
    p_lists,
    p_hopeful,
    p_found,
    p_done,  # [R] int32: zeros, which it leaves
    p_rows,
    p_temperature,
    p_top_k,
    p_top_p,
    p_min_p,
    p_seeds,
    p_choices,
    p_positions,
    stride,
    vocab_size,
    num_rows,
    num_chunks,
    num_groups,
    group,  # rows of a phase
    lead,  # groups that first readings are ahead
    FIRST_STEPS: tl.constexpr,
    FIRST_TILE: tl.constexpr,
    STEPS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    CHUNKS: tl.constexpr,
    SAMPLE: tl.constexpr,
    SAMPLE_BINS: tl.constexpr,
    NUM_BINS: tl.constexpr,
    FEW: tl.constexpr,
    SEGMENT: tl.constexpr,
    HOPEFUL: tl.constexpr,
    LOOK: tl.constexpr,
    RECORD: tl.constexpr,
    QUIET: tl.constexpr,
):
    """It begins beside the kernel before it, which waited for the logits, and makes brackets behind it."""
    launch_dependents()
    i_phase = tl.program_id(0) // (group * num_chunks)
    i_item = tl.program_id(0) % (group * num_chunks)
    num_mixed = num_groups - lead - 1  # first readings that alternate with second ones
    i_late = i_phase - lead - 1
    is_first = (i_late < 0) | ((i_late < 2 * num_mixed) & (i_late % 2 == 1))
    i_group = tl.where(i_late < 0, i_phase, lead + 1 + i_late // 2)
    i_group = tl.where(is_first, i_group, tl.where(i_late < 2 * num_mixed, i_late // 2, i_late - num_mixed))
    i_row = (i_group * group + i_item // num_chunks).to(tl.int64)
    i_chunk = i_item % num_chunks
    p_own = p_done + i_row
    if i_row < num_rows:
        if is_first:
            temperature = tl.load(p_temperature + tl.load(p_rows + i_row))
            slope = slope_of(tl.where(temperature > 0, temperature, 1.0))
            key, anchor, total = read_chunk(
                p_logits + i_row * stride,
                i_chunk * (FIRST_STEPS * FIRST_TILE),
                vocab_size,
                slope,
                FIRST_STEPS,
                FIRST_TILE,
                True,
            )
            i_place = i_row * num_chunks + i_chunk
            tl.store(p_maxima + i_place, key)
            tl.store(p_sums + i_place * 2, anchor)
            tl.store(p_sums + i_place * 2 + 1, total)
            tl.debug_barrier()
            if tl.atomic_add(p_own, 1, sem="acq_rel") == num_chunks - 1:
                tl.debug_barrier()
                wait()
                set_bracket(
                    i_row,
                    p_logits,
                    p_maxima,
                    p_sums,
                    p_histograms,
                    p_scales,
                    p_firm,
                    p_records,
                    p_bins,
                    p_fews,
                    p_rows,
                    p_temperature,
                    p_top_k,
                    p_top_p,
                    p_min_p,
                    p_seeds,
                    p_choices,
                    p_positions,
                    stride,
                    vocab_size,
                    num_chunks,
                    CHUNKS,
                    SAMPLE,
                    SAMPLE_BINS,
                    NUM_BINS,
                    FEW,
                    RECORD,
                    QUIET,
                )
                tl.debug_barrier()
                tl.atomic_add(p_own, READY, sem="release")
        else:
            coming = load_tiles(p_logits + i_row * stride, i_chunk * (STEPS * TILES * TILE), vocab_size, TILES, TILE)
            while tl.atomic_add(p_own, 0, sem="acquire") < READY:
                pass
            tl.debug_barrier()
            sift(
                i_row,
                i_chunk,
                num_chunks,
                coming,
                p_logits,
                p_records,
                p_bins,
                p_counts,
                p_lists,
                p_hopeful,
                p_found,
                p_rows,
                p_seeds,
                p_choices,
                p_positions,
                stride,
                vocab_size,
                STEPS,
                TILES,
                TILE,
                SEGMENT,
                HOPEFUL,
                LOOK,
                NUM_BINS,
                RECORD,
            )
            # the last that has waited leaves a zero
            if tl.atomic_add(p_own, 1, sem="relaxed") == READY + 2 * num_chunks - 1:
                tl.store(p_own, 0)
