"""The rules by which calls of each kernel become cases."""

from collections.abc import Callable, Sequence

from outrider.invariance.by_row import ByRow
from outrider.invariance.calls import Call
from outrider.invariance.form import Form, Limits
from outrider.invariance.integers import integer_forms
from outrider.invariance.paged import paged_forms
from outrider.invariance.states import NAMES as STATES
from outrider.invariance.states import state_forms
from outrider.invariance.texts import sum_forms, text_forms

_PRODUCT, _MIXTURE = ByRow(rows=("x",)), ByRow(rows=("x", "routing"))
_FORMATS = ("fp8", "int8", "int4", "mxfp4", "fp8_block")

BY_ROW = {
    **dict.fromkeys(("linear", "text_linear", *(f"linear_{form}" for form in _FORMATS)), _PRODUCT),
    **dict.fromkeys(("experts", *(f"experts_{form}" for form in _FORMATS)), _MIXTURE),
    **dict.fromkeys(("clamped_experts", "clamped_experts_mxfp4"), _MIXTURE),
    **{name: ByRow(rows=("x",)) for name in ("rms_norm", "layer_norm", "gelu", "project_heads")},
    **{name: ByRow(rows=("gate_up",)) for name in ("silu_and_mul", "gelu_tanh_and_mul", "gelu_and_mul")},
    **{name: ByRow(rows=("logits",)) for name in ("route", "route_grouped")},
    "add_rms_norm": ByRow(rows=("x", "residual")),
    "gate_heads": ByRow(rows=("x", "heads")),
    "add_gated": ByRow(rows=("x", "y", "gate")),
    "rotary": ByRow(rows=("x", "positions")),
    "embedding": ByRow(rows=("ids",)),
    "write_kv": ByRow(rows=("k", "v", "slots"), caches=("k_cache", "v_cache")),
    "rotary_and_write_kv": ByRow(rows=("heads", "positions", "slots"), caches=("k_cache", "v_cache")),
    "rotary_and_write_latent": ByRow(rows=("q", "latent", "positions", "slots"), caches=("cache",)),
    "process": ByRow(
        rows=("logits", "rows", "offsets", "lengths", "drafts"),
        indices=("bias_index", "min_tokens_index", "penalty_index", "allowed_index", "bad_words_index"),
        is_sampling=True,
    ),
    "apply_masks": ByRow(rows=("logits", "of_sample"), is_sampling=True),
    "choose": ByRow(
        rows=("logits", "rows", "positions"), indices=("random_index", "truncation_index"), is_sampling=True
    ),
    "draft_choose": ByRow(rows=("logits", "rows", "positions"), is_sampling=True),
    "logprobs": ByRow(rows=("logits", "token_ids", "given_ids"), is_sampling=True),
    "hash_rows": ByRow(rows=("logits",), is_sampling=True),
    "normalize_vectors": ByRow(rows=("vectors", "sizes", "is_wanted"), is_sampling=True),
    "activate_labels": ByRow(rows=("logits", "is_wanted"), is_sampling=True),
}
"""Kernels whose result for a row follows from that row, and from weights and tables."""

INTEGERS = (
    "admit",
    "assemble",
    "commit",
    "put_drafts",
    "chain_known",
    "chain_drafted",
    "state_rows",
    "verify",
)
"""Kernels that compute with integers only."""

WITHOUT = {
    **dict.fromkeys(("empty_weight", "empty_expert_weights"), "it allocates"),
    **{f"empty_{form}": "it allocates" for form in ("fp8", "int8", "int4")},
    "linear_compilations": "it compiles",
    "plan_attention": "paged_attention is checked with its plans",
    "plan_texts": "text_attention is checked with its plans",
}
"""Functions without a case, with the reason."""

ROWS: dict[str, tuple[str, ...]] = {
    **{name: rule.rows for name, rule in BY_ROW.items()},
    **dict.fromkeys(INTEGERS, ()),
    "paged_attention": ("q", "plan"),
    "latent_attention": ("q", "plan"),
    "text_attention": ("q", "k", "v", "plan"),
    "add_tokens": ("x", "rows", "starts", "counts"),
    "gated_delta_inputs": ("projected", "at"),
    "gated_delta_rule": ("q", "k", "v", "log_decay", "beta", "at"),
    "finish_gated_delta": ("out", "projected", "k", "log_decay", "at"),
}
"""Functions whose calls are recorded, and their arguments with one entry for each row."""

_OWN: dict[str, Callable[[Call, Limits], list[Form]]] = {
    "paged_attention": paged_forms,
    "latent_attention": paged_forms,
    "text_attention": text_forms,
    "add_tokens": sum_forms,
}


def title_of(call: Call) -> str:
    """The name of a call's case; empty where another call's case covers it."""
    if call.name in STATES:
        return ", ".join(STATES) if call.name == STATES[0] else ""
    return call.name


def forms_of(call: Call, calls: Sequence[Call], limits: Limits) -> list[Form]:
    """The forms of a call's case."""
    if call.name in BY_ROW:
        return BY_ROW[call.name].forms(call, limits)
    if call.name in INTEGERS:
        return integer_forms(call, limits)
    if call.name in STATES:
        return state_forms(call, calls, limits)
    return _OWN[call.name](call, limits)
