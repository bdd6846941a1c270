"""Gated DeltaNet on a GPU: the chunk form against the recurrence and plain PyTorch, and a token's bits over steps of
any kind: prompt chunks, verify rows, refused drafts, snapshots, whatever comes beside them.
"""

import random

import pytest
import torch

from outrider.kernels import load_kernels
from outrider.kernels.interface.state import CHUNK, StateRows
from tests.kernels.gated_delta_steps import (
    LENGTH,
    MOST_DRAFTS,
    NUM_ROWS,
    Layer,
    Table,
    check_chunks,
    check_mixed_steps,
    recurrence,
    recurrent,
)

from .stack import ORDER

SHAPES = {
    "released": {"num_key_heads": 2, "num_value_heads": 4, "key_size": 128, "value_size": 128},
    "three values to a key": {"num_key_heads": 2, "num_value_heads": 6, "key_size": 64, "value_size": 96},
    "narrow": {"num_key_heads": 1, "num_value_heads": 1, "key_size": 32, "value_size": 16},
}


@pytest.fixture(scope="module", params=SHAPES)
def layer(request):
    return Layer(1, load_kernels(ORDER), device="cuda", dtype=torch.bfloat16, heads=SHAPES[request.param])


@pytest.fixture(scope="module")
def whole(layer):
    """Each row's outputs, all its tokens in one step, alone."""
    return [Table(layer).step([(row, layer.projected[row, :LENGTH], 0)])[0] for row in range(NUM_ROWS)]


def test_a_layer_is_its_definition(layer, whole):
    for row in range(NUM_ROWS):
        wanted = recurrent(layer, layer.projected[row, :LENGTH])
        assert (whole[row] - wanted).norm() < 1e-2 * wanted.norm()


@pytest.mark.parametrize("forgets", [0.001, 0.1, 3.0])
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_chunk_form_is_the_recurrence(layer, forgets, alike):
    """States of 512 tokens beside fp64, from the same q, k and v, whatever is forgotten; outputs are bf16."""
    heads, length = layer.heads, 512
    generator = torch.Generator("cuda").manual_seed(1)

    def random_of(*shape: int) -> torch.Tensor:
        return torch.randn(length, *shape, generator=generator, device="cuda")

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    num_heads, group = heads["num_value_heads"], heads["num_value_heads"] // heads["num_key_heads"]
    key_shape = (heads["num_key_heads"], heads["key_size"])
    q = (unit(random_of(*key_shape)) * heads["key_size"] ** -0.5).bfloat16()
    k = unit(unit(random_of(*key_shape)) * (1 - alike) + alike * unit(random_of(*key_shape)[:1])).bfloat16()
    v = random_of(num_heads, heads["value_size"]).bfloat16()
    log_decay, beta = random_of(num_heads).abs() * -forgets, random_of(num_heads).sigmoid()
    table = Table(layer)
    zero, all_of_it = (torch.tensor([number], device="cuda") for number in (0, length))
    at = StateRows(
        rows=zero + 2, starts=zero, counts=all_of_it, sources=zero, targets=all_of_it, known=all_of_it,
        row_starts=zero, token_row=zero.expand(length), row_counts=(length,), most_open=table.states.most_open,
    )  # fmt: skip
    cache = table.cache
    found = layer.kernels.gated_delta_rule(
        q, k, v, log_decay, beta, cache.state, cache.keys, cache.deltas, cache.log_decays, at
    )
    wide_q, wide_k = (part.double().repeat_interleave(group, dim=1) for part in (q, k))
    wanted, state = recurrence(wide_q, wide_k, v.double(), log_decay.double().exp(), beta.double())
    assert (cache.state[2] - state).norm() < 3e-6 * state.norm()
    assert (found - wanted).norm() < 3e-3 * wanted.norm()


def test_outputs_and_states_are_those_of_plain_pytorch(layer, whole):
    """Each operation rounds at the same place; sums have another order."""
    twin = Layer(1, load_kernels(("reference",)), device="cuda", dtype=torch.bfloat16, heads=layer.heads)
    for row in range(NUM_ROWS):
        tables = [Table(layer), Table(twin)]
        found, wanted = (table.step([(row, table.layer.projected[row, :LENGTH], 0)])[0] for table in tables)
        assert torch.equal(found, whole[row])
        assert (found - wanted).double().norm() < 5e-3 * wanted.double().norm()
        states = [table.cache.state[row].double() for table in tables]
        assert (states[0] - states[1]).norm() < 5e-3 * states[1].norm()
        for name in ("lengths", "known"):
            assert torch.equal(getattr(tables[0], name), getattr(tables[1], name))


@pytest.mark.parametrize("size", [1, 2, 5, CHUNK, CHUNK + 1, 40])
def test_chunk_sizes_give_the_same_bits(layer, whole, size):
    check_chunks(layer, whole, size)


@pytest.mark.parametrize("most_drafts", [0, 1, 3, 8, MOST_DRAFTS])
def test_mixed_steps_with_refused_drafts_give_the_same_bits(layer, whole, most_drafts):
    check_mixed_steps(layer, whole, most_drafts)


def test_a_snapshot_behind_open_tokens_is_the_state_that_a_step_moved(layer):
    table = Table(layer)
    table.step([(1, layer.projected[1, :14], 0)])
    table.computed[1] = 14
    table.step([(1, layer.projected[1, 14:40], 25)])
    table.states.allocate_snapshots(3)
    for length in (16, 32):
        table.states.save(
            layer.kernels, rows=torch.tensor([1], device="cuda"), slots=torch.tensor([2], device="cuda"),
            sources=table.lengths[1:2], lengths=torch.tensor([length], device="cuda"),
        )  # fmt: skip
        moved = Table(layer)
        moved.step([(1, layer.projected[1, :length], 0)])
        saved = table.states._snapshots[0]
        state, inputs = saved.state, saved.inputs
        assert table.lengths[1] == 0 and torch.equal(state[2], moved.cache.state[1])
        assert torch.equal(inputs[2], layer.projected[1, length - 3 : length, : inputs.shape[2]])
        started = Table(layer)
        started.states._snapshots = table.states._snapshots
        started.states.load(
            layer.kernels, rows=torch.tensor([4], device="cuda"), slots=torch.tensor([2], device="cuda"),
            lengths=torch.tensor([length], device="cuda"),
        )  # fmt: skip
        started.computed[4] = started.lengths[4] = started.known[4] = length
        moved.computed[1] = length
        (found,) = started.step([(4, layer.projected[1, length:60], 0)])
        (wanted,) = moved.step([(1, layer.projected[1, length:60], 0)])
        assert torch.equal(found, wanted)


def test_rows_of_the_projection_may_lie_apart(layer, whole):
    (out,) = Table(layer).step([(2, layer.projected[2, :LENGTH], 0)], num_apart=24)
    assert torch.equal(out, whole[2])


def test_a_graph_replayed_with_other_rows_and_places(layer, whole):
    """One step of two rows with three drafts each, captured once, for every place of the sequence. Rows at their end
    have no room."""
    table = Table(layer)
    kernels, cache, heads = layer.kernels, table.cache, layer.heads
    width = layer.projected.shape[2]
    projected = torch.zeros(8, width, dtype=layer.projected.dtype, device="cuda")
    rows = torch.tensor([0, 1], device="cuda")
    numbers = {
        name: torch.zeros(2, dtype=torch.int64, device="cuda")
        for name in ("num_known", "num_drafts", "num_tokens_left")
    }
    row_starts, token_row = torch.tensor([0, 4], device="cuda"), torch.arange(2, device="cuda").repeat_interleave(4)
    sizes = {name: heads[name] for name in ("num_key_heads", "key_size", "value_size")}

    def run() -> torch.Tensor:
        found = kernels.state_rows(table.computed, table.lengths, table.known, rows=rows, **numbers)
        at = StateRows(
            rows, *found, row_starts=row_starts, token_row=token_row, row_counts=(4, 4),
            most_open=table.states.most_open,
        )  # fmt: skip
        q, k, v, log_decay, beta = kernels.gated_delta_inputs(
            projected, cache.inputs, layer.conv, layer.a_log, layer.dt_bias, at, **sizes
        )
        out = kernels.gated_delta_rule(
            q, k, v, log_decay, beta, cache.state, cache.keys, cache.deltas, cache.log_decays, at
        )
        gated = kernels.finish_gated_delta(
            out, projected, k, log_decay, layer.norm, 1e-6, cache.inputs, cache.keys, cache.log_decays, at
        )
        table.lengths[rows], table.known[rows] = at.targets, at.known
        return gated

    run()  # compiles; a row without room moves nothing
    assert not table.lengths.any() and not table.known.any()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gated = run()
    rng = random.Random(5)
    generator = torch.Generator("cuda").manual_seed(1)
    numbers["num_known"].fill_(1)
    numbers["num_drafts"].fill_(3)
    while not bool((table.computed[:NUM_ROWS] >= LENGTH).all()):
        chosen = rng.sample(range(NUM_ROWS), 2)
        rows.copy_(torch.tensor(chosen))
        starts = [int(table.computed[row]) for row in chosen]
        numbers["num_tokens_left"].copy_(torch.tensor([LENGTH - start for start in starts]))
        accepted = [min(rng.randint(0, 3), max(LENGTH - start - 1, 0)) for start in starts]
        projected.normal_(generator=generator)
        for place, (row, start, count) in enumerate(zip(chosen, starts, accepted, strict=True)):
            projected[4 * place : 4 * place + 1 + count] = layer.projected[row, start : start + 1 + count]
        graph.replay()
        for place, (row, start, count) in enumerate(zip(chosen, starts, accepted, strict=True)):
            if start < LENGTH:
                stop = start + 1 + count
                assert torch.equal(gated[4 * place : 4 * place + stop - start], whole[row][start:stop])
                table.computed[row] = stop


def test_no_tokens(layer):
    q = torch.empty(0, layer.heads["num_key_heads"], layer.heads["key_size"], device="cuda")
    v = torch.empty(0, layer.heads["num_value_heads"], layer.heads["value_size"], device="cuda")
    gates = torch.empty(0, layer.heads["num_value_heads"], device="cuda")
    table, nobody = Table(layer), torch.empty(0, dtype=torch.int64, device="cuda")
    cache, at = table.cache, StateRows(*(nobody,) * 8, row_counts=(), most_open=table.states.most_open)
    state = cache.state.clone()
    out = layer.kernels.gated_delta_rule(
        q, q, v, gates, gates, cache.state, cache.keys, cache.deltas, cache.log_decays, at
    )
    assert out.shape == v.shape and torch.equal(cache.state.nan_to_num(7.0), state.nan_to_num(7.0))
