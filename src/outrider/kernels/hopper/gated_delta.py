"""Gated DeltaNet on Hopper: the walk over the chunks in Gluon, and snapshots of states, which walk as well.

The kernels before and after it are those of `kernels/triton/gated_delta.py`.
"""

from functools import partial

import torch
from torch import Tensor

from outrider.kernels.hopper.gated_delta_chunks import COLUMNS, rule_kernel
from outrider.kernels.interface.state import StateRows
from outrider.kernels.triton import gated_delta as portable

_WARPS = 4
"""Warps of a program that walks the chunks of a request; they share the request's keys."""

_walk = partial(portable.walk, kernel=rule_kernel, columns=_WARPS * COLUMNS)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    keys: Tensor,
    deltas: Tensor,
    log_decays: Tensor,
    at: StateRows,
) -> Tensor:
    """o [M, Vh, dv] in v's dtype. States move to their targets, and the δ of open tokens go to the ring."""
    _check_sizes(state)
    out = torch.empty_like(v)
    if v.shape[0] > 0:
        _walk(q, k, v, log_decay, beta, out, state, state, keys, deltas, log_decays, at, at.rows)
    return out


def save_states(
    state: Tensor,
    keys: Tensor,
    deltas: Tensor,
    log_decays: Tensor,
    inputs: Tensor,
    saved_state: Tensor,
    saved_inputs: Tensor,
    *,
    rows: Tensor,
    slots: Tensor,
    sources: Tensor,
    lengths: Tensor,
    most_open: int,
) -> None:
    """Write snapshots of the rows' states after their first `lengths` tokens; each slot is named once."""
    _check_sizes(state)
    portable.save_states_by(
        _walk, state, keys, deltas, log_decays, inputs, saved_state, saved_inputs, rows=rows, slots=slots,
        sources=sources, lengths=lengths, most_open=most_open,
    )  # fmt: skip


def _check_sizes(state: Tensor) -> None:
    key_size, value_size = state.shape[2:]
    assert key_size % 32 == 0, f"keys of {key_size} are not built"
    assert value_size % COLUMNS == 0, f"values of {value_size} are not built"
