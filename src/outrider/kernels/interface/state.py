"""Kernels of layers with a recurrent state (Gated DeltaNet), and the positions of a step's rows in their states.

Legend: M tokens of the step, R rows of the step, N rows of the request table, G rows with a snapshot, W places of a
ring, Kh key heads, Vh value heads, dk and dv their widths; channels = 2 Kh dk + Vh dv. The arithmetic is described in
`kernels/reference/gated_delta.py`.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

from outrider.core.plan import STATE_CHUNK
from outrider.kernels.interface.cache import DeviceCounts

CHUNK = STATE_CHUNK
"""Tokens by which a state advances; also the rows of one product (benchmarks/log.md, "The chunk of a hybrid")."""

CONV_WIDTH = 4
"""Taps of the causal convolution: a token and the three before it."""


class StateRows(NamedTuple):
    """Positions of the rows of a step, for layers with a state."""

    rows: Tensor  # [R] int64, rows of the table
    starts: Tensor  # [R] int64, position of the first token of the step
    counts: Tensor  # [R] int64, real tokens
    sources: Tensor  # [R] int64, position of the state: a multiple of CHUNK; 0 is the zero state, whatever is stored
    targets: Tensor  # [R] int64, position of the state after the step
    known: Tensor  # [R] int64, tokens of the row that are certain once the step after this one is planned
    row_starts: Tensor  # [R] int64, first token of each row in the flat batch
    token_row: Tensor  # [M] int64
    row_counts: tuple[int, ...] | DeviceCounts  # tokens of each row, padding included
    most_open: int  # the host's upper bound on starts - sources


class StateKernels(Protocol):
    """Kernels that read and advance states. A ring keeps the data of tokens after the state."""

    def state_rows(
        self,
        num_computed: Tensor,
        state_lengths: Tensor,
        state_known: Tensor,
        *,
        rows: Tensor,
        num_known: Tensor,
        num_drafts: Tensor,
        num_tokens_left: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """starts, counts, sources, targets and known of `StateRows`, all [R] int64.

        num_computed, state_lengths (positions of the states) and state_known (tokens that were known when the row's
        last step began) [N] int64; rows, num_known (tokens that are not drafts), num_drafts and num_tokens_left (0 for
        padding) [R] int64.
        """

    def gated_delta_inputs(
        self,
        projected: Tensor,
        inputs: Tensor,
        conv_weight: Tensor,
        a_log: Tensor,
        dt_bias: Tensor,
        at: StateRows,
        *,
        num_key_heads: int,
        key_size: int,
        value_size: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """projected [M, channels + Vh dv + 2 Vh] -> q, k [M, Kh, dk], v [M, Vh, dv], log decay and β [M, Vh] fp32.

        inputs [N, W, channels], ring of convolution inputs; conv_weight [channels, 1, CONV_WIDTH]; a_log, dt_bias [Vh]
        fp32.
        """

    def gated_delta_rule(
        self,
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
        """[M, Vh, dv], the values that q reads from the states. States [N, Vh, dk, dv] fp32 move to their targets.

        keys [N, W, Kh, dk], deltas [N, W, Vh, dv] fp32 and log_decays [N, W, Vh] fp32 are rings; the δ of open tokens
        are written to `deltas`.
        """

    def finish_gated_delta(
        self,
        out: Tensor,
        projected: Tensor,
        k: Tensor,
        log_decay: Tensor,
        weight: Tensor,
        eps: float,
        inputs: Tensor,
        keys: Tensor,
        log_decays: Tensor,
        at: StateRows,
    ) -> Tensor:
        """[M, Vh dv]: the RMSNorm of each head of `out`, times silu(z). Open tokens go to the rings."""

    def save_states(
        self,
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
        """Write snapshots of the rows' states after their first `lengths` tokens; each slot is named once.

        saved_state [snapshots, Vh, dk, dv] fp32, saved_inputs [snapshots, CONV_WIDTH - 1, channels]; rows, slots,
        sources (positions of the states) and lengths (multiples of CHUNK) [G] int64.
        """

    def load_states(
        self,
        state: Tensor,
        inputs: Tensor,
        saved_state: Tensor,
        saved_inputs: Tensor,
        *,
        rows: Tensor,
        slots: Tensor,
        lengths: Tensor,
    ) -> None:
        """Copy snapshots into rows; rows, slots and lengths (where the snapshots were taken) [G] int64."""
