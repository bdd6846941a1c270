"""What an EAGLE-3 head's config.json says, in the original form and in that of the `speculators` library.

Both describe one transformer layer, the target layers it reads (as "after k layers") and a few variants. Anything
that is not implemented is refused by name. No tensors here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Eagle3Config:
    """One head."""

    layer: ModelConfig
    """Shape of the head's layer: its own widths, rope and eps."""
    draft_vocab_size: int
    target_hidden_size: int
    tap_layers: tuple[int, ...]
    """Residual streams it reads: id k is the stream after k target layers."""
    qk_norm: bool
    norm_before_residual: bool
    norm_before_fc: bool
    fc_norm: bool
    feeds_back_normed: bool
    """The state given to the next pass is normed (`norm_output` of speculators)."""


def parse_eagle3_config(
    values: Mapping[str, Any], *, target: ModelConfig, tap_layers: tuple[int, ...] | None
) -> Eagle3Config:
    """`values` is the head's config.json; `tap_layers` overrides what it says about target layers."""
    is_speculators = "speculators_model_type" in values
    layer_values = values["transformer_layer_config"] if is_speculators else values
    if is_speculators and values["speculators_model_type"] != "eagle3":
        raise UnsupportedError(
            f"speculators_model_type={values['speculators_model_type']!r} is not built yet. Use an 'eagle3' head."
        )
    layer = ModelConfig.from_dict(layer_values, architecture="Eagle3")
    if layer.num_layers != 1:
        raise UnsupportedError(
            f"the EAGLE-3 head has num_hidden_layers={layer.num_layers}; only heads of one layer are built."
        )
    if layer.vocab_size != target.vocab_size:
        raise ConfigError(
            f"the drafter's vocab_size={layer.vocab_size} is not the target's {target.vocab_size}. "
            "A head drafts for the target it was trained on."
        )
    target_hidden_size = values.get("target_hidden_size") or (
        layer.hidden_size if is_speculators else target.hidden_size
    )
    if target_hidden_size != target.hidden_size:
        raise ConfigError(
            f"the drafter reads hidden states of width {target_hidden_size} and the target has {target.hidden_size}. "
            "A head drafts for the target it was trained on."
        )
    draft_vocab_size = values.get("draft_vocab_size") or values.get("truncated_vocab_size") or layer.vocab_size
    if not 0 < draft_vocab_size <= layer.vocab_size:
        raise ConfigError(f"draft_vocab_size={draft_vocab_size} does not fit vocab_size={layer.vocab_size}.")
    if not is_speculators and values.get("norm_output") is not None:
        raise UnsupportedError(
            "norm_output in an original-format head means different things in different tools; it is not guessed. "
            "Remove it, or convert the head to the speculators format."
        )
    return Eagle3Config(
        layer=layer,
        draft_vocab_size=draft_vocab_size,
        target_hidden_size=target_hidden_size,
        tap_layers=tap_layers or _tap_layers(values, num_layers=target.num_layers),
        qk_norm=layer_values.get("model_type") == "qwen3",
        norm_before_residual=bool(values.get("norm_before_residual", False)),
        norm_before_fc=bool(values.get("norm_before_fc", False)),
        fc_norm=bool(values.get("fc_norm", False)),
        feeds_back_normed=bool(values.get("norm_output", False)),
    )


def _tap_layers(values: Mapping[str, Any], *, num_layers: int) -> tuple[int, ...]:
    """Top-level ids count layers before the tap; ids nested in `eagle_config` name the layer whose output it is."""
    ids = values.get("eagle_aux_hidden_state_layer_ids")
    if ids is not None:
        return tuple(ids)
    nested = (values.get("eagle_config") or {}).get("eagle_aux_hidden_state_layer_ids")
    if nested is not None:
        return tuple(layer_id + 1 for layer_id in nested)
    default = (2, num_layers // 2, num_layers - 3)
    if min(default) < 0:
        raise CheckpointError(
            f"the head names no target layers, and the usual ones {default} do not exist in a target of {num_layers} "
            "layers. Set aux_hidden_state_layer_ids in speculative_config."
        )
    return default
