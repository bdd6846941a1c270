"""Everything one device needs for its steps: model, drafter, KV memory, table. Built once, in this order:

platform -> kernels and attention backend -> target weights -> drafter -> number of KV blocks -> memory -> step.
"""

import torch

from outrider.attention.kv import KVCache
from outrider.attention.selector import select_backend
from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError
from outrider.core.plan import StepPlan
from outrider.device.assemble import Assembler
from outrider.device.readback import Handle
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.kernels import load_kernels
from outrider.layers.context import LayerContext
from outrider.layers.decoder import kv_spec
from outrider.loading.hf import read_model_config
from outrider.models import load_model
from outrider.platforms.base import select_platform
from outrider.runtime.memory import size_blocks
from outrider.runtime.step import Step
from outrider.speculation.drafter import BaseDrafter, DrafterContext, load_drafter


class Worker:
    """One device's share of an engine."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.platform = select_platform(config.device)
        self.dtype = self.platform.resolve_dtype(config.dtype)
        self.model_config = read_model_config(config.model)
        self.eos_token_ids = self.model_config.eos_token_ids
        self.max_model_len = _max_model_len(config, self.model_config.max_position_embeddings)
        kernels = load_kernels(self.platform.kernels)
        spec = kv_spec(self.model_config, dtype=self.dtype, block_size=config.block_size)
        self.selection = select_backend(config.attention_backend, spec, self.platform)
        context = LayerContext(
            kernels=kernels, backend=self.selection.backend, dtype=self.dtype, device=self.platform.device
        )
        model = load_model(
            config.model,
            self.model_config,
            context,
            max_positions=self.max_model_len,
            load_format=config.load_format,
            seed=config.seed,
        )
        self.drafter: BaseDrafter | None = None
        if config.speculative is not None:
            self.drafter = load_drafter(
                DrafterContext(
                    config=config.speculative,
                    engine=config,
                    target_config=self.model_config,
                    target=model,
                    layers=context,
                    platform=self.platform,
                    max_model_len=self.max_model_len,
                    block_size=config.block_size,
                )
            )
            model.set_taps(self.drafter.tap_layers)
        drafter_bytes = self.drafter.bytes_per_block if self.drafter else 0
        self.num_blocks = size_blocks(
            config, bytes_per_block=spec.bytes_per_block + drafter_bytes, max_model_len=self.max_model_len
        )
        self.num_lookahead = self.drafter.num_lookahead if self.drafter else 0
        staging = Staging(self.platform.device)
        table = RequestTable(
            max_rows=config.max_num_seqs,
            max_model_len=self.max_model_len,
            num_drafts=config.num_speculative_tokens,
            block_size=config.block_size,
            vocab_size=self.model_config.vocab_size,
            kernels=kernels,
            device=self.platform.device,
        )
        if self.drafter is not None:
            self.drafter.allocate(self.num_blocks, config.block_size)
            self.drafter.attach(table, staging)
        self._step = Step(
            model=model,
            caches=KVCache(spec, self.num_blocks, device=self.platform.device),
            table=table,
            assembler=Assembler(
                kernels=kernels,
                staging=staging,
                max_rows=config.max_num_seqs,
                num_drafts=config.num_speculative_tokens,
                wants_digest=config.logits_digest,
            ),
            drafter=self.drafter,
        )

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> Handle:
        """Launch one step."""
        return self._step(plan)

    @property
    def is_exact(self) -> bool:
        """True where every kernel on the target's path is row-invariant."""
        return self.platform.is_exact and self.selection.backend.is_exact

    def describe(self) -> list[tuple[str, str]]:
        """What runs and why, as (name, value) lines for a person."""
        config = self.model_config
        lines = [
            ("model", f"{config.architecture}, {config.num_layers} layers, vocabulary {config.vocab_size}"),
            ("max_model_len", str(self.max_model_len)),
            ("platform", ", ".join(f"{name} {value}" for name, value in self.platform.key(self.dtype).items())),
            ("kernels", self.platform.kernels),
            ("attention backend", f"{self.selection.backend.name}: {self.selection.reason}"),
            *(("  not " + name, reason) for name, reason in self.selection.refused),
            ("KV blocks", f"{self.num_blocks - 1} of {self.config.block_size} tokens"),
        ]
        if self.config.speculative is not None and self.drafter is not None:
            invariant = "row-invariant" if self.drafter.is_row_invariant else "not row-invariant"
            drafts = f"{self.config.num_speculative_tokens} drafts a step"
            lines.append(("drafter", f"{self.config.speculative.method}, {drafts}, {invariant}"))
        else:
            lines.append(("drafter", "none"))
        lines.append(
            ("exact", "yes: tokens depend on weights, prompt, parameters and seed only" if self.is_exact else "NO")
        )
        return lines


def _max_model_len(config: EngineConfig, model_limit: int) -> int:
    if config.max_model_len is None:
        return model_limit
    if config.max_model_len > model_limit:
        raise ConfigError(
            f"max_model_len={config.max_model_len} is above the model's max_position_embeddings={model_limit}. "
            "Lower max_model_len."
        )
    return config.max_model_len
