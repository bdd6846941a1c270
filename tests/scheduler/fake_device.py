"""A device made of dictionaries: it executes plans in order and trusts nothing in them.

Every KV entry remembers the whole prefix it was computed under, so a block that was freed early, shared wrongly,
published too soon or overwritten while it is read shows at the next read. Written apart from the scheduler: no
torch, and no arithmetic of the package.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from outrider.core.plan import NewBlocks, RowAdmission, RowPlan, RowResult, StepPlan, StepResult

from .hash_model import VOCAB_SIZE, Contents, Entry, Setting, entries_of, next_token, prefix_hash, seen

Block = tuple[int, int]
"""Group of layers, and block id in its pool."""
Store = dict[Block, list[Entry | None]]
"""Block to its entries. The drafter's at index j is (feature of j - 1, token j); index 0 stays empty. Both models have
layers in every group."""

PROVISIONAL = (-1, -1)
"""Stands for everything that the draft loop writes; no later step may read it."""


@dataclass(slots=True, kw_only=True)
class Row:
    """A row of the device table."""

    entries: list[Entry]
    num_computed: int
    max_total: int
    salt: int
    contents: Contents
    tables: list[list[int]]
    drafts: list[int] = field(default_factory=list)
    num_proposals: int = 0


@dataclass(slots=True, kw_only=True)
class Work:
    """One row of a step: entries of the positions from `start` on, drafts after the known tokens."""

    plan: RowPlan
    row: Row
    start: int
    num_known: int
    entries: list[Entry]
    num_drafts: int
    has_tokens_left: bool
    emitted: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Flight:
    """A launched step, with what the host knew when it was planned."""

    plan: StepPlan
    owned: dict[int, frozenset[Block]]
    published: frozenset[Block]
    generations: dict[str, int]
    contents: dict[str, Contents]
    result: StepResult | None = None


class Device:
    """Executes plans against stores of entries; an AssertionError says what a plan got wrong."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.groups = setting.groups
        self.target: Store = {}
        self.drafter: Store = {}
        self.boundary: dict[int, int] = {}  # of the first group
        self.rows: dict[int, Row] = {}
        self.num_accepted_seen: Counter[int] = Counter()
        self._random = random.Random(seed)

    def run(self, flight: Flight, published: Iterable[Block]) -> StepResult:
        plan = flight.plan
        self._owned = flight.owned
        self._contents = flight.contents
        self._published = flight.published | frozenset(published)
        for admission in plan.admissions:
            self._admit(admission)
        for new_blocks in plan.new_blocks:
            self._add_blocks(new_blocks)
        if self.setting.drafts_with_kv:
            for admission in plan.admissions:
                self._write_behind_hit(admission)
        works = [self._lay_out(row) for row in plan.rows]
        for work in works:
            self._write_target(work)
        for work in works:
            self._read(self.target, work, 0, work.row.entries[: work.start] + work.entries)
        results = [self._commit(work) for work in works]
        if self.setting.drafts_with_kv:
            for work in works:
                self._write_true_rows(work)
        for work in works:
            self._propose(work, plan.num_proposals)
        return StepResult(step_id=plan.step_id, rows=tuple(results))

    def _admit(self, admission: RowAdmission) -> None:
        contents = self._contents[admission.request_id]
        self.rows[admission.row] = Row(
            entries=entries_of(admission.token_ids, contents=contents),
            num_computed=admission.num_computed_tokens,
            max_total=admission.max_total_tokens,
            salt=admission.seed,
            contents=contents,
            tables=[[] for _ in self.groups],
        )

    def _add_blocks(self, new_blocks: NewBlocks) -> None:
        table = self.rows[new_blocks.row].tables[new_blocks.group]
        assert new_blocks.first_index == len(table), "new blocks leave a gap in the block table or replace a block"
        first = self.groups[new_blocks.group].first_needed_block(self.rows[new_blocks.row].num_computed)
        num_passed = max(0, first - len(table))
        assert 0 not in new_blocks.block_ids[num_passed:], "the null block was given to a request"
        assert not any(new_blocks.block_ids[:num_passed]), "a block before the window was given to a request"
        table.extend(new_blocks.block_ids)

    def _write_behind_hit(self, admission: RowAdmission) -> None:
        """The drafter's entry whose feature lies in the last cached block."""
        row, count = self.rows[admission.row], admission.num_computed_tokens
        size = self.groups[0].block_size
        assert all(count % group.block_size == 0 for group in self.groups)
        last = row.tables[0][count // size - 1] if count else -1
        assert admission.last_cached_block == last, "last_cached_block is not the last of the cached blocks"
        if count:
            assert self.boundary[last] == row.entries[count - 1][1], "the boundary feature is of another prefix"
            self._write(self.drafter, admission.row, count, row.entries[count])

    def _lay_out(self, plan: RowPlan) -> Work:
        row = self.rows[plan.row]
        num_tokens_left = row.max_total - len(row.entries)
        assert plan.num_drafts <= row.num_proposals, "more drafts are planned than the row's last step was asked for"
        num_drafts = max(0, min(len(row.drafts), plan.num_drafts, num_tokens_left - 1))
        num_known = plan.num_tokens - plan.num_drafts
        start = row.num_computed
        work = Work(
            plan=plan,
            row=row,
            start=start,
            num_known=num_known,
            entries=[],
            num_drafts=num_drafts,
            has_tokens_left=num_tokens_left > 0,
        )
        if num_tokens_left <= 0:
            return work
        end = start + num_known
        if plan.does_sample:
            assert end == len(row.entries), "a sampling row must end at the last known token"
        else:
            assert end < len(row.entries), "the last chunk of a prompt must sample"
        known = row.entries[start:end]
        drafts = entries_of(row.drafts[:num_drafts], known[-1][1], first=end, contents=row.contents)
        work.entries = known + drafts
        assert start + len(work.entries) <= plan.length_bound, "a token stands behind length_bound"
        return work

    def _write(self, store: Store, row: int, index: int, entry: Entry) -> None:
        for group, (layers, table) in enumerate(zip(self.groups, self.rows[row].tables, strict=True)):
            size = layers.block_size
            assert index // size < len(table), f"index {index} is behind the {len(table)} blocks of the row"
            block = group, table[index // size]
            assert block in self._owned[row], f"block {block} was not the request's when the step was planned"
            assert block not in self._published, f"published block {block} is written"
            store.setdefault(block, [None] * size)[index % size] = entry

    def _read(self, store: Store, work: Work, first: int, entries: list[Entry]) -> None:
        """Entries that tokens from `work.start` on attend to: those from `first` on, or from the window's beginning."""
        for group, (layers, table) in enumerate(zip(self.groups, work.row.tables, strict=True)):
            size = layers.block_size
            oldest = first if layers.window is None else max(first, work.start + 1 - layers.window)
            for start in range(oldest // size * size, len(entries), size):
                block = group, table[start // size]
                found = store.get(block, [None] * size)
                wanted = entries[start : start + size]
                skip = max(0, oldest - start)
                assert block in self._owned[work.plan.row], f"block {block} is read, and was not the request's"
                assert found[skip : len(wanted)] == wanted[skip:], (
                    f"block {block} does not hold the prefix of tokens {start} to {start + len(wanted)}"
                )

    def _write_target(self, work: Work) -> None:
        for index, entry in enumerate(work.entries, start=work.start):
            self._write(self.target, work.plan.row, index, entry)
            size = self.groups[0].block_size
            if (index + 1) % size == 0:
                self.boundary[work.row.tables[0][index // size]] = entry[1]

    def _commit(self, work: Work) -> RowResult:
        row, plan = work.row, work.plan
        num_accepted = 0
        if plan.does_sample and work.has_tokens_left:
            for index in range(work.num_drafts + 1):
                token_id = next_token(work.entries[work.num_known - 1 + index][1], row.salt)
                work.emitted.append(token_id)
                if index == work.num_drafts or row.drafts[index] != token_id:
                    break
            num_accepted = len(work.emitted) - 1
            self.num_accepted_seen[num_accepted] += 1
        row.entries += entries_of(work.emitted, row.entries[-1][1], first=len(row.entries), contents=row.contents)
        assert len(row.entries) <= row.max_total, "more tokens than max_total"
        row.num_computed += work.num_known + num_accepted if work.has_tokens_left else 0
        return RowResult(
            request_id=plan.request_id,
            epoch=plan.epoch,
            token_ids=tuple(work.emitted),
            num_drafts=work.num_drafts,
            num_accepted=num_accepted,
        )

    def _write_true_rows(self, work: Work) -> None:
        for index in range(work.start + 1, work.start + len(work.entries) + 1):
            if index < len(work.row.entries):
                self._write(self.drafter, work.plan.row, index, work.row.entries[index])

    def _propose(self, work: Work, num_proposals: int) -> None:
        """0 … num_proposals drafts; each right with probability `accuracy`, given the ones before it."""
        row = work.row
        row.drafts = []
        row.num_proposals = num_proposals
        if not work.emitted:
            return
        if self.setting.drafts_with_kv:
            self._read(self.drafter, work, 1, row.entries)
            for index in range(len(row.entries), len(row.entries) + num_proposals - 1):
                if index < row.max_total:
                    self._write(self.drafter, work.plan.row, index, PROVISIONAL)
        before = row.entries[-1][1]
        count = self._random.choice((num_proposals, self._random.randint(0, num_proposals)))
        for index in range(len(row.entries), len(row.entries) + count):
            is_right = self._random.random() < self.setting.accuracy
            right = next_token(before, row.salt)
            token_id = right if is_right else (right + 1) % VOCAB_SIZE
            row.drafts.append(token_id)
            before = prefix_hash(before, seen(token_id, index, row.contents))
