"""The arithmetic of a model: one name and signature per kernel, several implementations.

`kernels/reference/` is plain PyTorch: what a CPU runs, and the oracle of every other implementation. All are
row-invariant: the result of a token has the same bits whatever else is in the call.
"""

import importlib
import types
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from outrider.core.errors import ConfigError
from outrider.kernels.reference.gated_delta import StateRows
from outrider.kernels.reference.sampling import Comparison, Logprobs


class Kernels(Protocol):
    """The kernels that layers call. Shapes: M tokens, K input width, N output width, D head dim."""

    def empty_weight(self, output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """[output_size, input_size], unfilled, in the memory layout that `linear` reads fastest."""

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
    ) -> Tensor:
        """x [M, K], weight [N, K], bias [N] -> [M, N] = x weightᵀ + bias, in x's dtype or in out_dtype."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False) -> Tensor:
        """x [..., K], weight [K] -> [..., K] as Llama has it; with `plus_one` multiplied by 1 + weight."""

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x, residual [M, K] -> (norm of their sum, their sum)."""

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """gate_up [M, 2I], gate first -> [M, I] = silu(gate) × up."""

    def gate_heads(self, x: Tensor, heads: Tensor) -> Tensor:
        """x [M, H, D], heads [M, at least 2H, D] -> x × sigmoid(gate); the gate of head i is heads[:, 2i + 1]."""

    def add_gated(self, x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        """x, y [M, K], gate [M] fp32 -> [M, K] = x + sigmoid(gate) × y, the product rounded to x's dtype."""

    def empty_expert_weights(
        self, num_experts: int, output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """[num_experts, output_size, input_size], unfilled, in the memory layout that `experts` reads fastest."""

    def route(self, logits: Tensor, *, top_k: int, is_normalized: bool) -> Any:
        """logits [M, E] fp32 -> what `experts` needs to know of the choice: `kernels/reference/routing.py`."""

    def experts(self, x: Tensor, gate_up: Tensor, down: Tensor, routing: Any) -> Tensor:
        """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K], the weighted sum of each token's gated MLPs."""

    def rotary(self, x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
        """x [M, H, D], positions [M] int64, cos_sin [P, R] with R <= D -> [M, H, D], halves rotated."""

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        """ids [M] int64, weight [V, K] -> [M, K]."""

    def write_kv(self, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
        """k, v [M, Hk, D] into caches [num_blocks, block_size, Hk, D] at slots [M] int64."""

    def rotary_and_write_kv(
        self,
        heads: Tensor,
        positions: Tensor,
        cos_sin: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slots: Tensor,
        *,
        norms: tuple[Tensor, Tensor] | None = None,
        eps: float = 0.0,
        plus_one: bool = False,
        has_gates: bool = False,
    ) -> Tensor:
        """heads [M, Hq + 2 Hk, D] -> q [M, Hq, D]: rms_norm of q and k by `norms`, rotary, write_kv. `has_gates`: a
        gate stands behind each head of q."""

    def state_rows(
        self,
        num_computed: Tensor,
        state_lengths: Tensor,
        state_known: Tensor,
        *,
        rows: Tensor,
        num_known: Tensor,
        num_drafts: Tensor,
        num_tokens_left: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Where the rows of a step stand, for layers with a state: `kernels/reference/gated_delta.py`."""

    def gated_delta_inputs(
        self,
        projected: Tensor,
        inputs: Tensor,
        conv_weight: Tensor,
        a_log: Tensor,
        dt_bias: Tensor,
        at: StateRows,
        *,
        num_key_heads: int,
        key_size: int,
        value_size: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """projected [M, channels + Vh dv + 2 Vh] -> q, k [M, Kh, dk], v [M, Vh, dv], log decay and β [M, Vh]."""

    def gated_delta_rule(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor,
        beta: Tensor,
        state: Tensor,
        keys: Tensor,
        deltas: Tensor,
        log_decays: Tensor,
        at: StateRows,
    ) -> Tensor:
        """What q reads from the states, [M, Vh, dv]; states move to their targets."""

    def save_states(
        self,
        state: Tensor,
        keys: Tensor,
        deltas: Tensor,
        log_decays: Tensor,
        inputs: Tensor,
        saved_state: Tensor,
        saved_inputs: Tensor,
        *,
        rows: Tensor,
        slots: Tensor,
        sources: Tensor,
        lengths: Tensor,
        most_open: int,
    ) -> None:
        """Snapshots of rows' states behind their first `lengths` tokens: `kernels/reference/gated_delta.py`."""

    def load_states(
        self,
        state: Tensor,
        inputs: Tensor,
        saved_state: Tensor,
        saved_inputs: Tensor,
        *,
        rows: Tensor,
        slots: Tensor,
        lengths: Tensor,
    ) -> None:
        """Rows that start from a snapshot."""

    def finish_gated_delta(
        self,
        out: Tensor,
        projected: Tensor,
        k: Tensor,
        log_decay: Tensor,
        weight: Tensor,
        eps: float,
        inputs: Tensor,
        keys: Tensor,
        log_decays: Tensor,
        at: StateRows,
    ) -> Tensor:
        """[M, Vh dv]: the norm of each head, gated by z; open tokens go to the rings."""

    def plan_attention(
        self, block_tables: Tensor, kv_lengths: Tensor, *, row_counts: tuple[int, ...], kv_length_bound: int
    ) -> Any:
        """What `paged_attention` needs to know of a step, made once for all layers."""

    def paged_attention(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        plan: Any,
        *,
        scale: float,
        kv_start: int = 0,
        window: int | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """q [M, Hq, D] -> [M, Hq, D]; token t sees KV [max(kv_start, length - window), length) of its row."""

    def assemble(
        self,
        token_ids: Tensor,
        num_tokens: Tensor,
        num_computed: Tensor,
        max_total: Tensor,
        drafts: Tensor,
        num_drafts: Tensor,
        block_tables: Tensor,
        *,
        rows: Tensor,
        num_known: Tensor,
        draft_bound: Tensor,
        token_row: Tensor,
        token_offset: Tensor,
        block_size: int,
    ) -> Any:
        """Ids, positions and slots of a step from the request table: `kernels/reference/step_inputs.py`."""

    def commit(
        self,
        token_ids: Tensor,
        num_tokens: Tensor,
        num_computed: Tensor,
        *,
        rows: Tensor,
        num_known: Tensor,
        num_tokens_left: Tensor,
        emitted: Tensor,
        num_emitted: Tensor,
        num_accepted: Tensor,
    ) -> None:
        """Append emitted tokens to the request table and advance its lengths."""

    def put_drafts(
        self,
        drafts: Tensor,
        num_drafts: Tensor,
        *,
        rows: Tensor,
        proposed: Tensor,
        has_sampled: Tensor,
        num_tokens: Tensor,
        vocab_size: int,
        position_limit: int,
    ) -> None:
        """Store drafts up to the first that is no token id."""

    def chain_known(
        self,
        token_ids: Tensor,
        num_tokens: Tensor,
        block_tables: Tensor,
        *,
        rows: Tensor,
        token_row: Tensor,
        positions: Tensor,
        kv_lengths: Tensor,
        first_index: int,
        block_size: int,
    ) -> Any:
        """Inputs of a drafter's pass over the tokens behind the target's: `kernels/reference/step_inputs.py`."""

    def chain_drafted(
        self,
        num_tokens: Tensor,
        max_total: Tensor,
        block_tables: Tensor,
        *,
        rows: Tensor,
        drafts: Tensor,
        num_emitted: Tensor,
        step: int,
        vocab_size: int,
        first_index: int,
        block_size: int,
    ) -> Any:
        """Inputs of a drafter's pass over its own last drafts: `kernels/reference/step_inputs.py`."""

    def process(
        self,
        logits: Tensor,
        *,
        rows: Tensor,
        offsets: Tensor,
        lengths: Tensor,
        drafts: Tensor,
        num_logit_bias: Tensor,
        logit_bias_ids: Tensor,
        logit_bias: Tensor,
        min_length: Tensor,
        num_stop_token_ids: Tensor,
        stop_token_ids: Tensor,
        output_counts: Tensor,
        prompt_mask: Tensor,
        repetition: Tensor,
        presence: Tensor,
        frequency: Tensor,
        allowed: Tensor,
        num_bad_words: Tensor,
        bad_words: Tensor,
        token_ids: Tensor | None,
        num_prompt_tokens: Tensor,
        bias_index: Tensor | None,
        min_tokens_index: Tensor | None,
        penalty_index: Tensor | None,
        allowed_index: Tensor | None,
        bad_words_index: Tensor | None,
    ) -> Tensor:
        """logits [S, V] fp32 -> what changes them before temperature: `kernels/reference/sampling.py`."""

    def choose(
        self,
        logits: Tensor,
        *,
        rows: Tensor,
        positions: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        seeds: Tensor,
        completion_indices: Tensor,
        random_index: Tensor | None,
        truncation_index: Tensor | None,
    ) -> Tensor:
        """A token [S] int64 for each row of processed logits [S, V] fp32."""

    def draft_choose(
        self,
        logits: Tensor,
        target_ids: Tensor,
        *,
        rows: Tensor,
        positions: Tensor,
        temperature: Tensor,
        seeds: Tensor,
        completion_indices: Tensor,
        has_random_rows: bool,
    ) -> Tensor:
        """Target ids [R] int64 of drafts, under the target's own noise; logits [R, draft vocabulary] fp32."""

    def logprobs(self, logits: Tensor, token_ids: Tensor, *, num_top: int, given_ids: Tensor | None = None) -> Logprobs:
        """Log-probabilities and ranks of chosen, most likely and given tokens of raw logits [S, V] fp32."""

    def hash_rows(self, logits: Tensor) -> Tensor:
        """A 64-bit hash [S] int64 of the bits of each row of logits [S, V] fp32."""

    def verify(
        self,
        sampled_ids: Tensor,
        *,
        sample_starts: Tensor,
        num_samples: Tensor,
        drafts: Tensor,
        num_tokens_left: Tensor,
        rows: Tensor | None = None,
        comparison: Comparison | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token ids [R, k + 1], their number, accepted and real drafts [R]: `kernels/reference/sampling.py`."""


FILES = {
    "empty_weight": "linear",
    "linear": "linear",
    "rms_norm": "norm",
    "add_rms_norm": "norm",
    "silu_and_mul": "activation",
    "gate_heads": "activation",
    "add_gated": "activation",
    "empty_expert_weights": "experts",
    "route": "routing",
    "experts": "experts",
    "rotary": "rope",
    "embedding": "embedding",
    "write_kv": "kv",
    "rotary_and_write_kv": "kv",
    "plan_attention": "attention",
    "paged_attention": "attention",
    "state_rows": "gated_delta",
    "gated_delta_inputs": "gated_delta",
    "gated_delta_rule": "gated_delta",
    "finish_gated_delta": "gated_delta",
    "save_states": "gated_delta",
    "load_states": "gated_delta",
    "assemble": "step_inputs",
    "commit": "step_inputs",
    "put_drafts": "step_inputs",
    "chain_known": "step_inputs",
    "chain_drafted": "step_inputs",
    "process": "sampling",
    "choose": "sampling",
    "draft_choose": "sampling",
    "logprobs": "sampling",
    "hash_rows": "sampling",
    "verify": "sampling",
}
"""The file that holds each kernel, in every implementation."""


IMPLEMENTATIONS = {"reference": f"{__name__}.reference", "hopper": f"{__name__}.hopper"}
"""Each implementation and the package of its files."""


def load_kernels(name: str) -> Kernels:
    """The implementation called `name`."""
    if name not in IMPLEMENTATIONS:
        raise ConfigError(f"kernels {name!r} are not known. Known: {', '.join(IMPLEMENTATIONS)}.")
    functions: dict[str, Callable[..., Any]] = {}
    for function, file in FILES.items():
        if file == "sampling" and name == "hopper":
            file = "sampling.choose"
        functions[function] = getattr(importlib.import_module(f"{IMPLEMENTATIONS[name]}.{file}"), function)
    return cast(Kernels, types.SimpleNamespace(**functions))
