"""Gated DeltaNet: the chunk form against the recurrence, and a token's bits however its tokens came.

A little table is driven as the engine drives its own: rows of any order, prompt chunks, drafts that are refused.
"""

import pytest
import torch

from outrider.kernels import load_kernels
from outrider.kernels.interface.state import CHUNK
from tests.kernels.gated_delta_steps import (
    LENGTH,
    MOST_DRAFTS,
    NUM_ROWS,
    Layer,
    Table,
    check_chunks,
    check_mixed_steps,
    recurrent,
)


@pytest.fixture(scope="module")
def layer():
    return Layer(1, load_kernels(("reference",)))


@pytest.fixture(scope="module")
def whole(layer):
    """Each row's outputs, all its tokens in one step, alone."""
    return [Table(layer).step([(row, layer.projected[row, :LENGTH], 0)])[0] for row in range(NUM_ROWS)]


def test_the_chunk_form_is_the_recurrence(layer, whole):
    for row in range(NUM_ROWS):
        wanted = recurrent(layer, layer.projected[row, :LENGTH])
        assert (whole[row] - wanted).norm() < 2e-6 * wanted.norm()


@pytest.mark.parametrize("size", [1, 2, 5, CHUNK, CHUNK + 1, 40])
def test_chunk_sizes_give_the_same_bits(layer, whole, size):
    check_chunks(layer, whole, size)


@pytest.mark.parametrize(
    "most_drafts", [1, 8, *(pytest.param(count, marks=pytest.mark.slow) for count in (0, 3, 7, MOST_DRAFTS))]
)
def test_mixed_steps_with_refused_drafts_give_the_same_bits(layer, whole, most_drafts):
    """Prompt chunks and verify rows in random order; every accepted count occurs, wrong drafts are garbage."""
    check_mixed_steps(layer, whole, most_drafts)


def test_a_decode_row_leaves_its_state_behind_what_a_stop_may_cut(layer):
    """The state covers tokens that were known when the row's last step began, whatever was accepted since."""
    table = Table(layer)
    table.step([(0, layer.projected[0, :14], 0)])
    table.computed[0] = 14
    table.step([(0, layer.projected[0, 14:24], 9)])  # known: 15
    table.computed[0] = 24  # all nine drafts accepted; a stop may cut at 16
    table.step([(0, layer.projected[0, 24:25], 0)])
    assert table.lengths[0] == 0
    table.computed[0] = 25
    table.step([(0, layer.projected[0, 25:26], 0)])
    assert table.lengths[0] == CHUNK


def test_a_row_starts_from_nothing_whatever_its_last_owner_left(layer, whole):
    table = Table(layer)
    table.step([(1, layer.projected[4, :40], 0)])
    table.lengths[1] = table.known[1] = 0
    (out,) = table.step([(1, layer.projected[1, :LENGTH], 0)])
    assert torch.equal(out, whole[1])
