"""plan() and settle(): continuous batching with chunked prompts, preemption and steps in flight.

The host plans with bounds: a decode row in flight may emit 1 … k + 1 tokens, so blocks are reserved for the most
it can reach, and only confirmed tokens are published. Knows no text (a `StopChecker` does) and no device.

    request:  | computed ....... | confirmed | in flight (1 … k+1 a step) | this step's 1 + k | lookahead |
              0                              num_tokens                                        reserved
"""

import itertools
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from outrider.core.digest import fold
from outrider.core.errors import RequestError
from outrider.core.outputs import FinishReason, Logprob
from outrider.core.plan import (
    STATE_CHUNK,
    NewBlocks,
    RowAdmission,
    RowPlan,
    RowResult,
    StateSave,
    StepPlan,
    StepResult,
    TokenLogprobs,
)
from outrider.core.request import Request, RequestStatus
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.draft_policy import DraftPolicy, FixedDrafts
from outrider.scheduler.prefix import PrefixCache
from outrider.scheduler.states import StateSlots


class StopChecker(Protocol):
    """Decides where an output ends; implemented where text is known."""

    def check(self, request: Request, token_ids: tuple[int, ...]) -> tuple[int, FinishReason | None]:
        """How many of the newly emitted `token_ids` belong to the output, and why it ends if it does."""
        ...


class Grammars(Protocol):
    """Says which tokens a request with a grammar may produce; implemented where text is known."""

    def masks(self, request: Request, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """One mask for the next token, and one behind each leading draft that the grammar allows."""
        ...

    def accept(self, request: Request, token_ids: Sequence[int]) -> str | None:
        """Follow confirmed tokens; what is wrong if the output cannot go on, else None."""
        ...


@dataclass(slots=True)
class _Step:
    """The step being planned: rows so far, and the token budget that is left."""

    left: int
    rows: dict[str, RowPlan] = field(default_factory=dict)
    grown: dict[str, tuple[Request, int]] = field(default_factory=dict)
    """Requests that got blocks in this plan, with the number they had before."""
    is_short: bool = False
    """A running request lacked blocks: nobody new is admitted to the ones it waits for."""

    def put(self, row: RowPlan) -> None:
        self.rows[row.request_id] = row
        self.left -= row.num_tokens

    def drop(self, request_id: str) -> None:
        self.grown.pop(request_id, None)
        if request_id in self.rows:
            self.left += self.rows.pop(request_id).num_tokens


class Scheduler:
    """All requests of one engine, waiting and running."""

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        num_drafts: int,
        num_lookahead: int,
        enable_prefix_caching: bool,
        stop_checker: StopChecker,
        grammars: Grammars | None = None,
        draft_policy: DraftPolicy | None = None,
        num_state_slots: int | None = None,
    ) -> None:
        """`draft_policy`: how many drafts a step has, at most `num_drafts`; None has always that many.
        `num_state_slots`: snapshots of a hybrid's states; None where the model has no states."""
        self.pool = BlockPool(num_blocks)
        states = StateSlots(num_state_slots) if num_state_slots is not None else None
        self.prefix = PrefixCache(self.pool, block_size, enabled=enable_prefix_caching, states=states)
        self._saves: list[StateSave] = []  # for the next step, before anything else
        self._chunk_ends: list[tuple[Request, int]] = []  # requests whose state the last step moved, and their epochs
        self.running: list[Request] = []  # in order of admission
        self.waiting: list[Request] = []  # by priority, then in order of arrival
        self._requests: dict[str, Request] = {}
        self._block_size = block_size
        self._moves_within_blocks = self.prefix.has_states and block_size > STATE_CHUNK
        self._budget = max_num_batched_tokens
        self._num_drafts = num_drafts
        self._num_lookahead = num_lookahead
        self._stop_checker = stop_checker
        self._grammars = grammars
        self._draft_policy = draft_policy or FixedDrafts(num_drafts)
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._num_steps = 0
        self._arrivals = itertools.count(1)
        self._epochs = itertools.count(1)  # one for all: an id may return while old results are in flight
        self.num_preemptions = 0
        self.num_prefill_tokens = 0  # planned, replays after preemption included
        self.num_output_tokens = 0  # emitted by all requests

    def add(self, request: Request) -> None:
        """Queue a request; refuse one that could never hold its blocks."""
        if request.request_id in self._requests:
            raise RequestError(f"request_id={request.request_id!r} is in use. Wait for it, or take another id.")
        needed = self._num_blocks(request.max_total_tokens)
        if needed > self.pool.num_usable:
            raise RequestError(
                f"request {request.request_id}: {request.max_total_tokens} tokens (prompt and max_tokens) need "
                f"{needed} KV blocks of {self._block_size}, and there are {self.pool.num_usable}. "
                "Lower max_tokens, shorten the prompt, or give the engine more blocks."
            )
        request.epoch = next(self._epochs)
        request.arrival = next(self._arrivals)
        self._requests[request.request_id] = request
        self._queue(request)

    def _queue(self, request: Request) -> None:
        """A preempted request keeps its arrival, so it waits before those of its priority that came later."""
        insort(self.waiting, request, key=_urgency)

    def abort(self, request_id: str) -> Request | None:
        """Take a request back, wherever it stands; results still in flight for it are dropped."""
        request = self._requests.get(request_id)
        if request is not None:
            if request.status is RequestStatus.WAITING:
                self.waiting.remove(request)
            self._finish(request, FinishReason.ABORT)
        return request

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def num_steps(self) -> int:
        """Steps planned so far."""
        return self._num_steps

    def plan(self) -> StepPlan | None:
        """The next step, or None where nothing can run before a step in flight is settled."""
        step = _Step(left=self._budget)
        self._save_states_of_chunks()
        self._plan_decodes(step)
        self._plan_prompts(step)
        admissions = [] if step.is_short else self._admit(step)
        if not step.rows:
            return None
        self._num_steps += 1
        saves, self._saves = self._saves, []
        return StepPlan(
            step_id=self._num_steps,
            admissions=tuple(admissions),
            new_blocks=tuple(
                NewBlocks(row=request.row, first_index=first, block_ids=tuple(request.block_ids[first:]))
                for request, first in step.grown.values()
            ),
            rows=tuple(step.rows.values()),
            num_proposals=self._ask_for_drafts(step),
            state_saves=tuple(saves),
        )

    def _ask_for_drafts(self, step: _Step) -> int:
        """How many drafts this step makes; whoever samples in it may have as many in its next one."""
        requests = [self._requests[row.request_id] for row in step.rows.values() if row.does_sample]
        num_proposals = self._draft_policy.choose(requests)
        assert 0 <= num_proposals <= self._num_drafts, f"{num_proposals} drafts, and k = {self._num_drafts}"
        for request in requests:
            request.num_proposals = num_proposals
        return num_proposals

    def _plan_decodes(self, step: _Step) -> None:
        num_lookahead, block_size = self._num_lookahead, self._block_size
        for request in sorted(self.running, key=_last_step):
            num_known, most = len(request.token_ids), request.max_total_tokens
            if request.row < 0 or request.num_scheduled_tokens < num_known:
                continue  # preempted for this very step, or in its prompt
            if num_known + request.num_steps_in_flight >= most:
                continue  # the steps in flight reach the end
            if request.has_grammar and request.num_steps_in_flight:
                continue  # its masks need the tokens and drafts of that step: it rides every second one
            num_drafts = self._num_drafts_of(request)
            masks = self._masks(request, num_drafts)
            if request.has_grammar:
                num_drafts = len(masks) - 1
            count = 1 + num_drafts
            if count > step.left:
                break
            bound = num_known + request.num_tokens_in_flight
            reach = bound + count + num_lookahead
            if min(reach, most) <= len(request.block_ids) * block_size or self._reserve(request, reach, step):
                self._put_row(
                    request, step, num_tokens=count, num_drafts=num_drafts, length=bound + num_drafts, masks=masks
                )

    def _masks(self, request: Request, num_drafts: int) -> tuple[bytes, ...]:
        """Of a request with a grammar: for the next token, and behind each draft that may stay."""
        if not request.has_grammar:
            return ()
        assert self._grammars is not None, "a grammar was let in, and nobody follows it"
        return self._grammars.masks(request, request.drafts[:num_drafts])

    def _num_drafts_of(self, request: Request) -> int:
        """What its last step was asked to make, or fewer where the request asks for fewer."""
        asked = request.params.num_speculative_tokens
        return request.num_proposals if asked is None else min(asked, request.num_proposals)

    def _plan_prompts(self, step: _Step) -> None:
        for request in list(self.running):
            if request.is_prefilling and step.left > 0:
                self._put_chunk(request, step)

    def _put_chunk(self, request: Request, step: _Step) -> None:
        start = request.num_scheduled_tokens
        count = min(request.num_tokens - start, step.left)
        if start < request.num_shared_tokens < start + count:
            count = request.num_shared_tokens - start  # others share the blocks up to here: a state worth a stop
        elif self._moves_within_blocks and (whole := (start + count) // self._block_size * self._block_size) > start:
            count = whole - start  # at the chunk's own end the state would stand within a block
        if count > 1:
            request.state_reach = (start + count) // STATE_CHUNK * STATE_CHUNK
            self._chunk_ends.append((request, request.epoch))
        request.num_scheduled_tokens += count
        self.num_prefill_tokens += count
        # token p scores token p + 1; those known before a preemption are not scored again
        first_scored = max(start, request.num_prompt_tokens - 1 - request.num_unscored_tokens)
        end_scored = min(start + count, request.num_prompt_tokens - 1)
        self._put_row(
            request,
            step,
            num_tokens=count,
            num_drafts=0,
            length=start + count,
            scored=range(first_scored - start, max(first_scored, end_scored) - start),
            masks=() if request.is_prefilling else self._masks(request, 0),
        )

    def _put_row(
        self,
        request: Request,
        step: _Step,
        *,
        num_tokens: int,
        num_drafts: int,
        length: int,
        scored: range = range(0),
        masks: tuple[bytes, ...] = (),
    ) -> None:
        does_sample = request.num_scheduled_tokens >= len(request.token_ids)
        if does_sample:
            request.num_steps_in_flight += 1
            request.num_tokens_in_flight += 1 + num_drafts
        request.last_step = self._num_steps + 1
        step.put(
            RowPlan(
                request_id=request.request_id,
                epoch=request.epoch,
                row=request.row,
                num_tokens=num_tokens,
                num_drafts=num_drafts,
                does_sample=does_sample,
                length_bound=min(length, request.max_total_tokens),
                params=request.params,
                first_scored=scored.start,
                num_scored=len(scored),
                masks=masks,
            )
        )

    def _admit(self, step: _Step) -> list[RowAdmission]:
        admissions: list[RowAdmission] = []
        while self.waiting and self._free_rows and step.left > 0:
            request = self.waiting[0]
            cached = self.prefix.match(request) if request.num_unscored_tokens <= 0 else []
            reserved = min(request.num_tokens + 1 + self._num_lookahead, request.max_total_tokens)
            fresh = self._num_blocks(reserved) - len(cached)
            if fresh > self.pool.num_free - sum(self.pool.is_free(block_id) for block_id in cached):
                break
            self.waiting.pop(0)
            for block_id in cached:
                self.pool.share(block_id)
            request.block_ids = cached + self.pool.allocate(fresh)
            request.num_cached_blocks = len(cached)
            request.num_computed_tokens = request.state_reach = len(cached) * self._block_size
            request.num_scheduled_tokens = request.num_computed_tokens
            if request.num_cached_tokens < 0:
                request.num_cached_tokens = request.num_computed_tokens
            self.prefix.count_lookup(request, len(cached))
            request.row = self._free_rows.pop()
            request.status = RequestStatus.RUNNING
            self.running.append(request)
            step.grown[request.request_id] = (request, 0)
            admissions.append(self._admission(request, cached))
            self._put_chunk(request, step)
        return admissions

    def _admission(self, request: Request, cached: list[int]) -> RowAdmission:
        return RowAdmission(
            row=request.row,
            request_id=request.request_id,
            token_ids=tuple(request.token_ids),
            num_prompt_tokens=request.num_prompt_tokens,
            num_computed_tokens=request.num_computed_tokens,
            last_cached_block=cached[-1] if cached else -1,
            state_slot=self.prefix.state_slot(request, len(cached)),
            max_total_tokens=request.max_total_tokens,
            params=request.params,
            seed=request.seed,
            stop_token_ids=(*request.eos_token_ids, *(request.params.stop_token_ids or ())),
            completion_index=request.completion_index,
            bad_words=request.bad_words,
        )

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)

    def _reserve(self, request: Request, num_tokens: int, step: _Step) -> bool:
        """Blocks up to `num_tokens`; preempts until they fit, the least urgent first, of those the latest admitted.

        Of equally urgent ones the oldest never waits (alone it always fits, see `add`), so each gets its turn. A
        request that would be its own victim waits: False.
        """
        fresh = self._num_blocks(min(num_tokens, request.max_total_tokens)) - len(request.block_ids)
        while fresh > self.pool.num_free:
            step.is_short = True
            victim = max(reversed(self.running), key=lambda other: other.params.priority)
            if victim is request:
                return False
            step.drop(victim.request_id)
            self._preempt(victim)
        if fresh > 0:
            step.grown.setdefault(request.request_id, (request, len(request.block_ids)))
            request.block_ids.extend(self.pool.allocate(fresh))
        return True

    def _preempt(self, request: Request) -> None:
        self._leave(request)
        request.status = RequestStatus.WAITING
        request.num_preemptions += 1
        self.num_preemptions += 1
        self._queue(request)

    def _leave(self, request: Request) -> None:
        """Give back row and blocks; results in flight belong to the past."""
        self._save_state_at_end(request)
        request.epoch = next(self._epochs)
        if request.row >= 0:
            self.running.remove(request)
            self._free_rows.append(request.row)
            request.row = -1
        self.pool.release(reversed(request.block_ids))
        request.block_ids = []
        request.num_cached_blocks = 0
        request.num_computed_tokens = 0
        request.num_scheduled_tokens = 0
        request.num_steps_in_flight = 0
        request.num_tokens_in_flight = 0
        request.drafts = ()

    def _save_states_of_chunks(self) -> None:
        """Prompt chunks of the last step left states behind their last multiple of STATE_CHUNK tokens."""
        for request, epoch in self._chunk_ends:
            if request.epoch == epoch:
                self._save_state(request, request.state_reach)
        self._chunk_ends.clear()

    def _save_state_at_end(self, request: Request) -> None:
        """Before a row is given back: its state behind the last full block of confirmed tokens.

        It stands there, or before it with the tokens between at hand; or a prompt chunk in flight has moved it further.
        Within a block larger than STATE_CHUNK decoding does so too, and has saved it on the way.
        """
        length = request.num_computed_tokens // self._block_size * self._block_size
        if request.row >= 0 and request.state_reach <= length:
            self._save_state(request, length)
        request.state_saved = 0

    def _save_state_on_the_way(self, request: Request, before: int) -> None:
        """Where decoding has filled a block: a state moves on within the next one. Of these only the last is kept."""
        length = request.num_computed_tokens // self._block_size * self._block_size
        if before < length and request.state_reach <= length:
            is_new = self._save_state(request, length, instead_of=request.state_saved)
            request.state_saved = length if is_new else 0

    def _save_state(self, request: Request, length: int, *, instead_of: int = 0) -> bool:
        """Plans a snapshot; False where there is one already, or no place for it."""
        slot = self.prefix.slot_for_state(request, length, instead_of=instead_of)
        if slot is not None:
            self._saves.append(StateSave(row=request.row, slot=slot, length=length))
        return slot is not None

    def settle(self, plan: StepPlan, result: StepResult) -> list[Request]:
        """Take in what a step gave; the requests that changed, in the order of the plan."""
        assert plan.step_id == result.step_id, f"step {plan.step_id} settled with result {result.step_id}"
        changed = []
        for row_plan, row_result in zip(plan.rows, result.rows, strict=True):
            request = self._requests.get(row_result.request_id)
            if request is None or request.epoch != row_result.epoch:
                continue
            self._settle_row(request, row_plan, row_result)
            changed.append(request)
        return changed

    def _settle_row(self, request: Request, plan: RowPlan, result: RowResult) -> None:
        num_tokens, before = len(request.token_ids), request.num_computed_tokens
        num_computed = before + plan.num_tokens - plan.num_drafts + result.num_accepted
        reason = None
        if plan.does_sample:
            request.num_steps_in_flight -= 1
            request.num_tokens_in_flight -= 1 + plan.num_drafts
            num_tokens_left = request.max_total_tokens - num_tokens
            self._draft_policy.see_row(
                request, num_drafts=min(plan.num_drafts, num_tokens_left - 1), num_accepted=result.num_accepted
            )
            assert result.token_ids, f"the step emitted nothing for request {request.request_id}"
            kept, reason = self._stop_checker.check(request, result.token_ids)
            assert 1 <= kept <= len(result.token_ids), f"stop checker kept {kept} of {len(result.token_ids)}"
            _append(request, result, kept)
            num_tokens += kept
            self.num_output_tokens += kept
            request.num_scheduled_tokens = num_tokens
            if reason is None and num_tokens >= request.max_total_tokens:
                reason = FinishReason.LENGTH
            if request.has_grammar:
                assert self._grammars is not None, "a grammar was let in, and nobody follows it"
                request.drafts = result.drafts
                request.error = self._grammars.accept(request, result.token_ids[:kept])
                if request.error is not None:
                    reason = FinishReason.ERROR
        for entry in result.prompt_logprobs:
            token_id = request.prompt_token_ids[1 + len(request.prompt_logprobs)]
            request.prompt_logprobs.append(_logprobs(token_id, entry, ()))
        request.num_computed_tokens = min(num_computed, num_tokens)
        # a step in flight moves a decode row's state over what was known when this one began, and no further
        request.state_reach = max(request.state_reach, (before + 1) // STATE_CHUNK * STATE_CHUNK)
        self.prefix.publish(request)
        if self._moves_within_blocks and plan.num_tokens == 1 + plan.num_drafts:
            self._save_state_on_the_way(request, before)
        if reason is not None:
            self._finish(request, reason)

    def _finish(self, request: Request, reason: FinishReason) -> None:
        self._leave(request)
        request.status = RequestStatus.FINISHED
        request.finish_reason = reason
        del self._requests[request.request_id]

    def requests(self) -> Iterable[Request]:
        """Every request that is not finished."""
        return self._requests.values()


_last_step = attrgetter("last_step")


def _append(request: Request, result: RowResult, kept: int) -> None:
    """Confirm the first `kept` emitted tokens, with all that is known of them."""
    token_ids = result.token_ids if kept == len(result.token_ids) else result.token_ids[:kept]
    num_accepted = min(result.num_accepted, kept)
    request.token_ids.extend(token_ids)
    request.is_draft.extend([True] * num_accepted + [False] * (kept - num_accepted))
    request.speculation.record(num_drafts=result.num_drafts, num_accepted=num_accepted)
    if result.logits_hashes or result.logprobs:
        _append_extras(request, result, token_ids)


def _append_extras(request: Request, result: RowResult, token_ids: tuple[int, ...]) -> None:
    for row_hash in result.logits_hashes[: len(token_ids)]:
        request.logits_digest = fold(request.logits_digest, row_hash)
    given_ids = request.params.logprob_token_ids or ()
    for token_id, entry in zip(token_ids, result.logprobs, strict=False):
        request.logprobs.append(_logprobs(token_id, entry, given_ids))


def _logprobs(token_id: int, entry: TokenLogprobs, given_ids: Iterable[int]) -> dict[int, Logprob]:
    """Of the most likely tokens, of those asked for by id, and of the token itself."""
    ranked = enumerate(zip(entry.top_ids, entry.top_logprobs, strict=True), start=1)
    logprobs = {top_id: Logprob(logprob=value, rank=rank) for rank, (top_id, value) in ranked}
    for given_id, value, rank in zip(given_ids, entry.given_logprobs, entry.given_ranks, strict=True):
        logprobs[given_id] = Logprob(logprob=value, rank=rank)
    logprobs[token_id] = Logprob(logprob=entry.logprob, rank=entry.rank)
    return logprobs


def _urgency(request: Request) -> tuple[int, int]:
    return request.params.priority, request.arrival
