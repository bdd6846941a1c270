"""Behaviours of the scheduler, one at a time; the loop checks each step of these, too."""

import itertools

import pytest

from outrider.core.digest import fold
from outrider.core.errors import RequestError
from outrider.core.kv_groups import BlockGroup
from outrider.core.outputs import FinishReason
from outrider.core.plan import RowResult, StepResult, TokenLogprobs
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.request_state import RequestState, RequestStatus
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.step import OpenStep
from outrider.scheduler.text_rules import Stop

from .hash_model import SIZE, VOCAB_SIZE, Job, Setting, continuation
from .loop import Loop
from .workloads import rotate


def job(name: str, num_tokens: int, **fields: object) -> Job:
    """A prompt that shares nothing with one of another name."""
    prompt = tuple((ord(name[0]) + 7 * index) % VOCAB_SIZE for index in range(num_tokens))
    return Job(request_id=name, prompt=prompt, **fields)  # type: ignore[arg-type]


def turns(loop: Loop, count: int) -> None:
    for _ in range(count):
        loop.turn()


@pytest.mark.parametrize("is_lazy", [False, True])
def test_block_is_not_freed_while_a_step_reads_it(is_lazy: bool) -> None:
    """a stops while its next step is in flight; b then takes a's blocks, which that step still uses."""
    setting = Setting(num_blocks=5, num_drafts=3, depth=1, caching=False)
    loop = Loop(setting, is_lazy=is_lazy)
    stop = continuation(job("a", 20).prompt, 12)[-1]
    loop.add(job("a", 20, max_tokens=30, stop_ids=frozenset({stop})))
    loop.add(job("b", 40, max_tokens=4))
    held: list[int] = []

    def is_finished() -> bool:
        nonlocal held
        held = list(loop.requests["a"].block_ids) or held
        return loop.requests["a"].status is RequestStatus.FINISHED

    loop.run_until(is_finished)
    assert "a" in {row.request_id for row in loop.plans[-1].rows}, "a step of a is in flight"
    plan = loop.plan()
    assert plan is not None
    assert {row.request_id for row in plan.rows} == {"b"}
    assert set(plan.new_blocks[0].block_ids) & set(held)
    loop.run()
    assert loop.num_dropped > 0


def test_unconfirmed_tokens_are_not_published() -> None:
    """Wrong drafts fill the second block on the device; it is published once its tokens are the request's own."""
    loop = Loop(Setting(num_drafts=3, depth=0, accuracy=0.0), is_lazy=False)
    request = loop.add(job("a", 30, max_tokens=8))
    assert loop.plan() is not None
    assert not loop.published(), "computed and not settled"
    loop.settle()
    assert len(loop.published()) == 1
    loop.run_until(lambda: request.num_computed_tokens >= 2 * SIZE or len(loop.published()) != 1)
    assert request.num_computed_tokens >= 2 * SIZE
    assert len(loop.published()) == 2
    loop.run()


def test_results_of_a_preempted_request_are_dropped_and_made_again() -> None:
    loop = Loop(Setting(num_blocks=5, max_num_seqs=2, depth=1, caching=False))
    loop.add(job("a", 14, max_tokens=40))
    second = loop.add(job("b", 14, max_tokens=40))
    loop.run_until(lambda: second.num_preemptions > 0)
    assert loop.num_preempted_in_flight == 1, "it was preempted while its step was in flight"
    num_outputs = second.num_output_tokens
    assert num_outputs > 0
    assert (second.num_computed_tokens, second.block_ids, second.row) == (0, [], -1)
    assert (second.num_steps_in_flight, second.num_tokens_in_flight) == (0, 0), "their results will be dropped"
    loop.run()
    again = [admission for plan in loop.plans for admission in plan.admissions if admission.request_id == "b"][1]
    assert (again.num_prompt_tokens, len(again.token_ids)) == (14, 14 + num_outputs)
    assert loop.num_dropped > 0


@pytest.mark.parametrize("ends", ["abort", "stop"])
def test_id_may_return_while_results_of_its_first_use_are_in_flight(ends: str) -> None:
    loop = Loop(Setting(num_drafts=3, depth=1), is_lazy=True)
    stop = continuation(job("a", 20).prompt, 4)[-1]
    loop.add(job("a", 20, max_tokens=30, stop_ids=frozenset({stop} if ends == "stop" else ())))
    turns(loop, 3)
    if ends == "abort":
        loop.abort("a")
    loop.run_until(lambda: loop.requests["a"].status is RequestStatus.FINISHED)
    other = Job(request_id="a", prompt=job("z", 20).prompt, max_tokens=12)
    loop.add(other)
    loop.run()
    assert loop.num_dropped > 0
    assert loop.requests["a"].output_token_ids == other.expected


def test_id_in_use_is_refused() -> None:
    loop = Loop(Setting())
    loop.add(job("a", 5))
    with pytest.raises(RequestError, match=r"request_id='a' is in use\. Wait for it, or take another id"):
        loop.add(job("a", 6))
    loop.run()


def test_request_that_could_never_hold_its_blocks_is_refused() -> None:
    loop = Loop(Setting(num_blocks=4))
    with pytest.raises(RequestError, match=r"49 tokens .* need 4 KV blocks of 16, and there are 3\. Lower max_tokens"):
        loop.add(job("a", 40, max_tokens=9))
    assert not loop.scheduler.has_work
    loop.add(job("a", 40, max_tokens=8))
    loop.run()


def test_long_prompt_is_cut_into_chunks_and_samples_once() -> None:
    loop = Loop(Setting(budget=40, depth=0))
    loop.run([job("a", 100, max_tokens=1)])
    rows = [row for plan in loop.plans for row in plan.rows]
    assert [(row.num_tokens, row.does_sample, row.num_drafts) for row in rows] == [
        (40, False, 0),
        (40, False, 0),
        (20, True, 0),
    ]


def test_prompts_take_the_budget_that_decodes_leave() -> None:
    loop = Loop(Setting(budget=40, num_drafts=3, depth=0))
    loop.add(job("a", 10, max_tokens=30))
    loop.turn()
    loop.add(job("b", 100))
    loop.turn()
    assert [(row.request_id, row.num_tokens) for row in loop.plans[-1].rows] == [("a", 4), ("b", 36)]
    loop.run()


def test_a_long_prompt_leaves_half_of_each_step_to_short_ones() -> None:
    """Short prompts that come later are done within two steps, one that is as long waits, and the long one goes on."""
    loop = Loop(Setting(budget=40, num_blocks=200, max_num_seqs=8, depth=0, caching=False))
    long = loop.add(job("a", 300, max_tokens=1))
    loop.turn()
    assert long.num_computed_tokens == 40, "alone it takes all"
    other = loop.add(job("b", 300, max_tokens=1))
    short = [loop.add(job(name, 15, max_tokens=1)) for name in "cdef"]
    taken = [long.num_computed_tokens]
    for _ in range(4):
        loop.turn()
        taken.append(long.num_computed_tokens)
    assert [after - before for before, after in itertools.pairwise(taken)] == [25, 25, 25, 25]
    assert all(request.status is RequestStatus.FINISHED for request in short)
    assert other.num_computed_tokens == 0, "it is not short, so it waits for the first"
    loop.run()


def test_the_policy_says_how_many_prompt_tokens_a_step_has() -> None:
    seen = []

    class Budget:
        def choose(self, *, num_decode_tokens: int, num_prompt_tokens: int, has_queue: bool) -> int:
            seen.append((num_decode_tokens, num_prompt_tokens, has_queue))
            return 13

    loop = Loop(Setting(budget=40, num_drafts=0, num_blocks=200, max_num_seqs=3, depth=0, caching=False))
    loop.scheduler.prompt_budget = Budget()
    loop.add(job("a", 8, max_tokens=30))
    loop.turn()
    loop.add(job("b", 20, max_tokens=2))
    loop.add(job("c", 7, max_tokens=2))
    loop.turn()
    assert {row.request_id: row.num_tokens for row in loop.plans[-1].rows} == {"a": 1, "b": 13}
    loop.turn()
    assert {row.request_id: row.num_tokens for row in loop.plans[-1].rows} == {"a": 1, "b": 7, "c": 6}
    loop.turn()
    assert seen == [(0, 8, False), (1, 27, False), (1, 14, False), (2, 1, False)], "not asked when no prompt waits"
    loop.turn()
    assert len(seen) == 4
    loop.run()


def test_decodes_take_turns_when_the_budget_is_short() -> None:
    loop = Loop(Setting(budget=5, num_drafts=3, depth=0, accuracy=0.0))
    for name in "abc":
        loop.add(job(name, 1, max_tokens=30))
    turns(loop, 10)
    names = [row.request_id for plan in loop.plans[-6:] for row in plan.rows]
    assert sorted(names) == list("aabbcc")
    assert names[:3] == names[3:]
    loop.run()


def test_latest_admitted_is_preempted_first_and_returns_before_newcomers() -> None:
    loop = Loop(Setting(num_blocks=8, max_num_seqs=3, num_drafts=0, depth=0))
    for name in "abc":
        loop.add(job(name, 30, max_tokens=20))
    loop.turn()
    loop.add(job("d", 3))
    loop.run_until(lambda: loop.scheduler.num_preemptions > 0)
    assert [request.request_id for request in loop.scheduler.running] == ["a", "b"]
    assert [request.request_id for request in loop.scheduler.waiting] == ["c", "d"]
    loop.run()
    admitted = [admission.request_id for plan in loop.plans for admission in plan.admissions]
    assert admitted.index("d") > len(admitted) - 1 - admitted[::-1].index("c")


def test_the_most_urgent_is_admitted_first_and_the_least_urgent_preempted_first() -> None:
    """Lower numbers are more urgent; among equals, first come, first served."""
    loop = Loop(Setting(num_blocks=40, max_num_seqs=1, num_drafts=0, depth=0))
    for name, priority in (("a", 0), ("b", 5), ("c", -3), ("d", 0), ("e", -3)):
        loop.add(job(name, 10, max_tokens=2, priority=priority))
    loop.run()
    admitted = [admission.request_id for plan in loop.plans for admission in plan.admissions]
    assert admitted == ["c", "e", "a", "d", "b"]

    loop = Loop(Setting(num_blocks=8, max_num_seqs=3, num_drafts=0, depth=0))
    for name, priority in (("a", 1), ("b", 2), ("c", -1)):
        loop.add(job(name, 30, max_tokens=20, priority=priority))
    loop.run_until(lambda: loop.scheduler.num_preemptions > 0)
    assert {request.request_id for request in loop.scheduler.running} == {"a", "c"}
    loop.run()


@pytest.mark.parametrize("depth", [0, 1])
def test_latest_admitted_waits_for_blocks_and_keeps_its_own(depth: int) -> None:
    """It would only preempt itself: a has room for its end, and b goes on with a's blocks."""
    loop = Loop(Setting(num_blocks=5, num_drafts=0, depth=depth, caching=False))
    loop.add(job("a", 20, max_tokens=12))
    second = loop.add(job("b", 30, max_tokens=20))
    loop.add(job("c", 5))
    loop.run_until(lambda: loop.requests["a"].status is RequestStatus.FINISHED)
    names = [[row.request_id for row in plan.rows] for plan in loop.plans]
    assert names.count(["a"]) > 5 and not any("c" in step for step in names)
    assert second.num_output_tokens > 0 and len(second.block_ids) == 2
    loop.run()
    assert loop.scheduler.num_preemptions == 0


def test_preempted_row_leaves_the_step_it_was_planned_into(monkeypatch: pytest.MonkeyPatch) -> None:
    drop, num_dropped = OpenStep.drop, 0

    def count(self: OpenStep, request_id: str) -> None:
        nonlocal num_dropped
        num_dropped += request_id in self.rows
        drop(self, request_id)

    monkeypatch.setattr(OpenStep, "drop", count)
    for seed in range(10):
        rotate(seed)
    assert num_dropped > 2


def test_head_of_the_queue_is_not_overtaken_by_one_that_fits() -> None:
    loop = Loop(Setting(num_blocks=7, num_drafts=0, depth=0))
    loop.add(job("a", 40, max_tokens=20))
    loop.turn()
    loop.add(job("b", 70))
    loop.add(job("c", 2))
    loop.run()
    admitted = [admission.request_id for plan in loop.plans for admission in plan.admissions]
    assert admitted == ["a", "b", "c"]


def test_prompt_found_whole_still_computes_its_last_block() -> None:
    loop = Loop(Setting(depth=0))
    loop.run([job("a", 48), Job(request_id="again", prompt=job("a", 48).prompt, arrives=40)])
    (admission,) = [entry for plan in loop.plans for entry in plan.admissions if entry.request_id == "again"]
    first = loop.plans[0].new_blocks[0].block_ids
    assert (admission.num_computed_tokens, admission.last_cached_block) == (32, first[1])
    assert loop.requests["a"].num_cached_tokens == 0
    assert loop.requests["again"].num_cached_tokens == 32
    assert (loop.scheduler.prefix.num_hit_tokens, loop.scheduler.prefix.num_queried_tokens) == (32, 96)


@pytest.mark.parametrize("depth", [0, 1])
def test_next_turn_of_a_conversation_hits_the_output_of_the_last(depth: int) -> None:
    loop = Loop(Setting(depth=depth))
    first = job("a", 32, max_tokens=33)
    loop.run([first])
    prompt = (*first.prompt, *first.expected, 1, 2, 3)
    loop.run([Job(request_id="next", prompt=prompt, arrives=loop.num_turns)])
    assert loop.requests["next"].num_cached_tokens == 64, "the last token of the output was never computed"


def test_num_cached_tokens_is_that_of_the_first_admission() -> None:
    loop = Loop(Setting(num_blocks=7, max_num_seqs=2, num_drafts=0, depth=0))
    loop.add(job("a", 30, max_tokens=40))
    second = loop.add(job("b", 30, max_tokens=40))
    loop.run()
    again = [entry for plan in loop.plans for entry in plan.admissions if entry.request_id == "b"][1:]
    assert second.num_preemptions == len(again) > 0
    assert any(entry.num_computed_tokens for entry in again), "it found its own blocks again"
    assert second.num_cached_tokens == 0


def test_nothing_is_planned_while_steps_in_flight_may_reach_the_end() -> None:
    loop = Loop(Setting(depth=1))
    loop.add(job("a", 5, max_tokens=1))
    assert loop.plan() is not None
    assert loop.plan() is None
    assert loop.scheduler.has_work
    loop.run()
    assert loop.scheduler.plan() is None


@pytest.mark.parametrize("num_turns", range(8))
@pytest.mark.parametrize("depth", [0, 1])
def test_abort_frees_blocks_and_row_at_once(num_turns: int, depth: int) -> None:
    """In the queue, between chunks, in flight, while decoding."""
    loop = Loop(Setting(budget=20, depth=depth, max_num_seqs=1))
    loop.add(job("a", 50, max_tokens=40))
    turns(loop, num_turns)
    request = loop.abort("a")
    assert request is not None
    assert request.status is RequestStatus.FINISHED
    assert loop.scheduler.pool.num_free == loop.scheduler.pool.num_usable
    assert not loop.scheduler.has_work
    assert loop.abort("a") is None
    loop.add(job("b", 50, max_tokens=3))
    loop.run()


def test_abort_of_an_unknown_request_is_none() -> None:
    assert Loop(Setting()).abort("nobody") is None


class _KeepTwo:
    """A stop rule that ends every output with the second new token."""

    def check(self, state: RequestState, token_ids: tuple[int, ...]) -> tuple[int, Stop | None]:
        return min(2, len(token_ids)), Stop(FinishReason.STOP) if len(token_ids) > 1 else None


def test_what_is_behind_the_stop_is_in_no_count() -> None:
    """Tokens, draft marks, acceptance, digest, logprobs and the prefix cache end with the token that stopped."""
    scheduler = Scheduler(
        groups=(BlockGroup(block_size=SIZE),),
        num_blocks=(8,),
        max_num_seqs=1,
        max_num_batched_tokens=64,
        num_drafts=3,
        num_lookahead=0,
        enable_prefix_caching=True,
        stop_rule=_KeepTwo(),
    )
    request = scheduler.add(
        Request(
            request_id="a",
            prompt_token_ids=(5,) * 14,
            params=SamplingParams(logprobs=1),
            seed=0,
            eos_token_ids=(),
            max_total_tokens=60,
        )
    )

    def step(token_ids: tuple[int, ...], num_drafts: int) -> None:
        plan = scheduler.plan()
        assert plan is not None
        logprobs = tuple(
            TokenLogprobs(logprob=-float(token_id), rank=3, top_ids=(9,), top_logprobs=(-0.5,))
            for token_id in token_ids
        )
        row = RowResult(
            request_id="a",
            epoch=plan.rows[0].epoch,
            token_ids=token_ids,
            num_drafts=num_drafts,
            num_accepted=len(token_ids) - 1,
            logits_hashes=tuple(100 + token_id for token_id in token_ids),
            logprobs=logprobs,
        )
        scheduler.settle(plan, StepResult(step_id=plan.step_id, rows=(row,)))

    step((1,), 0)
    step((2, 3, 4, 5), 3)
    assert request.finish_reason is FinishReason.STOP
    assert request.output_token_ids == [1, 2, 3]
    assert request.is_draft == [False, True, True]
    assert request.logits_digest == fold(fold(fold(0, 101), 102), 103)
    assert [sorted(entry) for entry in request.logprobs] == [[1, 9], [2, 9], [3, 9]]
    assert (request.logprobs[1][2].logprob, request.logprobs[1][2].rank, request.logprobs[1][9].rank) == (
        -2.0,
        3,
        1,
    )
    stats = request.speculation
    assert (stats.num_steps, stats.num_drafts, stats.num_draft_tokens) == (2, 1, 3)
    assert (stats.num_accepted_tokens, stats.num_accepted_tokens_per_pos) == (2, [1, 1, 0])
    again = Request(
        request_id="b",
        prompt_token_ids=(*[5] * 14, 1, 2, 3, 4),
        params=SamplingParams(),
        seed=0,
        eos_token_ids=(),
        max_total_tokens=60,
    )
    assert len(scheduler.prefix.match(RequestState(request=again)).block_ids[0]) == 1
