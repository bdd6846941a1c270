"""A model's config.json as the engine reads it: old and new spellings in, one frozen record out. No torch.

Every value that is not implemented is refused here by field and value; nothing is skipped silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import ConfigError, UnsupportedError

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
DTYPES = ("float32", "bfloat16", "float16")

_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""Keys that each rope type reads, besides rope_theta and partial_rotary_factor."""

_ROPE_REQUIRED = ("factor", "low_freq_factor", "high_freq_factor")

_MAX_LENGTH = 2**31 - 1

_FULL, _LINEAR = "full_attention", "linear_attention"

_HYBRIDS = (
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
    "Qwen3_5MoeForCausalLM",
    "Qwen3NextForCausalLM",
)
"""Gated DeltaNet and gated attention, with norms that multiply by 1 + weight."""

_TEXT_PART = ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration")
"""Multimodal models of which the text part is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; fields that a type does not read keep their defaults."""

    rope_type: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    """llama3, yarn: positions the model was first trained on."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """yarn: factor on cos and sin; None derives it from factor and mscale."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    """yarn: round the bounds of the ramp to whole dimensions."""
    partial_rotary_factor: float = 1.0
    """Leading share of each head that is rotated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDeltaConfig:
    """Widths of the linear attention of a hybrid."""

    num_key_heads: int
    num_value_heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig:
    """The mixture of experts of a model: every MLP whose layer is not named in `dense_layers`."""

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    """Width of one expert."""
    is_normalized: bool
    """Weights of the chosen experts sum to one (`norm_topk_prob`)."""
    shared_intermediate_size: int = 0
    """Width of the expert that every token goes to, under a gate of its own; 0 without one."""
    dense_layers: frozenset[int] = frozenset()
    """Layers whose MLP is a plain one of the model's intermediate_size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What shapes a decoder-only text model."""

    architecture: str
    """First of `architectures`; the name that a file of `outrider/models` answers to."""
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    """Biases on q, k, v and o."""
    mlp_bias: bool = False
    """Biases on gate, up and down."""
    attn_output_gate: bool = False
    """Attention's output is multiplied by a gate that stands in q_proj, behind each head."""
    norm_plus_one: bool = False
    """Norms multiply by 1 + weight."""
    layer_types: tuple[str, ...] = ()
    """"full_attention" or "linear_attention" of each layer; empty where all attend."""
    gated_delta: GatedDeltaConfig | None = None
    """Widths of the layers with linear attention; None where there are none."""
    moe: MoeConfig | None = None
    num_mtp_layers: int = 0
    """Prediction layers that the checkpoint says it has."""
    hidden_act: str = "silu"
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "float32"
    """dtype the checkpoint was saved in."""

    @property
    def group_size(self) -> int:
        """Query heads per kv head."""
        return self.num_heads // self.num_kv_heads

    @property
    def rotary_size(self) -> int:
        """Dims of a head that are rotated."""
        return int(self.head_dim * self.rope.partial_rotary_factor)

    def has_state(self, index: int) -> bool:
        """True where layer `index` keeps a recurrent state instead of keys and values."""
        return bool(self.layer_types) and self.layer_types[index] == _LINEAR

    @property
    def num_attention_layers(self) -> int:
        """Layers that keep keys and values."""
        return sum(not self.has_state(index) for index in range(self.num_layers))

    @staticmethod
    def from_dict(values: Mapping[str, Any], *, architecture: str | None = None) -> "ModelConfig":
        """From the content of a config.json; `architecture` overrides what it says (a drafter's inner config)."""
        if architecture is None:
            architectures = values.get("architectures")
            if not isinstance(architectures, list) or not architectures:
                raise ConfigError(
                    f"config.json: architectures={architectures!r} names no model."
                    " Add a list such as ['LlamaForCausalLM']."
                )
            architecture = str(architectures[0])
        if architecture in _TEXT_PART:
            values = _text_part(values)
        is_hybrid = architecture in _HYBRIDS
        _refuse_unbuilt(values, is_hybrid=is_hybrid)
        hidden_size = _integer(values, "hidden_size")
        num_heads = _integer(values, "num_attention_heads")
        num_kv_heads = _integer(values, "num_key_value_heads", default=num_heads)
        if num_heads % num_kv_heads:
            raise ConfigError(
                f"config.json: num_attention_heads={num_heads} is not a multiple of"
                f" num_key_value_heads={num_kv_heads}. Query heads share kv heads in equal groups."
            )
        max_positions = _integer(values, "max_position_embeddings")
        num_layers = _integer(values, "num_hidden_layers")
        moe = _moe(values, num_layers=num_layers)
        is_dense = moe is None or bool(moe.dense_layers)
        return ModelConfig(
            architecture=architecture,
            vocab_size=_integer(values, "vocab_size"),
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=_head_dim(values, hidden_size=hidden_size, num_heads=num_heads),
            intermediate_size=_integer(values, "intermediate_size", default=None if is_dense else 1),
            norm_eps=_positive(values, "rms_norm_eps"),
            max_position_embeddings=max_positions,
            rope=_rope(values, max_positions=max_positions, is_partial=is_hybrid),
            tie_word_embeddings=_boolean(values, "tie_word_embeddings"),
            attention_bias=_boolean(values, "attention_bias"),
            mlp_bias=_boolean(values, "mlp_bias"),
            attn_output_gate=is_hybrid,
            norm_plus_one=is_hybrid,
            layer_types=_layer_types(values, num_layers) if is_hybrid else (),
            gated_delta=_gated_delta(values) if is_hybrid else None,
            moe=moe,
            num_mtp_layers=_num_mtp_layers(values),
            hidden_act=_hidden_act(values),
            eos_token_ids=token_ids(values.get("eos_token_id"), where="config.json: eos_token_id"),
            dtype=_dtype(values),
        )


def token_ids(value: Any, *, where: str) -> tuple[int, ...]:
    """An id, a list of ids or None, as a tuple; `where` names the field in the error."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0 for token_id in ids):
        raise ConfigError(f"{where}={value!r} is neither a token id nor a list of token ids.")
    return tuple(dict.fromkeys(ids))


def _text_part(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's own fields of a multimodal config, under those that stand outside of it."""
    inner = values.get("text_config")
    if inner is None:
        return values
    outside = {key: value for key, value in values.items() if key not in ("text_config", "vision_config")}
    return {**inner, **{key: outside[key] for key in ("tie_word_embeddings", "quantization_config") if key in outside}}


def _layer_types(values: Mapping[str, Any], num_layers: int) -> tuple[str, ...]:
    """As given, or every `full_attention_interval`th layer attends."""
    kinds = values.get("layer_types")
    if kinds is None:
        interval = _integer(values, "full_attention_interval", default=4)
        return tuple(_FULL if (index + 1) % interval == 0 else _LINEAR for index in range(num_layers))
    if len(kinds) != num_layers:
        raise ConfigError(f"config.json: layer_types names {len(kinds)} layers, and num_hidden_layers={num_layers}.")
    return tuple(kinds)


def _gated_delta(values: Mapping[str, Any]) -> GatedDeltaConfig:
    shape = GatedDeltaConfig(
        num_key_heads=_integer(values, "linear_num_key_heads"),
        num_value_heads=_integer(values, "linear_num_value_heads"),
        key_size=_integer(values, "linear_key_head_dim"),
        value_size=_integer(values, "linear_value_head_dim"),
    )
    if shape.num_value_heads % shape.num_key_heads:
        raise ConfigError(
            f"config.json: linear_num_value_heads={shape.num_value_heads} is not a multiple of"
            f" linear_num_key_heads={shape.num_key_heads}. Value heads share key heads in equal groups."
        )
    for field, size in (("linear_key_head_dim", shape.key_size), ("linear_value_head_dim", shape.value_size)):
        if size % 16 or size > 256:
            raise UnsupportedError(f"config.json: {field}={size} is not built yet; multiples of 16 up to 256 are.")
    for field, built in (("linear_conv_kernel_dim", 4), ("mamba_ssm_dtype", "float32"), ("output_gate_type", "swish")):
        if values.get(field, built) != built:
            raise UnsupportedError(f"config.json: {field}={values[field]!r} is not built yet; only {built!r} is.")
    if values.get("attn_output_gate") is False:
        raise UnsupportedError("config.json: attn_output_gate=False is not built yet for a hybrid; only true is.")
    return shape


def _refuse_unbuilt(values: Mapping[str, Any], *, is_hybrid: bool) -> None:
    """Raises for fields whose presence asks for arithmetic that is not here."""
    for field in ("quantization_config", "compression_config"):
        if values.get(field):
            method = values[field].get("quant_method") if isinstance(values[field], Mapping) else values[field]
            raise UnsupportedError(
                f"config.json: {field} (quant_method={method!r}) is not built yet."
                " Use a float32, bfloat16 or float16 checkpoint."
            )
    for field in ("vision_config", "audio_config", "text_config"):
        if values.get(field):
            raise UnsupportedError(
                f"config.json: {field} belongs to a multimodal model; not built yet. Use a text-only checkpoint."
            )
    if values.get("use_sliding_window"):
        raise UnsupportedError("config.json: use_sliding_window=True is not built yet; set it to false.")
    if values.get("sliding_window") and "use_sliding_window" not in values:
        raise UnsupportedError(
            f"config.json: sliding_window={values['sliding_window']!r} is not built yet; set it to null to attend"
            " to everything, which is exact up to that many tokens."
        )
    built = (_FULL, _LINEAR) if is_hybrid else (_FULL,)
    for kind in values.get("layer_types") or []:
        if kind not in built:
            raise UnsupportedError(
                f"config.json: layer_types has {kind!r}, which is not built yet; only {' and '.join(map(repr, built))}"
                f" {'are' if is_hybrid else 'is'}."
            )


def _integer(values: Mapping[str, Any], field: str, *, default: int | None = None) -> int:
    value = values.get(field)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"config.json has no {field}. Copy the config.json of the original checkpoint.")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_LENGTH:
        raise ConfigError(f"config.json: {field}={value!r} is not a positive integer.")
    return value


def _positive(values: Mapping[str, Any], field: str) -> float:
    value = values.get(field)
    if value is None:
        raise ConfigError(f"config.json has no {field}. Copy the config.json of the original checkpoint.")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigError(f"config.json: {field}={value!r} is not a positive number.")
    return float(value)


def _boolean(values: Mapping[str, Any], field: str, *, default: bool = False) -> bool:
    value = values.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {field}={value!r} is neither true nor false.")
    return value


_NORMALIZED = ("qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text")
"""Model types whose experts' weights sum to one where the config is silent."""

_MTP_FIELDS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")


def _num_mtp_layers(values: Mapping[str, Any]) -> int:
    given = [field for field in _MTP_FIELDS if values.get(field)]
    return _integer(values, given[0]) if given else 0


def _moe(values: Mapping[str, Any], *, num_layers: int) -> MoeConfig | None:
    """Experts in Qwen's spelling, or None where a config has none; transformers 5 writes num_local_experts."""
    field = "num_experts" if values.get("num_experts") else "num_local_experts"
    if not values.get(field) or not values.get("moe_intermediate_size"):
        return None
    num_experts = _integer(values, field)
    top_k = _integer(values, "num_experts_per_tok")
    if top_k > num_experts:
        raise ConfigError(f"config.json: num_experts_per_tok={top_k} is more than {field}={num_experts}.")
    step = _integer(values, "decoder_sparse_step", default=1)
    named = values.get("mlp_only_layers") or []
    if not isinstance(named, list) or any(type(layer) is not int for layer in named):
        raise ConfigError(f"config.json: mlp_only_layers={named!r} is not a list of layer numbers.")
    shared = values.get("shared_expert_intermediate_size")
    return MoeConfig(
        num_experts=num_experts,
        num_experts_per_tok=top_k,
        intermediate_size=_integer(values, "moe_intermediate_size"),
        is_normalized=_boolean(values, "norm_topk_prob", default=values.get("model_type") in _NORMALIZED),
        shared_intermediate_size=_integer(values, "shared_expert_intermediate_size") if shared else 0,
        dense_layers=frozenset(i for i in range(num_layers) if i in named or (i + 1) % step),
    )


def _head_dim(values: Mapping[str, Any], *, hidden_size: int, num_heads: int) -> int:
    """Given, or derived where a family derives it; Qwen3's class default is 128 whatever the width."""
    if values.get("head_dim") is None and values.get("model_type") == "qwen3":
        return 128
    if values.get("head_dim") is None and hidden_size % num_heads:
        raise ConfigError(
            f"config.json: no head_dim, and hidden_size={hidden_size} is not a multiple of"
            f" num_attention_heads={num_heads}. Add head_dim."
        )
    head_dim = _integer(values, "head_dim", default=hidden_size // num_heads)
    if head_dim % 16 or head_dim > 256:
        raise UnsupportedError(f"config.json: head_dim={head_dim} is not built yet; multiples of 16 up to 256 are.")
    return head_dim


def _hidden_act(values: Mapping[str, Any]) -> str:
    value = values.get("hidden_act", "silu")
    if value != "silu":
        raise UnsupportedError(f"config.json: hidden_act={value!r} is not built yet; only 'silu' is.")
    return "silu"


def _dtype(values: Mapping[str, Any]) -> str:
    value = values.get("dtype") or values.get("torch_dtype") or "float32"
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        raise UnsupportedError(f"config.json: dtype={value!r} is not built yet; {', '.join(DTYPES)} are.")
    return name


def _rope(values: Mapping[str, Any], *, max_positions: int, is_partial: bool) -> RopeConfig:
    """Merges rope_parameters (new) with rope_theta, rope_scaling and partial_rotary_factor (old). `is_partial`: a part
    of each head may be rotated, a quarter where nothing is said; positions of images are left out."""
    field = "rope_parameters" if values.get("rope_parameters") else "rope_scaling"
    given = values.get(field) or {}
    if not isinstance(given, Mapping) or any(isinstance(value, Mapping) for value in given.values()):
        raise UnsupportedError(f"config.json: {field}={given!r} is not built yet; one dict for all layers is.")
    given = {key: value for key, value in given.items() if value is not None}
    old_type = given.pop("type", "default")
    rope_type = given.pop("rope_type", old_type)
    if rope_type not in ROPE_TYPES:
        raise UnsupportedError(
            f"config.json: {field} has rope_type={rope_type!r}, which is not built yet; {', '.join(ROPE_TYPES)} are."
        )
    neutral = 0.25 if is_partial else 1.0
    partial = given.pop("partial_rotary_factor", values.get("partial_rotary_factor") or neutral)
    if is_partial:
        for key in ("mrope_section", "mrope_interleaved"):
            given.pop(key, None)  # text has one position for all three streams
    elif partial != 1.0:
        raise UnsupportedError(f"config.json: partial_rotary_factor={partial!r} is not built yet; only 1.0 is.")
    theta = given.pop("rope_theta", values.get("rope_theta") or 10000.0)
    for key in given:
        if key not in _ROPE_KEYS[rope_type]:
            raise UnsupportedError(
                f"config.json: {field} has {key}={given[key]!r}, which rope_type={rope_type!r} does not read."
                f" Known: {', '.join(_ROPE_KEYS[rope_type]) or 'none'}."
            )
    for key in _ROPE_KEYS[rope_type]:
        if key in _ROPE_REQUIRED and key not in given:
            raise ConfigError(f"config.json: {field} has rope_type={rope_type!r} but no {key}. Add it.")
    if "original_max_position_embeddings" in _ROPE_KEYS[rope_type]:
        given.setdefault("original_max_position_embeddings", max_positions)
    numbers = {"rope_theta": theta, "partial_rotary_factor": partial}
    numbers |= {key: value for key, value in given.items() if key != "truncate"}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ConfigError(f"config.json: {field} has {key}={value!r}, which is not a positive number.")
    if rope_type == "llama3" and given["high_freq_factor"] <= given["low_freq_factor"]:
        raise ConfigError(
            f"config.json: {field} has high_freq_factor={given['high_freq_factor']}, which is not above"
            f" low_freq_factor={given['low_freq_factor']}."
        )
    return RopeConfig(rope_type=rope_type, theta=float(theta), partial_rotary_factor=float(partial), **given)
