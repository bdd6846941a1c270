"""Readback: what is packed on the device comes back row by row, one wait for one step."""

from types import SimpleNamespace

import pytest
import torch

from outrider.core.plan import RowPlan, StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.device.readback import _LEAST, _RING, Readback, add_drafts, pack, unpack
from outrider.kernels.interface.sampling import Logprobs, Verified
from outrider.platforms.base import select_platform
from outrider.sampling.sampler import Sampled
from tests.support.recording_accelerator import Platform

K = 2


def plan_of(*rows: tuple[int, dict]) -> StepPlan:
    """One row for each (samples, fields)."""
    made = [
        RowPlan(
            request_id=f"r{index}", epoch=index + 5, row=index, num_tokens=max(samples, 1),
            num_drafts=max(samples - 1, 0), does_sample=samples > 0, length_bound=9,
            **({"params": SamplingParams()} | fields),
        )
        for index, (samples, fields) in enumerate(rows)
    ]  # fmt: skip
    return StepPlan(step_id=4, admissions=(), new_blocks=(), rows=tuple(made), num_proposals=K)


def numbers(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def packed_of(plan: StepPlan, *, num_padding: int = 0, sampled: dict | None = None, scores: Logprobs | None = None):
    """Row i of the plan emits i + 1 tokens (as far as it has samples), of which i are drafts."""
    counts = [row.num_samples for row in plan.rows] + [0] * num_padding
    emitted = [min(index + 1, count) for index, count in enumerate(counts)]
    verified = Verified(
        token_ids=torch.tensor([[10 * row + i for i in range(K + 1)] for row in range(len(counts))]),
        num_tokens=numbers(*emitted),
        num_accepted=numbers(*(max(count - 1, 0) for count in emitted)),
    )
    given = (sampled or {}).get("given_logprobs")
    batch = SimpleNamespace(
        num_drafts=numbers(*(max(count - 1, 0) for count in counts)), samples_of_rows=tuple(counts),
        sample=SimpleNamespace(num_given=0 if given is None else given.shape[1]),
    )  # fmt: skip
    fields = dict.fromkeys(Sampled.__dataclass_fields__) | (sampled or {})
    return pack(batch, sampled=Sampled(**fields), verified=verified, scores=scores)


def test_rows_come_back_in_the_order_of_the_plan_without_padding():
    plan = plan_of((1, {}), (3, {}), (0, {}))
    result = unpack(plan, packed := packed_of(plan, num_padding=2), packed.data)
    assert result.step_id == 4
    assert [(row.request_id, row.epoch) for row in result.rows] == [("r0", 5), ("r1", 6), ("r2", 7)]
    assert [row.token_ids for row in result.rows] == [(0,), (10, 11), ()]
    assert [row.num_accepted for row in result.rows] == [0, 1, 0]
    assert [row.num_drafts for row in result.rows] == [0, 2, 0]
    assert all(row.logprobs == () == row.logits_hashes == row.prompt_logprobs for row in result.rows)


def floats(*shape: int) -> torch.Tensor:
    """Values that differ in their last bits, some of them extreme."""
    values = -torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 20
    values.view(-1)[0] = float("-inf")
    return values


def test_logprobs_and_hashes_belong_to_their_row_bit_by_bit():
    wants = {"params": SamplingParams(logprobs=1, logprob_token_ids=[7])}
    plan = plan_of((1, {}), (3, wants), (2, {"params": SamplingParams(logprobs=2)}))
    chosen, top, given, ranks = floats(6), floats(6, 2), floats(6, 1), torch.arange(6)
    hashes = torch.arange(6) * 0x123456789ABCDEF - 7
    packed = packed_of(
        plan,
        sampled={
            "logprobs": chosen, "ranks": ranks, "top_ids": torch.arange(12).view(6, 2), "top_logprobs": top,
            "given_logprobs": given, "given_ranks": ranks.view(6, 1) + 50, "logits_hashes": hashes,
        },
    )  # fmt: skip
    first, second, third = unpack(plan, packed, packed.data).rows
    assert first.logprobs == ()
    assert [row.logits_hashes for row in (first, second, third)] == [
        tuple(hashes[part].tolist()) for part in (slice(0, 1), slice(1, 3), slice(4, 6))
    ]
    assert [entry.logprob for entry in second.logprobs] == chosen[1:3].tolist()
    assert [entry.rank for entry in third.logprobs] == [4, 5]
    assert [entry.top_ids for entry in second.logprobs] == [(2,), (4,)], "one top token was asked for"
    assert [entry.top_logprobs for entry in third.logprobs] == [tuple(row) for row in top[4:6].tolist()]
    assert [(entry.given_logprobs, entry.given_ranks) for entry in second.logprobs] == [
        ((given[place, 0].item(),), (50 + place,)) for place in (1, 2)
    ]
    assert third.logprobs[0].given_logprobs == ()


def test_prompt_logprobs_are_shared_out_by_the_number_of_scored_tokens():
    plan = plan_of(
        (0, {"num_scored": 2, "params": SamplingParams(prompt_logprobs=1)}),
        (1, {"num_scored": 1, "params": SamplingParams(prompt_logprobs=0)}),
        (1, {}),
    )
    scores = Logprobs(
        floats(3), numbers(1, 2, 3), torch.arange(6).view(3, 2), floats(3, 2), torch.empty(3, 0), numbers()
    )
    first, second, third = unpack(plan, packed := packed_of(plan, scores=scores), packed.data).rows
    assert [entry.logprob for entry in first.prompt_logprobs] == scores.chosen[:2].tolist()
    assert [entry.top_ids for entry in first.prompt_logprobs] == [(0,), (2,)]
    assert [(entry.rank, entry.top_ids) for entry in second.prompt_logprobs] == [(3, ())]
    assert third.prompt_logprobs == ()


def test_rows_with_masks_learn_their_next_drafts():
    plan = plan_of((1, {}), (2, {"has_grammar": True}))
    table = SimpleNamespace(num_drafts=numbers(9, 1, 2), drafts=torch.tensor([[9, 9], [40, 41], [50, 51]]))
    packed = add_drafts(packed_of(plan), SimpleNamespace(rows=numbers(2, 1)), table)
    first, second = unpack(plan, packed, packed.data).rows
    assert (first.drafts, second.drafts) == ((), (40,))
    assert second.token_ids == (10, 11), "what was packed before is where it was"


def test_a_cpu_hands_over_what_it_has():
    plan = plan_of((1, {}))
    handle = Readback(select_platform("cpu")).begin(plan, packed_of(plan))
    assert handle.is_ended_at_launch
    assert handle.wait().rows[0].token_ids == (0,)


def test_the_host_waits_for_the_event_of_its_step_and_for_no_other():
    platform = Platform()
    readback, calls = Readback(platform), platform.recording.calls
    plan = plan_of((1, {}))
    calls.clear()
    handles = [readback.begin(plan, packed_of(plan)) for _ in range(3)]
    assert calls == [(name, event) for event in range(3) for name in ("query", "record")]
    calls.clear()
    assert not handles[1].is_ended_at_launch
    assert handles[1].wait().rows[0].token_ids == (0,)
    assert calls == [("synchronize", 1)]


def test_a_result_is_read_from_its_own_buffer():
    """A step that is launched before the last one was read does not touch what that one left."""
    readback, plan = Readback(Platform()), plan_of((1, {}))
    first = packed_of(plan)
    handle = readback.begin(plan, first)
    first.data.fill_(99)  # the device goes on
    assert handle.wait().rows[0].token_ids == (0,)
    others = packed_of(plan)
    others.data.fill_(1)
    for _ in range(_RING - 1):
        readback.begin(plan, others)
    assert handle.wait().rows[0].token_ids == (0,)
    readback.begin(plan, others)
    assert handle.wait().rows[0].token_ids == (1,), "the ring has come round: only now"


@pytest.mark.parametrize("num_rows", [1, _LEAST])
def test_results_of_any_size_fit(num_rows):
    plan = plan_of(*[(1, {})] * num_rows)
    result = Readback(Platform()).begin(plan, packed_of(plan)).wait()
    assert [row.token_ids for row in result.rows] == [(10 * row,) for row in range(num_rows)]
