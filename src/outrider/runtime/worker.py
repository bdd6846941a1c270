"""Everything one device needs for its steps: model, drafter, KV memory, table. Built once, in this order:

platform -> kernels and attention backend -> target weights -> drafter -> table and step -> number of KV blocks ->
memory -> graphs.
"""

from collections.abc import Sequence
from threading import Thread

import torch

from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.attention.caches.model_caches import CacheSpec, ModelCaches
from outrider.attention.caches.paged import PagedSpec, windows_of
from outrider.attention.selector import refusal_of, select_backend
from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError
from outrider.core.model_config import ModelConfig
from outrider.core.plan import RowPlan, StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.device.assemble import Assembler
from outrider.device.graphs import ROW_BUCKETS, StepGraphs
from outrider.device.readback import Handle, Readback
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.kernels import describe_stacks, load_kernels
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.loading.hf import read_model_config
from outrider.models import cache_specs, load_model
from outrider.platforms.base import select_platform
from outrider.runtime.memory import GpuMeasurement, KVBudget, cpu_kv_budget, size_blocks, size_snapshots, without
from outrider.runtime.step import Step
from outrider.runtime.warm_up import compile_sampler
from outrider.sampling.params import Need
from outrider.sampling.synthetic import SyntheticAcceptance
from outrider.sampling.verifier import EQUALITY, Comparison
from outrider.speculation.drafter import BaseDrafter, DrafterContext, find_drafter


class Worker:
    """One device's share of an engine."""

    def __init__(self, config: EngineConfig) -> None:
        found = find_drafter(config.speculative) if config.speculative is not None else None
        self.platform = platform = select_platform(config.device)
        self.config = config = config.resolve(
            max_num_seqs=platform.max_num_seqs, num_prompt_tokens=platform.num_prompt_tokens
        )
        self.dtype = self.platform.resolve_dtype(config.dtype)
        self.model_config = read_model_config(config.model)
        self.eos_token_ids = self.model_config.eos_token_ids
        self.max_model_len = _max_model_len(config, self.model_config.max_position_embeddings)
        kernels = load_kernels(self.platform.kernel_stack)
        context = LayerContext(kernels=kernels, dtype=self.dtype, device=self.platform.device)
        specs = cache_specs(self.model_config, context)
        self.selection = select_backend(config.attention_backend, _paged(specs), self.platform)

        def load(directory: str, model_config: ModelConfig) -> CausalLM:
            return load_model(
                directory,
                model_config,
                context,
                max_positions=self.max_model_len,
                load_format=config.load_format,
                seed=config.seed,
            )

        self._compiling: Thread | None = None
        if self.platform.compiles_kernels:
            self._compiling = compile_sampler(kernels, self.model_config.vocab_size, self.platform.device)
        model = load(config.model, self.model_config)
        self.drafter: BaseDrafter | None = None
        if config.speculative is not None and found is not None:
            self.drafter = found.make(
                DrafterContext(
                    config=config.speculative,
                    options=found.options,
                    engine=config,
                    target_config=self.model_config,
                    target=model,
                    layers=context,
                    platform=self.platform,
                    max_model_len=self.max_model_len,
                    load_model=load,
                )
            )
            model.set_taps(self.drafter.tap_layers)
        drafter_specs = self._drafter_specs()
        self.num_lookahead = self.drafter.num_lookahead if self.drafter else 0
        self._staging = Staging(self.platform.device)
        self._readback = Readback(self.platform.device)
        self._table = RequestTable(
            max_rows=config.num_rows,
            max_model_len=self.max_model_len,
            num_drafts=config.num_speculative_tokens,
            block_size=config.block_size,
            vocab_size=self.model_config.vocab_size,
            kernels=kernels,
            staging=self._staging,
            device=self.platform.device,
        )
        self.states = self._make_states(specs)
        self._assembler = Assembler(
            kernels=kernels,
            staging=self._staging,
            num_drafts=config.num_speculative_tokens,
            wants_digest=config.logits_digest,
            most_open=self.states.most_open if self.states is not None else None,
        )
        windows = windows_of(_paged([*specs, *drafter_specs]))
        assert len(windows) == 1, f"groups of windows {windows}: one pool of blocks serves one group"

        def caches_of(specs: Sequence[CacheSpec], states: StateCache | None) -> ModelCaches:
            return ModelCaches(
                specs,
                backend=self.selection.backend,
                windows=windows,
                block_size=config.block_size,
                device=self.platform.device,
                states=states or (),
            )

        self.caches = caches_of(specs, self.states)
        if self.drafter is not None:
            self.drafter.caches = caches_of(drafter_specs, None)
            self.drafter.attach(self._table, self._staging)
        self._allocate(2)
        self._step = Step(
            model=model,
            caches=self.caches,
            table=self._table,
            assembler=self._assembler,
            drafter=self.drafter,
            comparison=self._comparison(),
            states=self.states,
        )
        self.kv_budget = self._measure_kv_budget()
        self.num_snapshots: int | None = None
        if self.states is not None:
            size = self.states.bytes_per_snapshot
            self.num_snapshots = size_snapshots(config, self.kv_budget, bytes_per_snapshot=size)
            self.states.allocate_snapshots(self.num_snapshots)
            self.kv_budget = without(self.kv_budget, self.num_snapshots * size, "snapshots of states")
        bytes_per_block = self.caches.bytes_per_block(0)
        if self.drafter is not None:
            bytes_per_block += self.drafter.caches.bytes_per_block(0) + self.drafter.extra_bytes_per_block
        self.num_blocks = size_blocks(
            config, self.kv_budget, bytes_per_block=bytes_per_block, max_model_len=self.max_model_len
        )
        self._allocate(self.num_blocks)
        self._graphs = self._make_graphs()
        self._step.is_serving = True

    def _comparison(self) -> Comparison:
        rates = self.config.speculative.acceptance_rates if self.config.speculative is not None else None
        if rates is None:
            return EQUALITY
        return SyntheticAcceptance(rates, seeds=self._table.sampling.seed, lengths=self._table.num_tokens)

    def _make_states(self, specs: Sequence[CacheSpec]) -> StateCache | None:
        """States of the layers that have one, for every row; None where no layer has one."""
        found = [spec for spec in specs if isinstance(spec, DeltaState)]
        if not found:
            return None
        num_rows, num_drafts = self.config.num_rows + 1, self.config.num_speculative_tokens
        return StateCache(found, num_rows, num_drafts=num_drafts, device=self.platform.device)

    def _drafter_specs(self) -> tuple[CacheSpec, ...]:
        """What the drafter's layers keep; `ConfigError` where the attention backend cannot run one of them."""
        specs = self.drafter.cache_specs if self.drafter is not None else ()
        backend = self.selection.backend
        refusal = refusal_of(type(backend), _paged(specs), self.platform)
        if refusal is not None:
            raise ConfigError(f"attention backend {backend.name!r} cannot run the drafter: {refusal}.")
        return specs

    def _allocate(self, num_blocks: int) -> None:
        self.caches.allocate([num_blocks])
        if self.drafter is not None:
            self.drafter.allocate([num_blocks])

    @torch.inference_mode()
    def _measure_kv_budget(self) -> KVBudget:
        if self.platform.device.type != "cuda":
            return cpu_kv_budget(self.config.gpu_memory_utilization)
        measurement = GpuMeasurement(self.platform.device)
        largest = _largest_plan(self.config, self._table.padding_row)
        self._step(self._assembler.lay_out(largest, self._table))
        if self._compiling is not None:
            self._compiling.join()
        self._table.sampling.needs[self._table.padding_row] = Need.RANDOM | Need.TRUNCATION
        self._step(self._assembler.lay_out(largest, self._table))
        self._table.sampling.needs[self._table.padding_row] = Need.NOTHING
        return measurement.kv_budget(self.config.gpu_memory_utilization)

    @torch.inference_mode()
    def _make_graphs(self) -> StepGraphs | None:
        if not self.platform.has_graphs or self.config.enforce_eager:
            return None
        if self.drafter is not None and not self.drafter.is_capturable:
            return None
        graphs = StepGraphs(
            self._step,
            assembler=self._assembler,
            table=self._table,
            staging=self._staging,
            max_rows=self.config.num_rows,
            max_model_len=self.max_model_len,
            widths=self.config.draft_widths,
        )
        graphs.prepare()
        return graphs

    @torch.inference_mode()
    def measure_steps(self) -> dict[tuple[int, int], float]:
        """Seconds of a step of pure decoding by (rows, drafts), where steps are replayed; nothing elsewhere."""
        return self._graphs.measure() if self._graphs is not None else {}

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> Handle:
        """Launch one step; its results are read later through the handle."""
        self._step.admit(plan)
        packed = self._graphs.replay(plan) if self._graphs is not None else None
        if packed is None:
            packed = self._step(self._assembler.lay_out(plan, self._table))
        return self._readback.begin(plan, packed)

    @property
    def row_buckets(self) -> tuple[int, ...]:
        """Ascending numbers of rows; steps of pure decoding with rows between two of them take about the same time."""
        return ROW_BUCKETS

    @property
    def num_graphs(self) -> int:
        """Shapes of steps that are replayed as graphs; 0 where every step is launched."""
        return self._graphs.num_captured if self._graphs is not None else 0

    @property
    def is_exact(self) -> bool:
        """True where every kernel on the target's path is row-invariant, and drafts are accepted by equality."""
        return self.platform.is_exact and self.selection.backend.is_exact and self._step.comparison.is_exact

    def describe(self) -> list[tuple[str, str]]:
        """What runs and why, as (name, value) lines for a person."""
        config = self.model_config
        lines = [
            ("model", f"{config.architecture}, {config.num_layers} layers, vocabulary {config.vocab_size}"),
            ("max_model_len", str(self.max_model_len)),
            ("platform", ", ".join(f"{name} {value}" for name, value in self.platform.key(self.dtype).items())),
            ("device", f"{self.platform.summary}: {self.platform.reason}"),
            ("kernels", describe_stacks(self._step.kernels)),
            ("attention backend", f"{self.selection.backend.name}: {self.selection.reason}"),
            *(("  not " + name, reason) for name, reason in self.selection.refused),
            ("KV blocks", f"{self.num_blocks - 1} of {self.config.block_size} tokens"),
            ("KV memory", self.kv_budget.explanation),
            *self._describe_states(),
            ("graphs", f"{self.num_graphs} captured" if self.num_graphs else "none"),
        ]
        if self.config.speculative is not None and self.drafter is not None:
            invariant = "row-invariant" if self.drafter.is_row_invariant else "not row-invariant"
            widths = [str(width) for width in self.config.draft_widths]
            drafts = " or ".join(filter(None, (", ".join(widths[:-1]), widths[-1]))) + " drafts a step"
            lines.append(("drafter", f"{self.config.speculative.method}, {drafts}, {invariant}"))
        else:
            lines.append(("drafter", "none"))
        lines.append(("exact", self._exactness()))
        return lines

    def _describe_states(self) -> list[tuple[str, str]]:
        if self.states is None:
            return []
        row, snapshot = (size / (1 << 20) for size in (self.states.bytes_per_row, self.states.bytes_per_snapshot))
        return [
            ("states", f"{len(self.states)} layers, {row:.2f} MiB a request"),
            ("snapshots", f"{self.num_snapshots} of {snapshot:.2f} MiB, for prefixes in the cache"),
        ]

    def _exactness(self) -> str:
        if self.is_exact:
            return "yes: tokens depend on weights, prompt, parameters and seed only"
        if not self._step.comparison.is_exact:
            return "NO: acceptance is synthetic, for benchmarks; the tokens are not the model's"
        return "NO: this platform or attention backend does not promise it"


def _paged(specs: Sequence[CacheSpec]) -> list[PagedSpec]:
    return [spec for spec in specs if isinstance(spec, PagedSpec)]


def _largest_plan(config: EngineConfig, padding_row: int) -> StepPlan:
    """As many tokens and samples as a step can have, none of them anybody's."""
    width = 1 + config.num_speculative_tokens
    left = config.step_token_budget
    counts: list[int] = []
    while left >= width and len(counts) < config.num_rows:
        counts.append(width)
        left -= width
    rows = [_padding_plan(padding_row, count, num_drafts=width - 1) for count in counts]
    if left > 0:
        rows.append(_padding_plan(padding_row, left, num_drafts=0))
    return StepPlan(
        step_id=0, admissions=(), new_blocks=(), rows=tuple(rows), num_proposals=config.num_speculative_tokens
    )


def _padding_plan(row: int, num_tokens: int, *, num_drafts: int) -> RowPlan:
    return RowPlan(
        request_id="",
        epoch=0,
        row=row,
        num_tokens=num_tokens,
        num_drafts=num_drafts,
        does_sample=True,
        length_bound=num_tokens,
        params=SamplingParams(),
    )


def _max_model_len(config: EngineConfig, model_limit: int) -> int:
    if config.max_model_len is None:
        return model_limit
    if config.max_model_len > model_limit:
        raise ConfigError(
            f"max_model_len={config.max_model_len} is above the model's max_position_embeddings={model_limit}. "
            "Lower max_model_len."
        )
    return config.max_model_len
