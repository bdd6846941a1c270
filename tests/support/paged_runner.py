"""Drives a model by hand through a paged cache: blocks in random order, unwritten slots full of NaN."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch, GroupBatch
from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.attention.caches.model_caches import ModelCaches
from outrider.attention.caches.paged import PagedSpec, groups_of
from outrider.attention.caches.paged_kv import LayerKV
from outrider.attention.selector import select_backend
from outrider.kernels import load_kernels
from outrider.kernels.interface.state import StateRows
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM, Hidden
from outrider.models import load_model, read_model_config
from outrider.platforms.base import select_platform


def cpu_context() -> LayerContext:
    """The context of a model on the CPU, as the engine would make it."""
    platform = select_platform("cpu")
    return LayerContext(
        kernels=load_kernels(platform.kernel_stack), dtype=platform.resolve_dtype("auto"), device=platform.device
    )


def load_tiny(directory, *, max_positions: int = 512, **options) -> CausalLM:
    """The model of a directory, on the CPU."""
    config = read_model_config(directory, runner="auto")
    return load_model(str(directory), config, cpu_context(), max_positions=max_positions, **options)


MAX_DRAFTS = 4
NUM_ROWS = 8


class PagedRunner:
    """Rows are named by any key; each keeps its length and its blocks of every group of layers."""

    def __init__(
        self,
        model: CausalLM,
        *,
        block_size: int = 16,
        num_blocks: int = 96,
        seed: int = 0,
        gives_blocks_back: bool = False,
    ) -> None:
        """`gives_blocks_back`: after each step, blocks that no later token sees are filled with NaN and taken from the
        tables; such rows cannot be rewound."""
        self.model = model
        self.block_size = block_size
        self.gives_blocks_back = gives_blocks_back
        specs, device = model.cache_specs, torch.device("cpu")
        paged = [spec for spec in specs if isinstance(spec, PagedSpec)]
        self.states = StateCache(
            [spec for spec in specs if isinstance(spec, DeltaState)],
            NUM_ROWS + 1,
            num_drafts=MAX_DRAFTS,
            device=device,
        )
        self.caches = ModelCaches(
            specs,
            backend=select_backend("auto", paged, select_platform("cpu")).backend,
            groups=groups_of(paged, block_size=block_size),
            device=device,
            states=self.states,
        )
        self.groups = self.caches.groups
        self.caches.allocate([num_blocks] * len(self.groups))
        for cache in self.caches:
            for field in type(cache).__dataclass_fields__:
                if isinstance(memory := getattr(cache, field), Tensor):
                    memory.fill_(float("nan"))
        self.state_lengths = torch.zeros(NUM_ROWS + 1, dtype=torch.int64)
        self.state_known = torch.zeros(NUM_ROWS + 1, dtype=torch.int64)
        self.rows: dict[object, int] = {}
        self.free = [list(range(1, num_blocks)) for _ in self.groups]
        for index, free in enumerate(self.free):
            random.Random(seed + index).shuffle(free)
        self.blocks: dict[object, list[list[int]]] = {}  # of each group
        self.lengths: dict[object, int] = {}

    def feed(
        self,
        rows: Sequence[tuple[object, Sequence[int]]],
        *,
        num_padding: int = 0,
        extra_bound: int = 0,
        num_drafts: int = 0,
    ) -> tuple[Hidden, list[slice]]:
        """One step: new tokens of each row, the last `num_drafts` of them drafts. Gives the hidden states and where
        each row's tokens lie in them."""
        starts = [self.lengths.get(key, 0) for key, _ in rows]
        ids, positions, places = [], [], []
        for key, tokens in rows:
            start = self.lengths.get(key, 0)
            places.append(slice(len(ids), len(ids) + len(tokens)))
            ids += tokens
            positions += range(start, start + len(tokens))
            self.lengths[key] = start + len(tokens)
        lengths = [position + 1 for position in positions]
        counts = [len(tokens) for _, tokens in rows]
        counts[-1] += num_padding
        padding = [0] * num_padding
        batch = ForwardBatch(
            token_ids=torch.tensor(ids + padding),
            positions=torch.tensor(positions + padding),
            kv_lengths=torch.tensor(lengths + padding),
            groups={index: self._group(index, rows, starts, num_padding) for index in range(len(self.groups))},
            row_counts=tuple(counts),
            kv_length_bound=max(lengths) + extra_bound,
            states=self._states(rows, starts, counts, num_drafts),
        )
        with torch.inference_mode():
            hidden = self.model(batch, self.caches)
        if self.gives_blocks_back:
            for key, _ in rows:
                self._give_blocks_back(key)
        return hidden, places

    def _group(self, index: int, rows, starts: list[int], num_padding: int) -> GroupBatch:
        slots = []
        for (key, tokens), start in zip(rows, starts, strict=True):
            blocks = self.blocks.setdefault(key, [[] for _ in self.groups])[index]
            while len(blocks) * self.block_size < start + len(tokens):
                blocks.append(self.free[index].pop())
            for position in range(start, start + len(tokens)):
                slots.append(blocks[position // self.block_size] * self.block_size + position % self.block_size)
        tables = [self.blocks[key][index] for key, _ in rows]
        width = max(len(blocks) for blocks in tables)
        tables = [blocks + [0] * (width - len(blocks)) for blocks in tables]
        return GroupBatch(torch.tensor(tables, dtype=torch.int32), torch.tensor(slots + [0] * num_padding))

    def _give_blocks_back(self, key: object) -> None:
        for index, group in enumerate(self.groups):
            blocks = self.blocks[key][index]
            for column in range(group.first_needed_block(self.lengths[key])):
                if block := blocks[column]:
                    for cache in self.caches:
                        if isinstance(cache, LayerKV) and cache.group == index:
                            cache.k[block], cache.v[block] = float("nan"), float("nan")
                    self.free[index].append(block)
                    blocks[column] = 0

    def _states(self, rows, starts: list[int], counts: list[int], num_drafts: int) -> StateRows | None:
        if not self.states:
            return None
        table_rows = torch.tensor([self.rows.setdefault(key, len(self.rows)) for key, _ in rows])
        num_computed = torch.zeros(NUM_ROWS + 1, dtype=torch.int64)
        num_computed[table_rows] = torch.tensor(starts)
        found = self.model.context.kernels.state_rows(
            num_computed,
            self.state_lengths,
            self.state_known,
            rows=table_rows,
            num_known=torch.tensor([len(tokens) - num_drafts for _, tokens in rows]),
            num_drafts=torch.full((len(rows),), num_drafts),
            num_tokens_left=torch.ones(len(rows), dtype=torch.int64),
        )
        at = StateRows(
            table_rows,
            *found,
            row_starts=torch.tensor(counts).cumsum(0) - torch.tensor(counts),
            token_row=torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)),
            row_counts=tuple(counts),
            most_open=self.states.most_open,
        )
        self.state_lengths[table_rows] = at.targets
        self.state_known[table_rows] = at.known
        return at

    def rewind(self, key: object, length: int) -> None:
        """Forgets the tokens of a row from `length` on; their K and V stay in the cache."""
        self.lengths[key] = length

    def logits(self, hidden: Hidden) -> Tensor:
        """[num_tokens, vocab_size] of every token of a step."""
        with torch.inference_mode():
            return self.model.logits(hidden.last)

    def greedy(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
        """Continues all prompts together; the lowest id wins a tie."""
        last: list[Sequence[int]] = list(prompts)
        outputs: list[list[int]] = [[] for _ in prompts]
        for _ in range(num_tokens):
            hidden, places = self.feed(list(enumerate(last)))
            logits = self.logits(hidden)
            last = [[int(logits[place.stop - 1].argmax())] for place in places]
            for output, token in zip(outputs, last, strict=True):
                output.extend(token)
        return outputs
