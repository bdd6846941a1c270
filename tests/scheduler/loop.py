"""Scheduler and fake device in one loop; what must always hold is checked after every operation."""

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable

from outrider.core.outputs import FinishReason, SpeculationStats
from outrider.core.plan import RowAdmission, RowPlan, RowResult, StepPlan
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.request_state import RequestState, RequestStatus
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.text_rules import Stop
from outrider.scheduler.work_times import Work, WorkTimes

from .any_number import AnyNumber
from .fake_device import Block, Device, Flight
from .hash_model import NO_PREFIX, Entry, Job, Setting, continuation, entries_of, prefix_hash, seconds_of


def held_blocks(request: RequestState) -> list[Block]:
    """Blocks of all groups."""
    return [
        (group, block_id)
        for group, blocks in enumerate(request.blocks)
        for block_id in blocks.ids[blocks.num_released :]
    ]


class Loop:
    """Scheduler and device together; what must always hold is checked after every operation."""

    def __init__(
        self, setting: Setting, *, seed: int = 0, num_lookahead: int | None = None, is_lazy: bool | None = None
    ) -> None:
        needed = setting.num_drafts - 1 if setting.drafts_with_kv else 0
        self.setting = setting
        self.times = WorkTimes()
        self.scheduler = Scheduler(
            groups=setting.groups,
            num_blocks=(setting.num_blocks, *setting.other_blocks),
            max_num_seqs=setting.max_num_seqs,
            max_num_batched_tokens=setting.budget,
            num_drafts=setting.num_drafts,
            num_lookahead=needed if num_lookahead is None else num_lookahead,
            enable_prefix_caching=setting.caching,
            stop_rule=self,
            draft_policy=AnyNumber(setting.num_drafts, seed) if setting.varies else None,
            work_times=self.times if setting.learns else None,
        )
        self.device = Device(setting, seed)
        self.jobs: dict[str, Job] = {}
        self.requests: dict[str, RequestState] = {}
        self.plans: list[StepPlan] = []
        self.num_dropped = 0
        self.num_preempted_in_flight = 0
        self.num_turns = 0
        self._num_confirmed: dict[int, int] = {}
        self._flights: deque[Flight] = deque()
        self._generation: Counter[str] = Counter()
        self._tally: dict[str, SpeculationStats] = {}
        self._coin = random.Random(seed + 1)
        self._is_lazy = is_lazy
        self._hashes: dict[bytes, None] = {}
        self._snapshots: dict[tuple[Block, bytes], tuple[object, ...]] = {}
        self._prefix_of: dict[bytes, int] = {}

    def check(self, request: RequestState, token_ids: tuple[int, ...]) -> tuple[int, Stop | None]:
        """The stop rule; it leaves max_tokens to the scheduler."""
        known = request.output_token_ids
        prompt, salt = request.request.prompt_token_ids, request.request.seed
        true = continuation(prompt, len(known) + len(token_ids), salt, request.request.content_keys)
        assert [*known, *token_ids] == true, "a result was applied to the wrong place"
        for count, token_id in enumerate(token_ids, start=1):
            if token_id in self.jobs[request.request_id].stop_ids:
                return count, Stop(FinishReason.STOP)
        return len(token_ids), None

    def add(self, job: Job) -> RequestState:
        asked = Request(
            request_id=job.request_id,
            prompt_token_ids=job.prompt,
            params=SamplingParams(
                temperature=0.0,
                max_tokens=job.max_tokens,
                priority=job.priority,
                num_speculative_tokens=job.most_drafts,
            ),
            seed=job.salt,
            eos_token_ids=(),
            max_total_tokens=job.max_total,
            content_keys=job.contents,
            call_id=job.call_id,
        )
        request = self.scheduler.add(asked)
        self.jobs[job.request_id] = job
        self.requests[job.request_id] = request
        self._generation[job.request_id] += 1
        self._tally[job.request_id] = SpeculationStats.zero(self.setting.num_drafts)
        self.check_host()
        return request

    def abort(self, request_id: str) -> RequestState | None:
        request = self.scheduler.abort(request_id)
        if request is not None:
            self._generation[request_id] += 1
            assert request.finish_reason is FinishReason.ABORT
        self.check_host()
        return request

    def plan(self) -> StepPlan | None:
        """Plan and launch a step; it is executed now, or at the last moment (`is_lazy`; None tosses a coin)."""
        before = {id(request): request.num_preemptions for request in self.scheduler.requests()}
        in_flight = {row.request_id for flight in self._flights for row in flight.plan.rows}
        plan = self.scheduler.plan()
        for request in self.scheduler.requests():
            if request.num_preemptions > before[id(request)]:
                self._generation[request.request_id] += 1
                self.num_preempted_in_flight += request.request_id in in_flight
        if plan is not None:
            self._check_plan(plan)
            published = frozenset(self.published())
            owned = {request.row: frozenset(held_blocks(request)) for request in self.scheduler.running}
            generations = {row.request_id: self._generation[row.request_id] for row in plan.rows}
            contents = {entry.request_id: self.jobs[entry.request_id].contents for entry in plan.admissions}
            self._flights.append(
                Flight(plan=plan, owned=owned, published=published, generations=generations, contents=contents)
            )
            self.plans.append(plan)
            is_lazy = self._coin.random() < 0.5 if self._is_lazy is None else self._is_lazy
            if not is_lazy:
                self._execute()
        self.check_host()
        return plan

    def _execute(self) -> None:
        for flight in self._flights:
            if flight.result is None:
                flight.result = self.device.run(flight, self.published())

    def settle(self) -> list[RequestState]:
        """Settle the oldest step in flight; the requests that changed."""
        flight = self._flights.popleft()
        if flight.result is None:
            flight.result = self.device.run(flight, self.published())
        live = [
            row for row in flight.result.rows if flight.generations[row.request_id] == self._generation[row.request_id]
        ]
        before = [self.requests[row.request_id].num_output_tokens for row in live]
        self.num_dropped += len(flight.result.rows) - len(live)
        changed = self.scheduler.settle(flight.plan, flight.result)
        work = Work.of(flight.plan.rows)
        self.times.observe(work, seconds_of(work))
        names = [request.request_id for request in changed]
        assert names == [row.request_id for row in live], "results of another life were not dropped"
        for request, row, num_outputs in zip(changed, live, before, strict=True):
            self._count(request, row, request.num_output_tokens - num_outputs)
            if request.status is RequestStatus.FINISHED:
                self._generation[request.request_id] += 1
        self.check_host()
        return changed

    def turn(self) -> list[RequestState]:
        """Runs one turn of the engine's loop; returns the requests that changed."""
        self.num_turns += 1
        plan = self.plan()
        if plan is not None and len(self._flights) <= self.setting.depth:
            return []
        if not self._flights:
            assert not self.scheduler.has_work, "requests wait, nothing runs, and nothing is in flight"
            return []
        return self.settle()

    def run_until(self, condition: Callable[[], bool], *, most_turns: int = 500) -> None:
        """Turn until `condition` holds; fails after `most_turns`."""
        for _ in range(most_turns):
            if condition():
                return
            self.turn()
        raise AssertionError(f"the condition does not hold after {most_turns} turns")

    def run(self, jobs: Iterable[Job] = ()) -> "Loop":
        """Run all jobs to their end; a bound on the turns checks that no request starves."""
        jobs = sorted(jobs, key=lambda job: job.arrives)
        most = 60 + max((job.arrives for job in jobs), default=0)
        most += sum(job.max_total for job in (*jobs, *self.jobs.values())) * 2
        pending = deque(jobs)
        while pending or self.scheduler.has_work or self._flights:
            assert self.num_turns < most, f"not finished after {most} turns"
            while pending and pending[0].arrives <= self.num_turns:
                self.add(pending.popleft())
            for job in jobs:
                if job.aborted_at == self.num_turns and job.request_id in self.requests:
                    self.abort(job.request_id)
            self.turn()
        self.check_end()
        return self

    def published(self) -> dict[Block, bytes]:
        """Block to name, found by asking for every name there ever was."""
        for request in self.requests.values():
            self._hashes.update(dict.fromkeys(request.block_hashes))
        blocks: dict[Block, bytes] = {}
        for group, pool in enumerate(self.scheduler.blocks.pools):
            for name in self._hashes:
                block_id = pool.find(name)
                if block_id is not None:
                    assert (group, block_id) not in blocks, "a block has two names"
                    blocks[group, block_id] = name
        return blocks

    def check_host(self) -> None:
        """Blocks, rows and queues after any operation."""
        running = self.scheduler.running
        held = Counter(block for request in running for block in held_blocks(request))
        for group, pool in enumerate(self.scheduler.blocks.pools):
            assert (group, 0) not in held, "the null block is held"
            for block_id in range(1, pool.num_blocks):
                is_held = (group, block_id) in held
                assert pool.is_free(block_id) != is_held, f"block {group, block_id} is lost or was freed early"
            num_held = sum(block[0] == group for block in held)
            assert pool.num_free == pool.num_usable - num_held, "num_free does not count the free blocks"
        users: dict[Block, tuple[int, tuple[Entry, ...]]] = {}
        for request in running:
            assert len(set(held_blocks(request))) == len(held_blocks(request)), "a request holds a block twice"
            assert request.num_computed_tokens <= request.num_tokens <= request.max_total_tokens
            for group, (layers, blocks) in enumerate(zip(self.setting.groups, request.blocks, strict=True)):
                size = layers.block_size
                assert len(blocks.ids) * size >= request.num_computed_tokens
                seen = request.max_total_tokens if layers.window is None else layers.window
                first = max(0, request.num_computed_tokens + 1 - seen) // size
                assert blocks.num_released == first, "a block before the window is held, or one in it was given back"
                assert not any(blocks.ids[:first]), "a block that was given back is still listed"
                for index, block_id in enumerate(blocks.ids):
                    if held[group, block_id] > 1:
                        tokens = request.token_ids[: (index + 1) * size]
                        assert len(tokens) == (index + 1) * size, f"block {group, block_id} is shared and not full"
                        use = (index, tuple(entries_of(tokens, contents=request.request.content_keys)))
                        assert users.setdefault((group, block_id), use) == use, f"block {group, block_id} is held twice"
        rows = [request.row for request in running]
        assert len(set(rows)) == len(rows) <= self.setting.max_num_seqs
        assert all(0 <= row < self.setting.max_num_seqs for row in rows)
        listed = {request.request_id for request in (*running, *self.scheduler.waiting)}
        assert listed == {request.request_id for request in self.scheduler.requests()}, "a request is in no queue"
        for request in self.scheduler.requests():
            self._check_in_flight(request)
            known = self._num_confirmed.get(id(request), 0)
            assert len(request.token_ids) >= known, "confirmed output was lost"
            self._num_confirmed[id(request)] = len(request.token_ids)
        self._check_published()

    def _check_in_flight(self, request: RequestState) -> None:
        """The counts in flight are those of the steps in flight, without results that will be dropped."""
        live = self._live_rows(request.request_id)
        counted = (request.num_steps_in_flight, request.num_tokens_in_flight)
        assert counted == (sum(row.does_sample for row in live), sum(row.num_samples for row in live)), (
            f"{request.request_id} counts {counted} steps and tokens in flight"
        )

    def _check_published(self) -> None:
        """A published block holds one whole prefix, named by one name, and never changes."""
        device, snapshots = self.device, {}
        for block, name in self.published().items():
            assert block in device.target, f"block {block} was published before it was full"
            content = (tuple(device.target[block]), tuple(device.drafter.get(block, ())))
            snapshot = (*content, device.boundary.get(block[1]) if block[0] == 0 else None)
            if (block, name) not in self._snapshots:
                self._check_content(block, name)
            else:
                assert self._snapshots[block, name] == snapshot, f"published block {block} has changed"
            snapshots[block, name] = snapshot
        self._snapshots = snapshots

    def _check_content(self, block: Block, name: bytes) -> None:
        entries = self.device.target[block]
        for left, right in itertools.pairwise(entries):
            assert left and right, f"block {block} was published before it was full"
            assert prefix_hash(left[1], right[0]) == right[1], f"block {block} was published with stale entries"
        first, last = entries[0], entries[-1]
        assert first and last
        if block[0] == 0:
            assert self.device.boundary[block[1]] == last[1], f"block {block} has a stale boundary feature"
        assert self._prefix_of.setdefault(name, last[1]) == last[1], "one name for two prefixes"
        if self.setting.drafts_with_kv:
            skip = int(prefix_hash(NO_PREFIX, first[0]) == first[1])  # index 0 of the drafter stays empty
            drafted = self.device.drafter[block]
            assert drafted[skip:] == entries[skip:], f"block {block}: drafter KV is not that of its tokens"

    def _check_plan(self, plan: StepPlan) -> None:
        assert plan.rows, "an empty step was planned"
        assert plan.num_tokens == sum(row.num_tokens for row in plan.rows), "num_tokens is not that of the rows"
        assert plan.num_tokens <= self.setting.budget, "the step is larger than the budget"
        assert len({row.row for row in plan.rows}) == len(plan.rows) <= self.setting.max_num_seqs
        admitted = {admission.request_id: admission for admission in plan.admissions}
        assert len(admitted) == len(plan.admissions)
        for row in plan.rows:
            request, job = self.requests[row.request_id], self.jobs[row.request_id]
            current = (request.row, request.epoch, request.params)
            assert (row.row, row.epoch, row.params) == current, "a row is planned for a past life of its request"
            most_drafts = self.setting.num_drafts if job.most_drafts is None else job.most_drafts
            assert 0 <= row.num_drafts <= min(most_drafts, self.setting.num_drafts)
            assert row.num_samples == (1 + row.num_drafts if row.does_sample else 0)
            assert row.length_bound <= job.max_total
            self._check_reserved(row, request)
        for admission in plan.admissions:
            self._check_admission(admission, self.jobs[admission.request_id])
        written = {row.request_id for row in plan.rows}
        assert admitted.keys() <= written, "a request was admitted and does not run"

    def _check_reserved(self, row: RowPlan, request: RequestState) -> None:
        """Blocks and bound reach as far as any outcome of the steps in flight can take this one."""
        if not row.does_sample:
            reach = row.length_bound + (1 if self.setting.drafts_with_kv else 0)  # the drafter's row of the next token
        else:
            known = request.num_tokens + self._most_in_flight(row.request_id)
            reach = known + row.num_drafts
            assert row.length_bound >= min(reach, request.max_total_tokens), "length_bound is no bound"
            if self.setting.drafts_with_kv:
                reach += self.setting.num_drafts  # its own last token, and all but the last of the next drafts
        for group, blocks in zip(self.setting.groups, request.blocks, strict=True):
            reserved = len(blocks.ids) * group.block_size
            assert reserved >= min(reach, request.max_total_tokens), "too few blocks reserved"

    def _most_in_flight(self, request_id: str) -> int:
        """The most tokens that steps not yet settled can add to a request."""
        return sum(row.num_samples for row in self._live_rows(request_id))

    def _live_rows(self, request_id: str) -> list[RowPlan]:
        """A request's rows in the steps in flight, without those from before a preemption or an abort."""
        return [
            row
            for flight in self._flights
            for row in flight.plan.rows
            if row.request_id == request_id and flight.generations[request_id] == self._generation[request_id]
        ]

    def _check_admission(self, admission: RowAdmission, job: Job) -> None:
        assert admission.num_prompt_tokens == len(job.prompt), "output was admitted as prompt"
        assert admission.token_ids[: len(job.prompt)] == job.prompt
        output = list(admission.token_ids[len(job.prompt) :])
        assert output == job.expected[: len(output)], "a resumed request starts with other tokens than it had"
        assert admission.num_computed_tokens < len(admission.token_ids), "nothing is left to compute"
        assert admission.max_total_tokens == job.max_total
        if not self.setting.caching:
            assert admission.num_computed_tokens == 0

    def _count(self, request: RequestState, result: RowResult, kept: int) -> None:
        if not result.token_ids:
            return
        tally = self._tally[request.request_id]
        accepted = min(result.num_accepted, kept)
        tally.num_steps += 1
        tally.num_drafts += result.num_drafts > 0
        tally.num_draft_tokens += result.num_drafts
        tally.num_accepted_tokens += accepted
        for position in range(accepted):
            tally.num_accepted_tokens_per_pos[position] += 1

    def check_end(self) -> None:
        """Every output is the model's, every block and row is free, and the counts agree."""
        assert not self.scheduler.running and not self.scheduler.waiting and not self._flights
        assert all(pool.num_free == pool.num_usable for pool in self.scheduler.blocks.pools), "blocks are lost"
        assert sorted(self.scheduler._free_rows) == list(range(self.setting.max_num_seqs)), "rows are lost"
        for request_id, request in self.requests.items():
            job = self.jobs[request_id]
            assert request.status is RequestStatus.FINISHED
            assert tuple(request.token_ids[: request.num_prompt_tokens]) == job.prompt
            output = request.output_token_ids
            if request.finish_reason is FinishReason.ABORT:
                assert output == job.expected[: len(output)]
            else:
                assert (output, request.finish_reason) == (job.expected, job.finish_reason)
            assert request.speculation == self._tally[request_id], "statistics disagree with the results"
            assert len(request.is_draft) == len(output)
            assert sum(request.is_draft) == request.speculation.num_accepted_tokens
        self._check_admission_counts()

    def _check_admission_counts(self) -> None:
        admissions = [admission for plan in self.plans for admission in plan.admissions]
        prefix = self.scheduler.prefix
        assert prefix.num_queried_tokens == sum(len(admission.token_ids) for admission in admissions)
        assert prefix.num_hit_tokens == sum(admission.num_computed_tokens for admission in admissions)
        assert self.scheduler.num_preemptions == sum(request.num_preemptions for request in self.requests.values())
