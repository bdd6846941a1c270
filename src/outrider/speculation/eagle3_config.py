"""Config of an EAGLE-3 head, in the original form and in that of the `speculators` library.

Both describe the head's layers, the target layers it reads (as "after k layers") and a few variants. Anything that
is not implemented is refused by name. No tensors here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.ignored_keys import ignore_leftovers
from outrider.core.model_config import ModelConfig, read_dense
from outrider.core.quantization.read import read_quantization

_MODEL_TYPES = ("llama", "qwen2", "qwen3")
"""Kinds of layers: qwen3 norms the heads of q and k; the others differ only in biases, which the config states."""

_QWEN3_HEAD_DIM = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Eagle3Config:
    """One head."""

    layer: ModelConfig
    """Shape of the head's layers, and how many there are: its own widths, rope and eps."""
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
    norms_logits: bool
    """lm_head reads the normed state, as in nearly every head."""


def read_eagle3_config(
    reader: ConfigReader,
    *,
    target: ModelConfig,
    tap_layers: tuple[int, ...] | None,
    norm_output: str | None = None,
) -> Eagle3Config:
    """`reader` reads the head's config.json; `tap_layers` overrides what it says about target layers.

    norm_output: the meaning of the config's key of this name in the original format, one of NORM_OUTPUT.
    """
    is_speculators = reader.has("speculators_model_type")
    layer_reader = _speculators_layer(reader) if is_speculators else reader
    feeds_back_normed, norms_logits = _read_norm_output(reader, meaning="fed_back" if is_speculators else norm_output)
    if norm_output is not None and (is_speculators or not reader.has("norm_output")):
        raise ConfigError(
            f"speculative_config['norm_output']={norm_output!r} has no effect: it says what norm_output in the config"
            f" of a head in the original format means, and {reader.where} has another format or no such key. Leave it"
            " unset."
        )
    qk_norm = layer_reader.text("model_type", default="llama") == "qwen3"
    layer = read_dense(
        layer_reader,
        model_types=_MODEL_TYPES,
        architecture="Eagle3",
        default_head_dim=_QWEN3_HEAD_DIM if qk_norm else None,
        has_mlp_bias=True,
    )
    own_width = layer.hidden_size if is_speculators else target.hidden_size
    vocab_key = "draft_vocab_size" if reader.has("draft_vocab_size") else "truncated_vocab_size"
    stated_taps = _read_tap_layers(reader)
    config = Eagle3Config(
        layer=replace(layer, quantization=read_quantization(reader)),
        draft_vocab_size=reader.integer(vocab_key, default=layer.vocab_size),
        target_hidden_size=reader.integer("target_hidden_size", default=own_width),
        tap_layers=tap_layers or stated_taps or _usual_tap_layers(target.num_layers),
        qk_norm=qk_norm,
        norm_before_residual=reader.flag("norm_before_residual"),
        norm_before_fc=_read_norm_before_fc(reader),
        fc_norm=reader.flag("fc_norm"),
        feeds_back_normed=feeds_back_normed,
        norms_logits=norms_logits,
    )
    reader.finish()
    _check_fit(config, target)
    return config


NORM_OUTPUT: Mapping[str, str] = {
    "fed_back": "the state that the next pass reads is normed",
    "logits": "the state is normed before lm_head, and fed back as it is",
}
"""Meanings of norm_output in the configs of different tools."""


def _read_norm_output(reader: ConfigReader, *, meaning: str | None) -> tuple[bool, bool]:
    """(the state is fed back normed, lm_head reads it normed)."""
    if not reader.has("norm_output"):
        return False, True
    if meaning is None:
        meanings = ", ".join(f"{name!r} ({text})" for name, text in NORM_OUTPUT.items())
        raise UnsupportedError(
            f"{reader.said('norm_output')} is not supported in the original format by itself, because tools disagree"
            f" about its meaning. Set norm_output in speculative_config to {meanings}, as the tool meant that trained"
            " the head."
        )
    value = reader.flag("norm_output")
    return (value, True) if meaning == "fed_back" else (False, value)


def _speculators_layer(reader: ConfigReader) -> ConfigReader:
    """The section of the layer; reads what only the speculators format has around it."""
    ignore_leftovers(reader)
    reader.choice("speculators_model_type", ("eagle3",))
    reader.ignore("architectures", reason="the method says what kind of head it is")
    reader.ignore("speculators_version", reason="version of the tool that saved the config")
    reader.ignore("embed_requires_grad", reason="training only")
    reader.ignore("dtype", "torch_dtype", reason="weights are cast to the engine's dtype")
    reader.ignore("tie_word_embeddings", reason="the head's files hold its own lm_head")
    proposal = reader.section("speculators_config")
    proposal.choice("algorithm", ("eagle3",), default="eagle3")
    proposal.ignore(
        "default_proposal_method",
        "proposal_methods",
        reason="speculative_config says how many drafts there are, and verification is exact",
    )
    proposal.ignore("verifier", reason="the engine's model is the target")
    if not reader.has("transformer_layer_config"):
        raise ConfigError(f"{reader.where} has no transformer_layer_config. Copy the file that came with the head.")
    return reader.section("transformer_layer_config")


def _read_norm_before_fc(reader: ConfigReader) -> bool:
    """True if one norm is over all taps. Some tools say so in `eagle_config`."""
    key, nested = "norm_before_fc", reader.section("eagle_config")
    if reader.has(key) and nested.has(key) and reader.flag(key) != nested.flag(key):
        raise ConfigError(f"{nested.said(key)} contradicts {reader.said(key)}. Remove one of the two.")
    return nested.flag(key, default=reader.flag(key))


def _read_tap_layers(reader: ConfigReader) -> tuple[int, ...]:
    """Target layers that the config names, as "after k layers"; empty if it names none.

    Top-level ids count layers before the tap. Ids nested in `eagle_config` name the layer whose output is read, which
    is one layer later.
    """
    key = "eagle_aux_hidden_state_layer_ids"
    nested = reader.section("eagle_config")
    nested.choice("use_aux_hidden_state", (True,), default=True)
    nested.neutral("use_input_layernorm_in_first_layer", True, reason="every head norms its input")
    nested.neutral("use_last_layernorm", True, reason="every head norms its output before lm_head")
    nested.neutral("use_mtp_layernorm", False, reason="no further norms")
    nested.neutral("next_layer_regular", True, reason="further layers are ordinary ones")
    nested.neutral("parallel_draft_step", 1, reason="every pass drafts one token")
    nested.neutral("parallel_draft_heads_num_layers", 0, 1, reason="every pass drafts one token")
    stated = reader.integers(key)
    counted = tuple(layer_id + 1 for layer_id in nested.integers(key))
    for section, ids in ((reader, stated), (nested, counted)):
        if section.has(key) and not ids:
            raise ConfigError(f"{section.said(key)} names no layer. Name the target layers that the head reads.")
    if stated and counted and stated != counted:
        raise ConfigError(
            f"{nested.said(key)} contradicts {reader.said(key)}: nested ids name the layer whose output is read,"
            " top-level ids the number of layers before it. Remove one of the two."
        )
    return stated or counted


def _usual_tap_layers(num_layers: int) -> tuple[int, ...]:
    """Layers that a head reads if its config names none."""
    usual = (2, num_layers // 2, num_layers - 3)
    if min(usual) < 0:
        raise CheckpointError(
            f"the head names no target layers, and the usual ones {usual} do not exist in a target of {num_layers} "
            "layers. Set aux_hidden_state_layer_ids in speculative_config."
        )
    return usual


def _check_fit(config: Eagle3Config, target: ModelConfig) -> None:
    """The head was made for a target of this vocabulary and width."""
    if config.layer.vocab_size != target.vocab_size:
        raise ConfigError(
            f"the drafter's vocab_size={config.layer.vocab_size} is not the target's {target.vocab_size}. "
            "A head drafts for the target it was trained on."
        )
    if config.target_hidden_size != target.hidden_size:
        raise ConfigError(
            f"the drafter reads hidden states of width {config.target_hidden_size} and the target has"
            f" {target.hidden_size}. A head drafts for the target it was trained on."
        )
    if config.draft_vocab_size > config.layer.vocab_size:
        raise ConfigError(
            f"draft_vocab_size={config.draft_vocab_size} is more than vocab_size={config.layer.vocab_size}. Use the"
            " config.json that came with the head."
        )
