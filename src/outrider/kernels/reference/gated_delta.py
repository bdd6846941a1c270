"""Gated DeltaNet in plain PyTorch, one arithmetic for prompt chunks, decoding and verification: the chunk form.

A row of the request table has a state whose position is a multiple of CHUNK tokens. Tokens after it are open: a ring of
positions keeps the key, the solved row δ, the log decay and the convolution input of each open token. A step works on
whole chunks at absolute positions, with old rows from the ring and new ones computed, so a token's result depends only
on the tokens before it, never on how many came in its step. The state advances over certain tokens (`targets`); drafts
are kept only in the ring, so rejecting them only changes a length.

Legend: M tokens of the step, R rows of the step, N rows of the table, W places of a ring, C = CHUNK, Kh key heads,
Vh value heads, dk and dv their widths. Of one chunk, with G the running sum of log decays and S the state before it:

    δ_i = β_i (v_i - e^{G_i} Sᵀk_i - Σ_{j<i} (k_i·k_j) e^{G_i - G_j} δ_j), j in ascending order
    o_i = e^{G_i} Sᵀq_i + Σ_{j<=i} (q_i·k_j) e^{G_i - G_j} δ_j
    S'  = e^{G_last} S + Σ_j e^{G_last - G_j} k_j δ_jᵀ

Source: Yang, Kautz, Hatamizadeh, Gated Delta Networks, arXiv 2412.06464.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from outrider.kernels.interface.state import CHUNK, CONV_WIDTH, StateRows
from outrider.kernels.reference.host_counts import host_counts
from outrider.kernels.reference.norm import rms_norm, row_sums

_FLOOR = -64.0
"""Log decays below this are raised to it: negligible beside 1 either way, and far from slow denormal numbers."""


def state_rows(
    num_computed: Tensor,  # [N] int64
    state_lengths: Tensor,  # [N] int64, positions of the states
    state_known: Tensor,  # [N] int64, tokens that were known when the row's last step began
    *,
    rows: Tensor,  # [R] int64
    num_known: Tensor,  # [R] int64, tokens that are not drafts
    num_drafts: Tensor,  # [R] int64, real drafts
    num_tokens_left: Tensor,  # [R] int64, 0 for padding
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """starts, counts, sources, targets, known of `StateRows`.

    A prompt chunk moves the state to its end. A decode row moves it over tokens that were known when the row's last
    step began: a stop may cut tokens that were emitted since, and the state must not be after the cut.
    """
    starts, sources = num_computed[rows], state_lengths[rows]
    is_real = num_tokens_left > 0
    known = torch.where(is_real, starts + num_known, state_known[rows])
    sure = torch.where(num_known > 1, known, state_known[rows])
    targets = torch.where(is_real, torch.maximum(sources, sure // CHUNK * CHUNK), sources)
    return starts, torch.where(is_real, num_known + num_drafts, 0), sources, targets, known


def gated_delta_inputs(
    projected: Tensor,  # [M, channels + Vh dv + 2 Vh]: q, k, v before the convolution, z, b, a
    inputs: Tensor,  # [N, W, channels], ring of convolution inputs
    conv_weight: Tensor,  # [channels, 1, CONV_WIDTH]
    a_log: Tensor,  # [Vh] fp32
    dt_bias: Tensor,  # [Vh] fp32
    at: StateRows,
    *,
    num_key_heads: int,
    key_size: int,
    value_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k [M, Kh, dk] of norm one (q scaled by dk^-½), v [M, Vh, dv] in the input's dtype; log decay and β [M, Vh]
    fp32."""
    num_tokens, num_value_heads = projected.shape[0], a_log.shape[0]
    num_channels = inputs.shape[2]
    y = _convolved(projected[:, :num_channels], inputs, conv_weight, at)
    y = (y / y.neg().exp_().add_(1.0)).to(projected.dtype)
    sizes = [num_key_heads * key_size, num_key_heads * key_size, num_value_heads * value_size]
    q, k, v = y.split(sizes, dim=1)
    q, k = (part.reshape(num_tokens, num_key_heads, key_size) for part in (q, k))
    b, a = projected[:, -2 * num_value_heads :].float().split(num_value_heads, dim=1)
    beta = 1.0 / b.neg().contiguous().exp_().add_(1.0)
    a = a + dt_bias
    softplus = a.clamp(min=0.0) + a.abs().neg_().exp_().log1p_()
    v = v.reshape(num_tokens, num_value_heads, value_size)
    return _unit(q, key_size**-0.5), _unit(k, 1.0), v, softplus * -a_log.exp(), beta


def _convolved(u: Tensor, inputs: Tensor, weight: Tensor, at: StateRows) -> Tensor:
    """[M, channels] fp32: four products added in ascending order of position."""
    num_places = inputs.shape[1]
    index = torch.arange(u.shape[0], device=u.device)
    offset = index - at.row_starts[at.token_row]
    position = at.starts[at.token_row] + offset
    ring = inputs.view(-1, inputs.shape[2])
    total = torch.zeros(u.shape, dtype=torch.float32, device=u.device)
    for tap in range(CONV_WIDTH):
        back = CONV_WIDTH - 1 - tap
        before = position - back
        kept = ring.index_select(0, at.rows[at.token_row] * num_places + before % num_places)
        here = u.index_select(0, (index - back).clamp(min=0))
        taken = torch.where((offset >= back)[:, None], here, kept).float()
        taken = taken.masked_fill((before < 0)[:, None], 0.0)
        total += taken * weight[:, 0, tap].float()
    return total


def _unit(x: Tensor, scale: float) -> Tensor:
    """x [M, H, D] divided by its norm, times `scale`."""
    rows = x.reshape(-1, x.shape[-1]).float()
    factors = torch.rsqrt(row_sums(rows * rows).add_(1e-6))
    return (rows * factors * scale).to(x.dtype).view(x.shape)


def gated_delta_rule(
    q: Tensor,  # [M, Kh, dk]
    k: Tensor,  # [M, Kh, dk]
    v: Tensor,  # [M, Vh, dv]
    log_decay: Tensor,  # [M, Vh] fp32
    beta: Tensor,  # [M, Vh] fp32
    state: Tensor,  # [N, Vh, dk, dv] fp32, changed; no request uses the last row of the table
    keys: Tensor,  # [N, W, Kh, dk], ring
    deltas: Tensor,  # [N, W, Vh, dv] fp32, ring, changed
    log_decays: Tensor,  # [N, W, Vh] fp32, ring
    at: StateRows,
) -> Tensor:
    """o [M, Vh, dv] in v's dtype. States move to their targets, and the δ of open tokens go to the ring."""
    out = torch.zeros(v.shape[0] + 1, *v.shape[1:], dtype=torch.float32, device=v.device)  # the last place is unused
    by_count: dict[int, list[int]] = {}
    for row, count in enumerate(host_counts(at.row_counts)):
        if count > 0:
            by_count.setdefault(count, []).append(row)
    for count, members in by_count.items():
        _rule_of_rows(q, k, v, log_decay, beta, state, keys, deltas, log_decays, at, members, count, out)
    return out[:-1].to(v.dtype)


def _rule_of_rows(
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
    members: list[int],
    count: int,
    out: Tensor,
) -> None:
    """The rows `members` of the step, `count` tokens each, padding included."""
    num_places, last_token = keys.shape[1], v.shape[0] - 1
    first, last = members[0], members[-1]
    index = slice(first, last + 1) if last - first + 1 == len(members) else members
    rows, starts, counts, sources, targets, row_starts = (
        part[index] for part in (at.rows, at.starts, at.counts, at.sources, at.targets, at.row_starts)
    )
    current = state[rows].masked_fill((sources == 0)[:, None, None, None], 0.0)
    reached = current
    within = torch.arange(CHUNK, device=v.device)
    nobody = (state.shape[0] - 1) * num_places
    for i in range(-(-(at.most_open + count) // CHUNK)):
        start = sources + i * CHUNK
        position = start[:, None] + within  # [G, C]
        is_old = position < starts[:, None]
        is_new = ~is_old & (position < (starts + counts)[:, None])
        token = (row_starts[:, None] + position - starts[:, None]).clamp(0, last_token)
        place = rows[:, None] * num_places + position % num_places

        tile = _Tile(is_old, is_new, token, place)
        chunk = solve_chunk(
            tile.of(q),
            tile.of(k, keys),
            tile.of(v),
            tile.of(log_decay, log_decays),
            tile.of(beta),
            current,
            deltas.view(-1, *deltas.shape[2:])[place],
            is_old,
        )
        out[torch.where(is_new, token, last_token + 1)] = chunk.out
        is_kept = is_new & (position >= targets[:, None])
        deltas.view(-1, *deltas.shape[2:])[torch.where(is_kept, place, nobody)] = chunk.deltas
        current = chunk.state
        reached = torch.where((start + CHUNK == targets)[:, None, None, None], current, reached)
    state[rows] = reached


class _Tile(NamedTuple):
    """Tokens of one chunk of each of G rows; all [G, C]."""

    is_old: Tensor  # bool, in the ring
    is_new: Tensor  # bool, in the step
    token: Tensor  # int64, place in the step
    place: Tensor  # int64, place in the ring, rows end to end

    def of(self, new: Tensor, ring: Tensor | None = None) -> Tensor:
        """[G, C, …] fp32, zero where there is no token; without a ring, where there is no new one."""
        values = new[self.token]
        is_there = self.is_new
        if ring is not None:
            kept = ring.view(-1, *ring.shape[2:])[self.place]
            values = torch.where(_like(self.is_old, values), kept, values)
            is_there = self.is_old | self.is_new
        return values.masked_fill(~_like(is_there, values), 0.0).float()


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(*mask.shape, *(1 for _ in range(values.ndim - mask.ndim)))


class Chunk(NamedTuple):
    """Results of one chunk of each of G rows."""

    out: Tensor  # [G, C, Vh, dv]
    deltas: Tensor  # [G, C, Vh, dv]
    state: Tensor  # [G, Vh, dk, dv]


def solve_chunk(
    q: Tensor,  # [G, C, Kh, dk]
    k: Tensor,  # [G, C, Kh, dk]
    v: Tensor,  # [G, C, Vh, dv]
    log_decay: Tensor,  # [G, C, Vh]
    beta: Tensor,  # [G, C, Vh]
    state: Tensor,  # [G, Vh, dk, dv]
    known: Tensor,  # [G, C, Vh, dv], δ of tokens that were solved before
    is_known: Tensor,  # [G, C] bool
) -> Chunk:
    """One chunk of each of G rows, all fp32, zero where there is no token."""
    num_rows, size, num_key_heads, key_size = k.shape
    num_heads, value_size = v.shape[2:]
    group = num_heads // num_key_heads
    running = log_decay.cumsum(dim=1).transpose(1, 2).contiguous()  # [G, Vh, C]
    causal = torch.ones(size, size, dtype=torch.bool, device=v.device).tril()
    between = (running[..., :, None] - running[..., None, :]).masked_fill(~causal, 0.0)
    between = between.clamp_(min=_FLOOR).exp_().masked_fill_(~causal, 0.0)  # [G, Vh, C, C]
    from_start = running.clamp(min=_FLOOR).exp_()
    q, k = (part.transpose(1, 2).contiguous() for part in (q, k))  # [G, Kh, C, dk]

    def per_key_head(left: Tensor) -> Tensor:
        products = torch.bmm(left.view(-1, size, key_size), k.view(-1, size, key_size).transpose(1, 2))
        return products.view(num_rows, num_key_heads, 1, size, size)

    def against_state(left: Tensor) -> Tensor:
        repeated = left[:, :, None].expand(-1, -1, group, -1, -1).reshape(-1, size, key_size)
        products = torch.bmm(repeated, state.reshape(-1, key_size, value_size))
        return products.view(num_rows, num_heads, size, value_size) * from_start[..., None]

    by_head = between.view(num_rows, num_key_heads, group, size, size)
    weights = (per_key_head(k) * by_head).view(num_rows, num_heads, size, size)
    # a known row is its own solution: nothing is subtracted from it, and its factor is 1
    is_known = is_known[:, None, :, None]
    weights = weights.masked_fill_(is_known, 0.0)
    beta = beta.transpose(1, 2)[..., None].masked_fill(is_known, 1.0)
    solved = torch.where(is_known, known.transpose(1, 2), v.transpose(1, 2) - against_state(k)).contiguous()
    columns, factors, rows = weights.unsqueeze(4).unbind(3), beta.unbind(2), solved.unbind(2)
    for j in range(size):
        row = rows[j].mul_(factors[j])
        if j + 1 < size:
            solved[:, :, j + 1 :].sub_(columns[j][:, :, j + 1 :] * row[:, :, None])
    scores = (per_key_head(q) * by_head).view(-1, size, size)
    inner = torch.bmm(scores, solved.view(-1, size, value_size)).view(solved.shape)
    out = against_state(q) + inner
    return Chunk(out.transpose(1, 2), solved.transpose(1, 2), _advanced(state, k, solved, running))


def _advanced(state: Tensor, k: Tensor, solved: Tensor, running: Tensor) -> Tensor:
    """S' of states [G, Vh, dk, dv], from k [G, Kh, C, dk], solved [G, Vh, C, dv] and running sums [G, Vh, C]."""
    num_rows, num_key_heads, size, key_size = k.shape
    group = state.shape[1] // num_key_heads
    to_end = (running[..., -1:] - running).clamp_(min=_FLOOR).exp_()
    carried = k[:, :, None] * to_end.view(num_rows, num_key_heads, group, size, 1)
    added = torch.bmm(carried.reshape(-1, size, key_size).transpose(1, 2), solved.view(-1, size, solved.shape[3]))
    return state * running[..., -1:, None].clamp(min=_FLOOR).exp_() + added.view(state.shape)


def finish_gated_delta(
    out: Tensor,  # [M, Vh, dv]
    projected: Tensor,  # [M, channels + Vh dv + 2 Vh]
    k: Tensor,  # [M, Kh, dk]
    log_decay: Tensor,  # [M, Vh] fp32
    weight: Tensor,  # [dv]
    eps: float,
    inputs: Tensor,  # [N, W, channels], ring, changed
    keys: Tensor,  # [N, W, Kh, dk], ring, changed
    log_decays: Tensor,  # [N, W, Vh] fp32, ring, changed
    at: StateRows,
) -> Tensor:
    """[M, Vh dv] = rms_norm(out) × silu(z), per head. Writes open tokens to the rings for later steps."""
    num_tokens, num_channels = out.shape[0], inputs.shape[2]
    z = projected[:, num_channels : num_channels + out[0].numel()].float().reshape(out.shape)
    gate = z / z.neg().exp_().add_(1.0)
    gated = (rms_norm(out, weight, eps).float() * gate).to(out.dtype)

    num_places = inputs.shape[1]
    row = at.token_row
    position = at.starts[row] + torch.arange(num_tokens, device=out.device) - at.row_starts[row]
    is_real = position < (at.starts + at.counts)[row]
    nobody = (inputs.shape[0] - 1) * num_places
    place = at.rows[row] * num_places + position % num_places
    is_open = is_real & (position >= at.targets[row])
    is_behind = is_real & (position >= at.targets[row] - (CONV_WIDTH - 1))
    kept = ((inputs, projected[:, :num_channels], is_behind), (keys, k, is_open), (log_decays, log_decay, is_open))
    for ring, values, is_kept in kept:
        ring.view(-1, *ring.shape[2:])[torch.where(is_kept, place, nobody)] = values
    return gated.view(num_tokens, -1)


def save_states(
    state: Tensor,  # [N, Vh, dk, dv] fp32
    keys: Tensor,  # [N, W, Kh, dk], ring
    deltas: Tensor,  # [N, W, Vh, dv] fp32, ring
    log_decays: Tensor,  # [N, W, Vh] fp32, ring
    inputs: Tensor,  # [N, W, channels], ring
    saved_state: Tensor,  # [slots, Vh, dk, dv] fp32, changed
    saved_inputs: Tensor,  # [slots, CONV_WIDTH - 1, channels], changed
    *,
    rows: Tensor,  # [G] int64
    slots: Tensor,  # [G] int64
    sources: Tensor,  # [G] int64, positions of the states
    lengths: Tensor,  # [G] int64, multiples of CHUNK from `sources` on, whose tokens the rings hold
    most_open: int,
) -> None:
    """Write snapshots of the rows' states after their first `lengths` tokens; each slot is named once."""
    num_places = keys.shape[1]
    current = state[rows].masked_fill((sources == 0)[:, None, None, None], 0.0)
    for i in range(most_open // CHUNK + 1):
        start = sources + i * CHUNK
        position = start[:, None] + torch.arange(CHUNK, device=state.device)
        place = rows[:, None] * num_places + position % num_places
        is_wanted = (start + CHUNK <= lengths)[:, None, None, None]
        k, solved, decay = (ring.view(-1, *ring.shape[2:])[place].float() for ring in (keys, deltas, log_decays))
        k, solved = (part.masked_fill(~is_wanted, 0.0).transpose(1, 2).contiguous() for part in (k, solved))
        running = decay.masked_fill(~is_wanted[..., 0], 0.0).cumsum(dim=1).transpose(1, 2).contiguous()
        current = torch.where(is_wanted, _advanced(current, k, solved, running), current)
    saved_state[slots] = current
    saved_inputs[slots] = inputs[rows[:, None], places_before(lengths, num_places)]


def places_before(lengths: Tensor, num_places: int) -> Tensor:
    """Places in a ring of the convolution inputs that the token after `lengths` reads: [G, CONV_WIDTH - 1]."""
    before = lengths[:, None] - (CONV_WIDTH - 1) + torch.arange(CONV_WIDTH - 1, device=lengths.device)
    return before % num_places


def load_states(
    state: Tensor,  # [N, Vh, dk, dv] fp32, changed
    inputs: Tensor,  # [N, W, channels], ring, changed
    saved_state: Tensor,  # [slots, Vh, dk, dv] fp32
    saved_inputs: Tensor,  # [slots, CONV_WIDTH - 1, channels]
    *,
    rows: Tensor,  # [G] int64
    slots: Tensor,  # [G] int64
    lengths: Tensor,  # [G] int64, where the snapshots were taken
) -> None:
    """Copy snapshots into the rows that start from them."""
    state[rows] = saved_state[slots]
    inputs[rows[:, None], places_before(lengths, inputs.shape[1])] = saved_inputs[slots]
