"""plan() and settle(): continuous batching with chunked prompts, preemption and steps in flight.

The host plans with bounds: a decode row in flight may emit 1 … k + 1 tokens, so blocks are reserved for the most
it can reach, and only confirmed tokens are published. Knows no text (it asks the rules of `text_rules.py`) and no
device.

    request:  | computed ....... | confirmed | in flight (1 … k+1 a step) | this step's 1 + k | lookahead |
              0                              num_tokens                                        reserved
"""

import itertools
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from outrider.core.errors import RequestError
from outrider.core.kv_groups import BlockGroup
from outrider.core.outputs import FinishReason, SpeculationStats
from outrider.core.plan import RowAdmission, RowPlan, RowResult, StepPlan, StepResult
from outrider.core.request import Request
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.draft_policy import DraftPolicy, FixedDrafts
from outrider.scheduler.kv_blocks import KVBlocks
from outrider.scheduler.pooled_row import pooled_row
from outrider.scheduler.prefix import Hit, PrefixCache
from outrider.scheduler.prompt_budget import FixedBudget, PromptBudget
from outrider.scheduler.request_state import RequestState, RequestStatus
from outrider.scheduler.results import confirm_tokens, score_prompt
from outrider.scheduler.snapshot_index import SnapshotIndex
from outrider.scheduler.snapshots import Snapshots
from outrider.scheduler.step import OpenStep
from outrider.scheduler.step_limit import StepLimit
from outrider.scheduler.text_rules import Masks, StopRule, TokenRule
from outrider.scheduler.work_times import WorkTimes


class Scheduler:
    """All requests of one engine, waiting and running."""

    def __init__(
        self,
        *,
        groups: Sequence[BlockGroup],
        num_blocks: Sequence[int],
        max_num_seqs: int,
        max_num_batched_tokens: int,
        num_drafts: int,
        num_lookahead: int,
        enable_prefix_caching: bool,
        stop_rule: StopRule,
        token_rule: TokenRule | None = None,
        draft_policy: DraftPolicy | None = None,
        prompt_budget: PromptBudget | None = None,
        num_snapshots: int | None = None,
        work_times: WorkTimes | None = None,
        needs_whole_prompts: bool = False,
    ) -> None:
        """`num_blocks`: blocks of each group, the null block included.
        `draft_policy`: chooses the number of drafts of each step, at most `num_drafts`; None: always `num_drafts`.
        `prompt_budget`: chooses the number of prompt tokens of each step; None: as many as fit.
        `token_rule`: needed if a request has a grammar.
        `num_snapshots`: snapshots of states that fit in memory; None if the model has no states.
        `work_times`: times of steps, which limit what a step computes beside other calls' rows; None: no limit.
        `needs_whole_prompts`: a prompt is never cut into chunks; it waits until a step has room for all of it."""
        most_ahead = max(max_num_batched_tokens, 1 + num_drafts) + 1 + num_lookahead
        self.blocks = KVBlocks(groups, num_blocks, most_ahead=most_ahead)
        index = SnapshotIndex(num_snapshots) if num_snapshots is not None else None
        self.prefix = PrefixCache(self.blocks.pools, groups, enabled=enable_prefix_caching, snapshots=index)
        self._snapshots = Snapshots(self.prefix) if self.prefix.has_snapshots else None
        self.running: list[RequestState] = []  # in order of admission
        self.waiting: list[RequestState] = []  # by priority, then in order of arrival
        self.draft_policy: DraftPolicy = draft_policy or FixedDrafts(num_drafts)
        self._states: dict[str, RequestState] = {}
        self.prompt_budget: PromptBudget = prompt_budget or FixedBudget(max_num_batched_tokens)
        self._budget = max_num_batched_tokens
        self._work_times = work_times
        self._calls: Counter[str] = Counter()
        """Number of unfinished requests of each call."""
        self._num_drafts = num_drafts
        self._num_lookahead = num_lookahead
        self._stop_rule = stop_rule
        self._token_rule = token_rule
        self._needs_whole_prompts = needs_whole_prompts
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._num_steps = 0
        self._arrivals = itertools.count(1)
        self._epochs = itertools.count(1)  # one for all: an id may return while old results are in flight
        self.num_preemptions = 0
        self.num_prefill_tokens = 0  # planned, replays after preemption included
        self.num_output_tokens = 0  # emitted by all requests

    def add(self, request: Request) -> RequestState:
        """Queue a request. Raises RequestError if its id is in use, or if its blocks can never fit."""
        if request.request_id in self._states:
            raise RequestError(f"request_id={request.request_id!r} is in use. Wait for it, or take another id.")
        self.blocks.check(request)
        state = RequestState(
            request=request,
            epoch=next(self._epochs),
            arrival=next(self._arrivals),
            speculation=SpeculationStats.zero(self._num_drafts),
        )
        self._states[request.request_id] = state
        self._calls[request.call_id] += 1
        self._queue(state)
        return state

    def _queue(self, state: RequestState) -> None:
        """Insert a request in order. A preempted one keeps its arrival: it precedes later ones of its priority."""
        insort(self.waiting, state, key=_urgency)

    def abort(self, request_id: str) -> RequestState | None:
        """End a request, waiting or running; its results in flight are dropped. None if there is no such request."""
        state = self._states.get(request_id)
        if state is not None:
            if state.status is RequestStatus.WAITING:
                self.waiting.remove(state)
            self._finish(state, FinishReason.ABORT)
        return state

    def find(self, request_id: str) -> RequestState | None:
        """The request with this id, if it is not finished."""
        return self._states.get(request_id)

    def requests(self) -> Iterable[RequestState]:
        """Every request that is not finished."""
        return self._states.values()

    @property
    def pool(self) -> BlockPool:
        """The pool of the first group."""
        return self.blocks.pools[0]

    @property
    def has_work(self) -> bool:
        return bool(self._states)

    @property
    def num_steps(self) -> int:
        """Steps planned so far."""
        return self._num_steps

    def plan(self) -> StepPlan | None:
        """The next step, or None if nothing can run before a step in flight is settled."""
        step = OpenStep(left=self._budget)
        if self._work_times is not None and len(self._calls) > 1:
            step.limit = StepLimit(self._work_times)
        if self._snapshots is not None:
            self._snapshots.save_chunk_ends()
        self._plan_decodes(step)
        self._limit_prompts(step)
        self._plan_prompts(step)
        admissions = [] if step.is_short else self._admit(step)
        if not step.rows:
            return None
        self._num_steps += 1
        return StepPlan(
            step_id=self._num_steps,
            admissions=tuple(admissions),
            new_blocks=step.new_blocks(),
            rows=tuple(step.rows.values()),
            num_proposals=self._ask_for_drafts(step),
            state_saves=self._snapshots.take() if self._snapshots is not None else (),
        )

    def _ask_for_drafts(self, step: OpenStep) -> int:
        """Choose the number of drafts of this step; requests that sample in it may verify as many in their next one."""
        states = [self._states[row.request_id] for row in step.rows.values() if row.does_sample]
        num_proposals = self.draft_policy.choose(states)
        assert 0 <= num_proposals <= self._num_drafts, f"{num_proposals} drafts, and k = {self._num_drafts}"
        for state in states:
            state.num_proposals = num_proposals
        return num_proposals

    def _plan_decodes(self, step: OpenStep) -> None:
        num_lookahead, limit = self._num_lookahead, step.limit
        states = sorted(self.running, key=_last_step)
        if limit is not None:
            states = _one_of_each([state for state in states if self._can_decode(state)])
        for state in states:
            num_known, most = len(state.token_ids), state.max_total_tokens
            if state.row < 0 or state.num_scheduled_tokens < num_known:
                continue  # preempted for this same step, or in its prompt
            if num_known + state.num_steps_in_flight >= most:
                continue  # the steps in flight reach the end
            num_drafts = self._num_drafts_of(state)
            count = 1 + num_drafts
            if count > step.left:
                break
            if limit is not None and not limit.takes(state.request.call_id, count, context=num_known):
                break
            bound = num_known + state.num_tokens_in_flight
            reach = bound + count + num_lookahead
            if min(reach, most) <= state.num_reserved_tokens or self._reserve(state, min(reach, most), step):
                self._put_row(state, step, num_tokens=count, num_drafts=num_drafts, length=bound + num_drafts)
        if limit is not None:
            limit.begin()

    def _can_decode(self, state: RequestState) -> bool:
        num_known = len(state.token_ids)
        return (
            state.num_scheduled_tokens >= num_known and num_known + state.num_steps_in_flight < state.max_total_tokens
        )

    def masks(self, plan: StepPlan) -> list[Masks | None]:
        """Masks of the samples of each row with a grammar, in the order of the plan, as `TokenRule.masks` gives them;
        None if the request has ended. Every earlier step must be settled: masks need its tokens and drafts."""
        assert self._token_rule is not None, "a request has a grammar, and there is no token rule"
        alive = {}
        for row in plan.rows:
            state = self._states.get(row.request_id) if row.has_grammar else None
            if state is not None and state.epoch == row.epoch:
                alive[row.request_id] = (state, state.drafts[: row.num_drafts])
        made = dict(zip(alive, self._token_rule.masks(list(alive.values())), strict=True))
        return [made.get(row.request_id) for row in plan.rows if row.has_grammar]

    def _num_drafts_of(self, state: RequestState) -> int:
        """Number of drafts to verify: those of its last step, or fewer if the request asks for fewer."""
        asked = state.params.num_speculative_tokens
        return state.num_proposals if asked is None else min(asked, state.num_proposals)

    def _limit_prompts(self, step: OpenStep) -> None:
        """Leave as many tokens as the policy chooses for prompts, those of requests that may be admitted included."""
        num_waiting = 0
        for state in self._prompts():
            if num_waiting >= step.left:
                break
            num_waiting += _num_left(state)
        if num_waiting:
            chosen = self.prompt_budget.choose(
                num_decode_tokens=self._budget - step.left,
                num_prompt_tokens=min(num_waiting, step.left),
                has_queue=len(self.waiting) > len(self._free_rows),
            )
            step.left = min(step.left, chosen)
        if num_waiting and step.limit is not None:
            first = next(self._prompts())
            step.left = min(step.left, step.limit.most_tokens(context=first.num_scheduled_tokens))

    def _prompts(self) -> Iterator[RequestState]:
        """Requests with prompt tokens to compute: running ones, then those that have a row if they are admitted."""
        yield from (state for state in self.running if state.is_prefilling)
        yield from self.waiting[: len(self._free_rows)]

    def _plan_prompts(self, step: OpenStep) -> None:
        for state in list(self.running):
            if state.row >= 0 and state.is_prefilling and step.left > 0:  # or preempted for this same step
                self._put_chunk(state, step)

    def _most_prompt_tokens(self, state: RequestState, step: OpenStep) -> int:
        """Tokens of this step that the request may take. One whose prompt does not fit leaves up to half of them to
        later requests with short prompts, so that a long prompt delays no short one by more than a factor of two."""
        if _num_left(state) <= step.left:
            return step.left
        half, reserved = step.left // 2, 0
        for other in self._prompts():
            if other.request_id not in step.rows and other is not state and _num_left(other) <= half - reserved:
                reserved += _num_left(other)
        return step.left - reserved

    def _put_chunk(self, state: RequestState, step: OpenStep) -> None:
        start = state.num_scheduled_tokens
        count = min(state.num_tokens - start, self._most_prompt_tokens(state, step))
        if step.limit is not None:
            count = min(count, step.limit.most_tokens(context=start, is_scored=state.num_unscored_tokens > 0))
            if count == 0:
                return
        if self._snapshots is not None:
            count = self._snapshots.chunk_length(state, start, count)
        reach = start + count + 1  # the drafter's KV of a chunk is one index ahead
        if start + count == state.num_tokens:
            reach = min(reach + self._num_lookahead, state.max_total_tokens)
        if reach > state.num_reserved_tokens and not self._reserve(state, reach, step):
            return
        if self._snapshots is not None and count > 1:
            self._snapshots.launch_chunk(state, start + count)
        state.num_scheduled_tokens += count
        self.num_prefill_tokens += count
        # token p scores token p + 1; those known before a preemption are not scored again
        first_scored = max(start, state.num_prompt_tokens - 1 - state.num_unscored_tokens)
        end_scored = min(start + count, state.num_prompt_tokens - 1)
        self._put_row(
            state,
            step,
            num_tokens=count,
            num_drafts=0,
            length=start + count,
            scored=range(first_scored - start, max(first_scored, end_scored) - start),
        )

    def _put_row(
        self,
        state: RequestState,
        step: OpenStep,
        *,
        num_tokens: int,
        num_drafts: int,
        length: int,
        scored: range = range(0),
    ) -> None:
        does_sample = state.num_scheduled_tokens >= len(state.token_ids)
        if does_sample:
            state.num_steps_in_flight += 1
            state.num_tokens_in_flight += 1 + num_drafts
        state.last_step = self._num_steps + 1
        step.put(
            RowPlan(
                request_id=state.request_id,
                epoch=state.epoch,
                row=state.row,
                num_tokens=num_tokens,
                num_drafts=num_drafts,
                does_sample=does_sample,
                length_bound=min(length, state.max_total_tokens),
                params=state.params,
                first_scored=scored.start,
                num_scored=len(scored),
                has_grammar=state.has_grammar and does_sample,
                pooled=pooled_row(state, length - num_tokens, num_tokens) if state.pooling is not None else None,
            )
        )

    def _admit(self, step: OpenStep) -> list[RowAdmission]:
        admissions: list[RowAdmission] = []
        while self.waiting and self._free_rows and step.left > 0:
            state = self._next_waiting(step)
            if self._needs_whole_prompts and _num_left(state) > step.left:
                break
            hit = self.prefix.match(state) if state.reads_prefix_cache else self.prefix.no_hit()
            if step.limit is not None and step.limit.most_tokens(context=hit.num_tokens) == 0:
                break
            reach = min(state.num_tokens + 1 + self._num_lookahead, state.max_total_tokens)
            if not self.blocks.admit(state, hit, reach):
                break
            self.waiting.remove(state)
            state.num_published_tokens = hit.num_tokens
            state.num_computed_tokens = state.num_scheduled_tokens = hit.num_tokens
            if state.num_cached_tokens < 0:
                state.num_cached_tokens = hit.num_tokens
            self.prefix.count_lookup(state, hit)
            if self._snapshots is not None:
                self._snapshots.begin(state, num_shared_tokens=hit.num_shared_tokens)
            state.row = self._free_rows.pop()
            state.status = RequestStatus.RUNNING
            self.running.append(state)
            step.note_growth(state, is_new=True)
            admissions.append(self._admission(state, hit))
            self._put_chunk(state, step)
        return admissions

    def _next_waiting(self, step: OpenStep) -> RequestState:
        """The head of the queue. While a long prompt is being computed, a head that is long, too, is overtaken by short
        prompts of its priority: it would take what the first one leaves to them. It waits for that one at most."""
        head = self.waiting[0]
        if _num_left(head) > step.left and any(state.is_prefilling for state in self.running):
            for state in self.waiting[1 : len(self._free_rows)]:
                if state.params.priority == head.params.priority and _num_left(state) <= step.left:
                    return state
        return head

    def _admission(self, state: RequestState, hit: Hit) -> RowAdmission:
        request = state.request
        return RowAdmission(
            row=state.row,
            request_id=state.request_id,
            token_ids=tuple(state.token_ids),
            num_prompt_tokens=state.num_prompt_tokens,
            num_computed_tokens=state.num_computed_tokens,
            last_cached_block=hit.block_ids[0][-1] if hit.num_tokens else -1,
            snapshot_id=self.prefix.find_snapshot(state, hit),
            max_total_tokens=state.max_total_tokens + (state.pooling is not None),  # a row with room for none is over
            params=state.params,
            seed=request.seed,
            stop_token_ids=request.stop_token_ids,
            completion_index=request.completion_index,
            bad_words=request.bad_words,
        )

    def _reserve(self, state: RequestState, num_tokens: int, step: OpenStep) -> bool:
        """Reserve blocks up to `num_tokens`; until they fit, preempt the least urgent request that was admitted last.

        The oldest of equally urgent requests waits for no other (alone it always fits, see `KVBlocks.check`), so each
        gets its turn. Returns False if the request itself would be preempted: it waits.
        """
        while not self.blocks.has_free(state, num_tokens):
            step.is_short = True
            victim = max(reversed(self.running), key=lambda other: other.params.priority)
            if victim is state:
                return False
            step.drop(victim.request_id)
            self._preempt(victim)
        step.note_growth(state)
        self.blocks.reserve(state, num_tokens)
        return True

    def _preempt(self, state: RequestState) -> None:
        self._leave(state)
        del state.pooled[:]
        state.status = RequestStatus.WAITING
        state.num_preemptions += 1
        self.num_preemptions += 1
        self._queue(state)

    def _leave(self, state: RequestState) -> None:
        """Free a request's row and blocks; its results in flight are dropped when they arrive."""
        state.epoch = next(self._epochs)
        if state.row >= 0:
            if self._snapshots is not None:
                self._snapshots.end(state)
            self.running.remove(state)
            self._free_rows.append(state.row)
            state.row = -1
        self.blocks.release(state)
        state.num_published_tokens = 0
        state.num_computed_tokens = 0
        state.num_scheduled_tokens = 0
        state.num_steps_in_flight = 0
        state.num_tokens_in_flight = 0
        state.drafts = ()

    def settle(self, plan: StepPlan, result: StepResult) -> list[RequestState]:
        """Apply the results of a step. Returns the requests that changed, in the order of the plan."""
        assert plan.step_id == result.step_id, f"step {plan.step_id} settled with result {result.step_id}"
        changed = []
        for row_plan, row_result in zip(plan.rows, result.rows, strict=True):
            state = self._states.get(row_result.request_id)
            if state is None or state.epoch != row_result.epoch:
                continue
            self._settle_row(state, row_plan, row_result)
            changed.append(state)
        return changed

    def _settle_row(self, state: RequestState, plan: RowPlan, result: RowResult) -> None:
        before = state.num_computed_tokens
        if result.pooled is not None:
            state.pooled.extend(result.pooled)
        num_computed = before + plan.num_tokens - plan.num_drafts + result.num_accepted
        reason = self._settle_sample(state, plan, result) if plan.does_sample else None
        if result.prompt_logprobs:
            score_prompt(state, result.prompt_logprobs)
        state.num_computed_tokens = min(num_computed, len(state.token_ids))
        self.prefix.publish(state)
        if self.blocks.has_windows:
            self.blocks.release_passed(state)
        if self._snapshots is not None:
            is_decode = plan.num_tokens == 1 + plan.num_drafts
            self._snapshots.settle(state, num_computed_before=before, is_decode=is_decode)
        if reason is not None:
            self._finish(state, reason)

    def _settle_sample(self, state: RequestState, plan: RowPlan, result: RowResult) -> FinishReason | None:
        """Append the tokens that a row emitted, up to a stop. Returns the reason if the request ends, else None."""
        state.num_steps_in_flight -= 1
        state.num_tokens_in_flight -= 1 + plan.num_drafts
        if state.pooling is not None:
            return FinishReason.STOP
        num_tokens_left = state.max_total_tokens - len(state.token_ids)
        self.draft_policy.see_row(
            state, num_drafts=min(plan.num_drafts, num_tokens_left - 1), num_accepted=result.num_accepted
        )
        rule = self._token_rule if state.has_grammar else None
        assert rule is not None or not state.has_grammar, "a request has a grammar, and there is no token rule"
        if rule is not None:
            state.error = rule.failure(state)
            if state.error is not None:
                return FinishReason.ERROR  # its tokens were chosen without a mask
        assert result.token_ids, f"the step emitted nothing for request {state.request_id}"
        num_kept, stop = self._stop_rule.check(state, result.token_ids)
        assert 1 <= num_kept <= len(result.token_ids), f"the stop rule kept {num_kept} of {len(result.token_ids)}"
        confirm_tokens(state, result, num_kept=num_kept)
        self.num_output_tokens += num_kept
        state.num_scheduled_tokens = len(state.token_ids)
        if rule is not None:
            state.drafts = result.drafts
            state.error = rule.accept(state, result.token_ids[:num_kept])
            if state.error is not None:
                return FinishReason.ERROR
        if stop is not None:
            state.stop_reason = stop.stop_reason
            return stop.reason
        return FinishReason.LENGTH if num_kept >= num_tokens_left else None

    def _finish(self, state: RequestState, reason: FinishReason) -> None:
        self._leave(state)
        state.status = RequestStatus.FINISHED
        state.finish_reason = reason
        del self._states[state.request_id]
        call_id = state.request.call_id
        self._calls[call_id] -= 1
        if not self._calls[call_id]:
            del self._calls[call_id]


_last_step = attrgetter("last_step")


def _one_of_each(states: Sequence[RequestState]) -> list[RequestState]:
    """The first request of each call, then all others."""
    calls: dict[str, list[RequestState]] = {}
    for state in states:
        calls.setdefault(state.request.call_id, []).append(state)
    firsts = [listed[0] for listed in calls.values()]
    return firsts + [state for state in states if state is not calls[state.request.call_id][0]]


def _num_left(state: RequestState) -> int:
    """Known tokens of a request that no step has computed or will compute; cached ones are not known before it runs."""
    return state.num_tokens - state.num_scheduled_tokens


def _urgency(state: RequestState) -> tuple[int, int]:
    return state.params.priority, state.arrival
