"""Everything one device needs for its steps: model, drafter, caches, table, graphs. Built once, in the order that
`Worker.__init__` reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.attention.caches.model_caches import CacheSpec, ModelCaches
from outrider.attention.caches.paged import PagedSpec, groups_of
from outrider.attention.selector import refusal_of, select_backend
from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.core.plan import StepPlan
from outrider.core.quantization.while_loading import quantised_while_loading
from outrider.device.assemble import Assembler, Layout
from outrider.device.graphs import ROW_BUCKETS, Replay, StepGraphs
from outrider.device.masks import MaskBuffer
from outrider.device.readback import Handle, Readback
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.invariance.memory import KernelVerdict
from outrider.kernels import load_kernels
from outrider.kernels.interface.sampling import SyntheticAcceptance
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.models import cache_specs, load_model, read_model_config
from outrider.platforms.base import BasePlatform, select_platform
from outrider.runtime.largest_step import measure_kv_budget
from outrider.runtime.memory import KVBudget, cpu_kv_budget, size_groups, size_snapshots, without
from outrider.runtime.pooling_step import PoolingStep
from outrider.runtime.step import Forwarded, Step
from outrider.runtime.warm_up import Compiling, compile_kernels
from outrider.sampling.synthetic import synthetic_acceptance
from outrider.speculation.drafter import BaseDrafter, DrafterContext, find_drafter


class Worker:
    """One device's share of an engine."""

    def __init__(self, config: EngineConfig) -> None:
        has_own_budget = config.max_num_batched_tokens is not None
        self._found_drafter = find_drafter(config.speculative) if config.speculative is not None else None
        self.platform = platform = select_platform(config.device)
        self.config = config = config.resolve(
            max_num_seqs=platform.max_num_seqs,
            num_prompt_tokens=platform.num_prompt_tokens,
            token_multiple=platform.token_multiple,
        )
        self.dtype = platform.resolve_dtype(config.dtype)
        self.model_config = with_quantization(read_model_config(config.model, runner=config.runner), config)
        self.config = config = check_pooling(config, self.model_config, platform, has_own_budget=has_own_budget)
        self.eos_token_ids = self.model_config.eos_token_ids
        self.max_model_len = _max_model_len(config, self.model_config)
        self.kernels = load_kernels(platform.kernel_stack)
        self._layers = LayerContext(kernels=self.kernels, dtype=self.dtype, device=platform.device)
        specs = cache_specs(self.model_config, self._layers)
        self.selection = select_backend(config.attention_backend, _paged(specs), platform)
        compiling = self._compile()
        self.model = self._load(config.model, self.model_config)
        self.drafter = self._load_drafter()
        self.num_lookahead = self.drafter.num_lookahead if self.drafter else 0
        self.staging = Staging(platform)
        self.groups = groups_of(_paged([*specs, *self._drafter_specs]), block_size=config.block_size)
        self.table = self._make_table()
        self.states = self._make_states(specs)
        self.caches = self._make_caches(specs)
        self.assembler = Assembler(
            kernels=self.kernels,
            staging=self.staging,
            num_drafts=config.num_speculative_tokens,
            wants_digest=config.logits_digest,
            most_open=self.states.most_open if self.states is not None else None,
        )
        self.step_function = Step(
            model=self.model,
            caches=self.caches,
            table=self.table,
            assembler=self.assembler,
            drafter=self.drafter,
            synthetic=self._synthetic(),
            states=self.states,
        )
        pooler = self.model_config.pooler
        self._run = PoolingStep(self.step_function, pooler) if pooler is not None else self.step_function
        self._allocate_blocks([2] * len(self.groups))  # the null block and one more, for steps that measure memory
        self.kv_budget = self._measure_kv_budget(compiling)
        self.num_snapshots = self._allocate_snapshots()
        self.num_blocks = self._size_blocks()
        self._allocate_blocks(self.num_blocks)
        self.masks = MaskBuffer(
            num_samples=config.num_rows * (1 + config.num_speculative_tokens),
            vocab_size=self.model_config.vocab_size,
            staging=self.staging,
            device=self.platform.device,
        )
        self.graphs = self._make_graphs()
        self._readback = Readback(platform)
        self.num_replayed_steps = self.num_launched_steps = 0
        self.verdict: KernelVerdict | None = None
        """The check of the kernels on this device; None if there was none."""
        self.step_function.drafting.is_serving = True

    def _compile(self) -> Compiling | None:
        """Start compiling kernels, if the platform compiles any."""
        if not self.platform.compiles_kernels:
            return None
        vocab_size = self.model_config.vocab_size
        return compile_kernels(self.kernels, vocab_size=vocab_size, dtype=self.dtype, platform=self.platform)

    def _load(self, directory: str, model_config: ModelConfig) -> CausalLM:
        return load_model(
            directory,
            model_config,
            self._layers,
            max_positions=self.max_model_len,
            load_format=self.config.load_format,
            seed=self.config.seed,
        )

    def _load_drafter(self) -> BaseDrafter | None:
        """The drafter with its weights, its taps set in the model.

        Raises ConfigError if the attention backend cannot run one of its layers.
        """
        if self.config.speculative is None or self._found_drafter is None:
            return None
        drafter = self._found_drafter.make(
            DrafterContext(
                config=self.config.speculative,
                options=self._found_drafter.options,
                engine=self.config,
                target_config=self.model_config,
                target=self.model,
                layers=self._layers,
                platform=self.platform,
                max_model_len=self.max_model_len,
                read_config=read_model_config,
                load_model=self._load,
            )
        )
        self.model.set_taps(drafter.tap_layers)
        backend = self.selection.backend
        refusal = refusal_of(type(backend), _paged(drafter.cache_specs), self.platform)
        if refusal is not None:
            raise ConfigError(f"attention backend {backend.name!r} cannot run the drafter: {refusal}.")
        return drafter

    @property
    def _drafter_specs(self) -> tuple[CacheSpec, ...]:
        return self.drafter.cache_specs if self.drafter is not None else ()

    def _make_table(self) -> RequestTable:
        return RequestTable(
            max_rows=self.config.num_rows,
            max_model_len=self.max_model_len,
            num_drafts=self.config.num_speculative_tokens,
            groups=self.groups,
            vocab_size=self.model_config.vocab_size,
            kernels=self.kernels,
            staging=self.staging,
            device=self.platform.device,
        )

    def _make_states(self, specs: Sequence[CacheSpec]) -> StateCache | None:
        """States of the layers that have one, for every row; None if no layer has one."""
        found = [spec for spec in specs if isinstance(spec, DeltaState)]
        if not found:
            return None
        num_rows, num_drafts = self.config.num_rows + 1, self.config.num_speculative_tokens
        return StateCache(found, num_rows, num_drafts=num_drafts, device=self.platform.device)

    def _make_caches(self, specs: Sequence[CacheSpec]) -> ModelCaches:
        """The model's caches; the drafter gets its own. Blocks have no memory yet."""

        def caches_of(specs: Sequence[CacheSpec], states: StateCache | None) -> ModelCaches:
            return ModelCaches(
                specs,
                backend=self.selection.backend,
                groups=self.groups,
                device=self.platform.device,
                states=states or (),
            )

        if self.drafter is not None:
            self.drafter.caches = caches_of(self._drafter_specs, None)
            self.drafter.attach(self.table, self.staging)
        return caches_of(specs, self.states)

    def _synthetic(self) -> SyntheticAcceptance | None:
        rates = self.config.speculative.acceptance_rates if self.config.speculative is not None else None
        if rates is None:
            return None
        return synthetic_acceptance(rates, seeds=self.table.sampling.seed, lengths=self.table.num_tokens)

    def _allocate_blocks(self, num_blocks: Sequence[int]) -> None:
        self.caches.allocate(num_blocks)
        if self.drafter is not None:
            self.drafter.allocate(num_blocks)

    def _measure_kv_budget(self, compiling: Compiling | None) -> KVBudget:
        accelerator = self.platform.accelerator
        if accelerator is None:
            return cpu_kv_budget(self.config.gpu_memory_utilization)

        def when_compiled() -> None:
            if compiling is not None:
                compiling.join()

        return measure_kv_budget(self.step_function, self.config, accelerator=accelerator, when_compiled=when_compiled)

    def _allocate_snapshots(self) -> int | None:
        """Take snapshots of states out of the budget; their number, or None for a model without states."""
        if self.states is None:
            return None
        size = self.states.bytes_per_snapshot
        count = size_snapshots(self.config, self.kv_budget, bytes_per_snapshot=size)
        self.states.allocate_snapshots(count)
        self.kv_budget = without(self.kv_budget, count * size, "snapshots of states")
        return count

    def _size_blocks(self) -> tuple[int, ...]:
        """Number of blocks of each group, null blocks included."""
        bytes_per_block = [self.caches.bytes_per_block(group) for group in range(len(self.groups))]
        if self.drafter is not None:
            for group in self.drafter.caches.group_indices:
                bytes_per_block[group] += self.drafter.caches.bytes_per_block(group)
            bytes_per_block[0] += self.drafter.extra_bytes_per_block
        return size_groups(
            self.config,
            self.kv_budget,
            groups=self.groups,
            bytes_per_block=bytes_per_block,
            max_model_len=self.max_model_len,
        )

    @torch.inference_mode()
    def _make_graphs(self) -> StepGraphs | None:
        accelerator = self.platform.accelerator
        if accelerator is None or not self.platform.has_graphs or self.config.enforce_eager:
            return None
        if self.drafter is not None and not self.drafter.is_capturable:
            return None
        graphs = StepGraphs(
            self.step_function,
            masks=self.masks,
            assembler=self.assembler,
            table=self.table,
            staging=self.staging,
            accelerator=accelerator,
            max_rows=self.config.num_rows,
            max_tokens=self.config.step_token_budget,
            max_model_len=self.max_model_len,
            widths=self.config.draft_widths,
        )
        graphs.prepare()
        return graphs

    @torch.inference_mode()
    def measure_steps(self) -> dict[tuple[int, int], float]:
        """Seconds of a step of pure decoding by (rows, drafts), if steps are replayed; else nothing."""
        return self.graphs.measure() if self.graphs is not None else {}

    @torch.inference_mode()
    def measure_mixed_steps(self) -> dict[int, float]:
        """Seconds of a step with prompt chunks by its number of tokens, if steps are replayed; else nothing."""
        return self.graphs.measure_mixed() if self.graphs is not None else {}

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> Handle:
        """Launch one step without grammars; its results are read later through the handle."""
        self.step_function.admit(plan)
        replay = self._prepare_replay(plan)
        if replay is not None:
            return self._readback.begin(plan, replay.run())
        return self._readback.begin(plan, self._run(self.assembler.lay_out(plan, self.table)))

    @torch.inference_mode()
    def begin(self, plan: StepPlan) -> "StartedStep":
        """Launch the forward pass of a step with grammars. `finish` launches the rest, before any other step."""
        self.step_function.admit(plan)
        replay = self._prepare_replay(plan)
        if replay is not None:
            replay.forward()
            return StartedStep(plan, replay)
        layout = self.assembler.lay_out(plan, self.table)
        return StartedStep(plan, (layout, self.step_function.forward(layout)))

    @torch.inference_mode()
    def finish(self, started: "StartedStep", masks: Sequence[np.ndarray | None]) -> Handle:
        """Launch the rest of a step, with the masks of its rows with grammars as `Scheduler.masks` makes them."""
        plan = started.plan
        if isinstance(started.forwarded, Replay):
            self.masks.fill(plan, masks, samples_of_rows=started.forwarded.num_samples)
            return self._readback.begin(plan, started.forwarded.sample())
        layout, forwarded = started.forwarded
        self.masks.fill(plan, masks, samples_of_rows=layout.samples_of_rows)
        packed = self.step_function.sample(layout, forwarded, self.masks.read(sum(layout.samples_of_rows)))
        return self._readback.begin(plan, packed)

    def _prepare_replay(self, plan: StepPlan) -> Replay | None:
        replay = self.graphs.prepare_replay(plan) if self.graphs is not None else None
        if replay is not None:
            self.num_replayed_steps += 1
        else:
            self.num_launched_steps += 1
        return replay

    @property
    def row_buckets(self) -> tuple[int, ...]:
        """Ascending numbers of rows; steps of pure decoding with rows between two of them take about the same time."""
        return ROW_BUCKETS

    @property
    def num_graphs(self) -> int:
        """Shapes of steps that are replayed as graphs; 0 if every step is launched kernel by kernel."""
        return self.graphs.num_captured if self.graphs is not None else 0

    @property
    def is_exact(self) -> bool:
        """True if every kernel on the target's path is row-invariant, and drafts are accepted by equality."""
        are_kernels = self.platform.is_exact or (self.verdict is not None and self.verdict.passes)
        return are_kernels and self.selection.backend.is_exact and self.step_function.synthetic is None


@dataclass(frozen=True, slots=True)
class StartedStep:
    """A step whose forward pass is launched."""

    plan: StepPlan
    forwarded: Replay | tuple[Layout, Forwarded]


def with_quantization(model_config: ModelConfig, config: EngineConfig) -> ModelConfig:
    """The target's config, with the schemes that the option `quantization` asks for."""
    found = quantised_while_loading(model_config.quantization, config.quantization, where=config.model)
    return replace(model_config, quantization=found)


def check_pooling(
    config: EngineConfig, model: ModelConfig, platform: BasePlatform, *, has_own_budget: bool
) -> EngineConfig:
    """The options of an engine whose model pools; if it generates, they stay as they are. `has_own_budget`: the caller
    chose max_num_batched_tokens. A model that is not causal gets steps that hold a whole text, and no prefix cache.

    Raises UnsupportedError or ConfigError for an option that cannot work, or a platform that cannot pool.
    """
    if model.pooler is None:
        return config
    if not platform.can_pool:
        raise UnsupportedError(
            f"{config.model} pools, and device={platform.name!r} does not: its kernels for sums over a text were not"
            " tested there. Use device='cpu'."
        )
    if config.speculative is not None:
        raise ConfigError(
            f"speculative_config={config.speculative.method!r} needs an output, and {config.model} pools: it makes no"
            " tokens. Leave speculative_config unset."
        )
    if config.logits_digest:
        raise ConfigError(f"logits_digest=True hashes logits, and {config.model} pools. Leave logits_digest unset.")
    if model.is_causal:
        return config
    longest = _max_model_len(config, model)
    if has_own_budget and config.step_token_budget < longest:
        raise ConfigError(
            f"max_num_batched_tokens={config.step_token_budget} is below max_model_len={longest}, and {config.model}"
            " reads a text in one step. Raise max_num_batched_tokens, or lower max_model_len."
        )
    return replace(config, max_num_batched_tokens=max(config.step_token_budget, longest), enable_prefix_caching=False)


def _paged(specs: Sequence[CacheSpec]) -> list[PagedSpec]:
    return [spec for spec in specs if isinstance(spec, PagedSpec)]


def _max_model_len(config: EngineConfig, model: ModelConfig) -> int:
    limit = model.pooler.max_tokens if model.pooler is not None else None
    if limit is not None and limit < model.max_length:
        if (config.max_model_len or 0) > limit:
            raise ConfigError(
                f"max_model_len={config.max_model_len} is above max_seq_length={limit} of the model's files. Lower it."
            )
        return config.max_model_len or limit
    if config.max_model_len is None:
        return model.max_length
    if config.max_model_len > model.max_length:
        reason = f"max_position_embeddings={model.max_position_embeddings}"
        if model.max_length != model.max_position_embeddings:
            rope = model.rope
            reason = (
                f"{model.max_length} tokens: its rope stretches {rope.original_max_position_embeddings} positions by "
                f"{rope.factor:g}"
            )
        raise ConfigError(f"max_model_len={config.max_model_len} is above the model's {reason}. Lower max_model_len.")
    return config.max_model_len
