"""Shape of a model, and the parts of config.json that models share. No torch.

A model's file states its own keys: it calls `read_dense` and the other parts here, and reads what is its own from the
same `ConfigReader`. Old and new spellings of a key are read; what is not implemented is refused by key and value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.ignored_keys import ignore_leftovers
from outrider.core.pooler_config import PoolerConfig
from outrider.core.quantization.scheme import Quantization

ROPE_TYPES = ("default", "linear", "llama3", "longrope", "yarn")
MAX_LAYERS = MAX_EXPERTS = 4096
"""Bounds far above every model: modules and names are made for each before any weight is looked for."""
DTYPES = ("float32", "bfloat16", "float16")
FULL_ATTENTION, LINEAR_ATTENTION, SLIDING_ATTENTION = "full_attention", "linear_attention", "sliding_attention"
Windows = tuple[int | None, ...]
"""Window of each layer, None where it sees all tokens; empty where no layer has one."""

_ROPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor", "factor", "original_max_position_embeddings", "attention_factor"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "attn_factor",
        "apply_yarn_scaling",
        "extrapolation_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""Keys that each rope type reads, besides rope_theta and partial_rotary_factor."""

_ROPE_REQUIRED = ("factor", "low_freq_factor", "high_freq_factor")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; fields that a type does not read keep their defaults."""

    rope_type: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    """linear, llama3, longrope, yarn: positions the model was first trained on."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """longrope, yarn: factor on cos and sin; None derives it from factor, and for yarn mscale and attn_factor."""
    short_factor: tuple[float, ...] = ()
    """longrope: divisor of each frequency in an engine whose max_model_len is at most the original length."""
    long_factor: tuple[float, ...] = ()
    """longrope: divisor of each frequency in an engine whose max_model_len is above the original length."""
    attn_factor: float = 1.0
    """yarn: multiplies the derived factor on cos and sin."""
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
class ClampedGate:
    """The gate of experts that have biases: gate × sigmoid(alpha × gate) × (up + 1), where gate is cut to at most limit
    and up to ± limit."""

    alpha: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig:
    """Widths of latent attention: keys and values of all heads are made from one row of a token."""

    q_rank: int | None
    """Width between the two factors of the query projection; None: it is one matrix."""
    kv_rank: int
    """Width of the latent part of a row, which is normalised."""
    rope_size: int
    """Width of the rotated part of a row, of each query head and of each key head."""
    nope_size: int
    """Width of the part of each query and key head that is not rotated."""
    value_size: int
    """Width of each value head."""
    is_interleaved: bool
    """The rotated pairs are neighbours, not the two halves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedRouting:
    """A router that keeps the experts of the best groups only."""

    scoring: Literal["sigmoid", "softmax"]
    """Score of an expert: the sigmoid of its logit, or the softmax over all experts."""
    num_groups: int
    """Groups of neighbouring experts, equally large."""
    num_chosen_groups: int
    """Groups whose experts can be chosen."""
    scale: float
    """Factor on the weights of the chosen experts."""
    has_bias: bool
    """Each expert has a number that is added to its score for the choice, but not for its weight."""


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
    """Layers with a plain MLP of the model's intermediate_size."""
    clamped_gate: ClampedGate | None = None
    """The router and the experts have biases, and the experts this gate; None: no biases, and silu."""
    grouped: GroupedRouting | None = None
    """The router's groups; None: the experts with the largest logits are chosen. With groups, the shared expert has no
    gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Parts of an encoder that a decoder does not have: its tokens see their whole text."""

    num_positions: int = 0
    """Rows of the table of positions; 0: positions are rotated."""
    first_position: int = 0
    """Row of a text's first token."""
    num_token_types: int = 0
    """Rows of the table of token types; 0: there are none."""
    norm_bias: bool = True
    """Norms have biases."""
    head_bias: bool = True
    """The first layer of the classifier has a bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a text model: a decoder, or an encoder."""

    architecture: str
    """First of `architectures`; selects the file in `outrider/models`."""
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    """Width of a head; with latent attention, of its rotated part."""
    intermediate_size: int
    norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    local_rope: RopeConfig | None = None
    """Rope of the layers with a window, if they have another."""
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    """Biases on q, k, v and o."""
    attention_scale: float | None = None
    """Factor on q · k; None: 1 / sqrt(head_dim)."""
    mlp_bias: bool = False
    """Biases on gate, up and down."""
    attn_output_gate: bool = False
    """Attention's output is multiplied by a gate, whose rows follow those of each head in q_proj."""
    norm_plus_one: bool = False
    """Norms multiply by 1 + weight."""
    norm_casts_last: bool = False
    """Norms multiply by the weight in fp32, and cast then."""
    layer_types: tuple[str, ...] = ()
    """"full_attention" or "linear_attention" of each layer; empty where all attend."""
    windows: Windows = ()
    """Tokens that a token sees in each layer, itself included: at the end of them, in an encoder in their middle."""
    gated_delta: GatedDeltaConfig | None = None
    """Widths of the layers with linear attention; None if there are none."""
    moe: MoeConfig | None = None
    encoder: EncoderConfig | None = None
    """None: a decoder."""
    latent: LatentConfig | None = None
    """Widths of latent attention; None: attention has keys and values."""
    num_mtp_layers: int = 0
    """Number of prediction layers that the config states."""
    hidden_act: str = "silu"
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "float32"
    """dtype in which the checkpoint was saved."""
    quantization: Quantization | None = None
    """The schemes of a quantised checkpoint; None: its weights are plain."""
    is_causal: bool = True
    """A token sees only tokens before it. Where it is false, all tokens of a prompt are computed in one step."""
    pooler: PoolerConfig | None = None
    """The head of a model that pools; None: the model generates."""

    @property
    def max_length(self) -> int:
        """Largest number of tokens of a request. A stretched rope reaches factor times its original length, whether or
        not max_position_embeddings says so already."""
        if self.rope.rope_type in ("linear", "yarn"):
            return int(self.rope.factor * self.rope.original_max_position_embeddings)
        return self.max_position_embeddings

    @property
    def rotary_size(self) -> int:
        """Number of dimensions of a head that are rotated."""
        return int(self.head_dim * self.rope.partial_rotary_factor)

    def has_state(self, index: int) -> bool:
        """True where layer `index` keeps a recurrent state instead of keys and values."""
        return bool(self.layer_types) and self.layer_types[index] == LINEAR_ATTENTION

    def window(self, index: int) -> int | None:
        """Tokens that a token sees in layer `index`, itself included; None: all before it."""
        return self.windows[index] if self.windows else None

    @property
    def num_attention_layers(self) -> int:
        """Number of layers that keep keys and values."""
        return sum(not self.has_state(index) for index in range(self.num_layers))


def read_num_layers(reader: ConfigReader) -> int:
    """Number of layers, bounded: layers are built before their weights are looked for."""
    return reader.integer("num_hidden_layers", maximum=MAX_LAYERS)


def read_dense(
    reader: ConfigReader,
    *,
    model_types: tuple[str, ...],
    architecture: str | None = None,
    moe: MoeConfig | None = None,
    layer_types: tuple[str, ...] = (),
    windows: Windows | None = None,
    default_head_dim: int | None = None,
    default_rotary_share: float | None = None,
    head_dim: int | None = None,
    rope: RopeConfig | None = None,
    rope_names: Mapping[str, str] | None = None,
    hidden_act: str | None = None,
    has_mlp_bias: bool = False,
) -> ModelConfig:
    """A decoder of attention and gated MLPs, from the keys that all such models have.

    model_types: values of model_type that go with the architecture; the first where the config has none. architecture:
    its name, where this object has none of its own. moe: experts that the caller has read. layer_types: kinds of layers
    that the caller has read; without them all layers attend. windows: those that the caller has read; None: the model
    has none, and a config that asks for one is refused. default_head_dim: head_dim where the config has none;
    without it hidden_size / num_attention_heads. default_rotary_share: share of a head that is rotated where the config
    does not say it; without it all of the head is, and another share is refused. head_dim, rope, hidden_act: those that
    the caller has read; without them the key head_dim, one rope for all layers, and silu. rope_names: names of rope
    types in configs of this model -> their usual names. has_mlp_bias: mlp_bias is a key of this model.
    """
    ignore_leftovers(reader)
    for key in ("vision_config", "audio_config", "text_config"):
        reader.refuse(key, "it belongs to a multimodal model. Use a text-only checkpoint.")
    if architecture is None:
        architecture = read_architecture(reader)
    else:
        reader.ignore("architectures", reason="said by the config around it")
    reader.choice("model_type", model_types, default=model_types[0])
    hidden_size = reader.integer("hidden_size")
    num_heads = reader.integer("num_attention_heads")
    num_kv_heads = reader.integer("num_key_value_heads", default=num_heads)
    if num_heads % num_kv_heads:
        raise ConfigError(
            f"{reader.said('num_attention_heads')} is not a multiple of num_key_value_heads={num_kv_heads}."
            " Query heads share kv heads in equal groups."
        )
    if not layer_types and windows is None:
        read_layer_types(reader, supported=(FULL_ATTENTION,))
    if windows is None:
        refuse_windows(reader)
    max_positions = reader.integer("max_position_embeddings")
    head_dim = head_dim or read_head_dim(reader, default=default_head_dim)
    rope = rope or read_rope(
        reader, max_positions=max_positions, default_share=default_rotary_share, rope_names=rope_names
    )
    _check_factors(rope, int(head_dim * rope.partial_rotary_factor) // 2, where=reader.where)
    is_dense = moe is None or bool(moe.dense_layers)
    is_causal = reader.flag("is_causal", default=True)
    if not is_causal and any(windows or ()):
        raise UnsupportedError(
            f"{reader.said('is_causal')} is not supported together with windows (sliding_window). Remove one of the"
            " two."
        )
    return ModelConfig(
        architecture=architecture,
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=read_num_layers(reader),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=reader.integer("intermediate_size", default=None if is_dense else 1),
        norm_eps=reader.number("rms_norm_eps"),
        max_position_embeddings=max_positions,
        rope=rope,
        tie_word_embeddings=reader.flag("tie_word_embeddings"),
        attention_bias=reader.flag("attention_bias"),
        mlp_bias=has_mlp_bias and reader.flag("mlp_bias"),
        layer_types=layer_types,
        windows=windows or (),
        moe=moe,
        hidden_act=hidden_act or reader.choice("hidden_act", ("silu",), default="silu"),
        eos_token_ids=reader.token_ids("eos_token_id"),
        dtype=read_dtype(reader),
        is_causal=is_causal,
    )


def _check_factors(rope: RopeConfig, num_frequencies: int, *, where: str) -> None:
    """longrope has two factors for each frequency."""
    for name, factors in (("short_factor", rope.short_factor), ("long_factor", rope.long_factor)):
        if rope.rope_type == "longrope" and len(factors) != num_frequencies:
            raise ConfigError(
                f"{where}: {name} has {len(factors)} numbers, and the rope {num_frequencies} frequencies. Copy the file"
                " that came with the original checkpoint."
            )


def read_text_part(
    reader: ConfigReader,
    read: Callable[[ConfigReader], ModelConfig],
    *,
    model_type: str,
    placeholders: tuple[str, ...],
) -> ModelConfig:
    """The text model of a multimodal config, whose section text_config `read` reads.

    model_type: that of the whole. placeholders: its keys that concern images only.
    """
    reader.choice("model_type", (model_type,), default=model_type)
    ignore_leftovers(reader)
    reader.ignore("vision_config", reason="the vision tower, of which text needs nothing")
    reader.ignore(*placeholders, reason="placeholders of images, which text prompts do not have")
    text = reader.section("text_config")
    config = read(text)
    if text.has("dtype") or text.has("torch_dtype"):
        reader.ignore("dtype", "torch_dtype", reason="text_config says the dtype of the text model")
    else:
        config = replace(config, dtype=read_dtype(reader))
    outer_ids = reader.token_ids("eos_token_id")
    return replace(
        config,
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=config.tie_word_embeddings),
        eos_token_ids=tuple(dict.fromkeys(config.eos_token_ids + outer_ids)),
    )


def read_architecture(reader: ConfigReader) -> str:
    """First of `architectures`, by which the model's file is found."""
    names = reader.texts("architectures")
    if not names:
        raise ConfigError(
            f"{reader.said('architectures')} names no model. Add a list with the name of the model's class."
        )
    return names[0]


def read_head_dim(reader: ConfigReader, *, default: int | None = None) -> int:
    """head_dim, or `default`, or hidden_size / num_attention_heads."""
    if default is None and not reader.has("head_dim"):
        hidden_size, num_heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
        if hidden_size % num_heads:
            raise ConfigError(
                f"{reader.where} has no head_dim, and hidden_size={hidden_size} is not a multiple of"
                f" num_attention_heads={num_heads}. Add head_dim."
            )
        default = hidden_size // num_heads
    head_dim = reader.integer("head_dim", default=default)
    if head_dim % 16 or head_dim > 256:
        raise UnsupportedError(
            f"{reader.where}: head_dim={head_dim} is not supported. Supported: multiples of 16 up to 256."
        )
    return head_dim


def read_layer_types(reader: ConfigReader, *, supported: tuple[str, ...]) -> tuple[str, ...]:
    """layer_types, one for each layer; empty where the config has none."""
    kinds = reader.texts("layer_types")
    for kind in kinds:
        if kind not in supported:
            raise UnsupportedError(
                f"{reader.where}: layer_types has {kind!r}, which is not supported. Supported: {', '.join(supported)}."
            )
    num_layers = read_num_layers(reader)
    if reader.has("layer_types") and len(kinds) != num_layers:
        raise ConfigError(
            f"{reader.where}: layer_types names {len(kinds)} layers, and num_hidden_layers={num_layers}."
            " Name one kind for each layer."
        )
    return kinds


def read_window(reader: ConfigReader, *, default: int | None = None) -> int | None:
    """sliding_window; None where it is null. `default`: its value where the config does not have the key."""
    if "sliding_window" not in reader.keys:
        return default
    return reader.integer("sliding_window") if reader.has("sliding_window") else None


def read_windows_everywhere(reader: ConfigReader, *, default: int | None = None) -> Windows:
    """A window of sliding_window tokens in every layer. default: its value where the config does not have the key."""
    window = read_window(reader, default=default)
    read_layer_types(reader, supported=(FULL_ATTENTION if window is None else SLIDING_ATTENTION,))
    return (window,) * read_num_layers(reader) if window else ()


def read_windows_by_kind(
    reader: ConfigReader, *, is_sliding: Callable[[int], bool], default: int | None = None
) -> Windows:
    """A window of one size in the layers that layer_types names "sliding_attention".

    is_sliding: whether the layer at an index has the window, where the config has no layer_types. default:
    sliding_window where the config does not have the key.
    """
    kinds = read_layer_types(reader, supported=(FULL_ATTENTION, SLIDING_ATTENTION))
    if not kinds:
        num_layers = read_num_layers(reader)
        kinds = tuple(SLIDING_ATTENTION if is_sliding(index) else FULL_ATTENTION for index in range(num_layers))
    window = read_window(reader, default=default)
    found = tuple(window if kind == SLIDING_ATTENTION else None for kind in kinds)
    return found if any(found) else ()


def read_switched_windows(reader: ConfigReader) -> Windows | None:
    """Windows of the layers from max_window_layers on, where use_sliding_window is true; None where nothing asks for
    one. Defaults are those that the configs of such models leave out."""
    if not reader.flag("use_sliding_window"):
        return None
    first = reader.integer("max_window_layers", default=28, minimum=0)
    return read_windows_by_kind(reader, is_sliding=lambda index: index >= first, default=4096)


def refuse_windows(reader: ConfigReader) -> None:
    """Refuses a sliding window: all layers attend to everything."""
    if reader.flag("use_sliding_window"):
        raise UnsupportedError(
            f"{reader.said('use_sliding_window')} is not supported. Set it to false to attend to everything, which is"
            " exact up to sliding_window tokens."
        )
    if not reader.has("use_sliding_window"):
        reader.refuse(
            "sliding_window",
            "set it to null to attend to everything, which is exact up to that many tokens.",
        )
    reader.ignore("sliding_window", "max_window_layers", reason="no layer has a window: use_sliding_window is not true")


def read_dtype(reader: ConfigReader) -> str:
    """dtype of the checkpoint, in the new spelling or the old one (torch_dtype)."""
    key = "dtype" if reader.has("dtype") else "torch_dtype"
    reader.ignore("torch_dtype", reason="older spelling of dtype, which is given")
    name = reader.text(key, default="float32").removeprefix("torch.")
    if name not in DTYPES:
        raise UnsupportedError(f"{reader.said(key)} is not supported. Supported: {', '.join(DTYPES)}.")
    return name


def read_moe(reader: ConfigReader, *, is_normalized: bool) -> MoeConfig:
    """A mixture of experts. `is_normalized`: norm_topk_prob where the config does not say it."""
    num_experts, top_k = read_num_experts(reader)
    num_layers = read_num_layers(reader)
    step, named = reader.integer("decoder_sparse_step", default=1), reader.integers("mlp_only_layers")
    return MoeConfig(
        num_experts=num_experts,
        num_experts_per_tok=top_k,
        intermediate_size=reader.integer("moe_intermediate_size"),
        is_normalized=reader.flag("norm_topk_prob", default=is_normalized),
        dense_layers=frozenset(i for i in range(num_layers) if i in named or (i + 1) % step),
    )


def read_num_experts(reader: ConfigReader) -> tuple[int, int]:
    """(number of experts, number of those that a token goes to)."""
    field = "num_local_experts" if reader.has("num_local_experts") else "num_experts"
    num_experts = reader.integer(field, maximum=MAX_EXPERTS)
    if reader.has("num_experts") and reader.integer("num_experts") != num_experts:
        raise ConfigError(
            f"{reader.said('num_experts')} contradicts num_local_experts={num_experts}, which is another spelling of"
            " it. Remove one of the two."
        )
    top_k = reader.integer("num_experts_per_tok")
    if top_k > num_experts:
        raise ConfigError(
            f"{reader.said('num_experts_per_tok')} is more than {field}={num_experts}. A token can go to each expert"
            " once."
        )
    return num_experts, top_k


def read_gated_delta(reader: ConfigReader) -> GatedDeltaConfig:
    """Widths of the layers with linear attention."""
    shape = GatedDeltaConfig(
        num_key_heads=reader.integer("linear_num_key_heads"),
        num_value_heads=reader.integer("linear_num_value_heads"),
        key_size=reader.integer("linear_key_head_dim"),
        value_size=reader.integer("linear_value_head_dim"),
    )
    if shape.num_value_heads % shape.num_key_heads:
        raise ConfigError(
            f"{reader.said('linear_num_value_heads')} is not a multiple of"
            f" linear_num_key_heads={shape.num_key_heads}. Value heads share key heads in equal groups."
        )
    for key, size in (("linear_key_head_dim", shape.key_size), ("linear_value_head_dim", shape.value_size)):
        if size % 16 or size > 256:
            raise UnsupportedError(f"{reader.said(key)} is not supported. Supported: multiples of 16 up to 256.")
    reader.choice("linear_conv_kernel_dim", (4,), default=4)
    return shape


def read_ropes_by_kind(
    reader: ConfigReader, *, max_positions: int, theta: float, local_theta: float | None = None, local_key: str = ""
) -> tuple[RopeConfig, RopeConfig]:
    """Ropes of the layers without and with a window: in the new spelling an object for each kind in rope_parameters, in
    the old one rope_theta and rope_scaling for the layers without a window.

    theta: where the config has no rope_theta. local_theta: theta of the layers with a window, where the config does not
    say it; None: that of the others. local_key: its key in the old spelling.
    """
    theta = reader.number("rope_theta", default=theta)
    if local_key:
        local_theta = reader.number(local_key, default=local_theta)
    nested = reader.section("rope_parameters")
    if not nested.is_object(FULL_ATTENTION) and not nested.is_object(SLIDING_ATTENTION):
        full = read_rope(reader, max_positions=max_positions, default_theta=theta)
        return full, RopeConfig(theta=local_theta or full.theta)
    reader.refuse("rope_scaling", "rope_parameters has a rope for each kind of layer. Remove one of the two.")
    full, local = (
        read_rope(nested, max_positions=max_positions, default_theta=default, names=(kind,))
        for kind, default in ((FULL_ATTENTION, theta), (SLIDING_ATTENTION, local_theta or theta))
    )
    for key, rope in (("rope_theta", full), (local_key, local)):
        if reader.has(key) and reader.number(key) != rope.theta:
            raise ConfigError(f"{reader.said(key)} contradicts rope_parameters, which says {rope.theta}. Remove one.")
    return full, local


def read_rope(
    reader: ConfigReader,
    *,
    max_positions: int,
    default_share: float | None = None,
    default_theta: float = 10000.0,
    names: tuple[str, ...] = ("rope_parameters", "rope_scaling"),
    rope_names: Mapping[str, str] | None = None,
) -> RopeConfig:
    """Rotary embedding, in the new spelling (rope_parameters) or the old one (rope_theta, rope_scaling,
    partial_rotary_factor).

    default_share: share of a head that is rotated where the config does not say it; None where only all of it can be.
    default_theta: rope_theta where the config does not have it. names: sections that may hold it. rope_names: see
    `read_dense`. Raises ConfigError if the config has it in several sections and they differ.
    """
    default = RopeConfig(theta=default_theta, partial_rotary_factor=default_share or 1.0)
    names = tuple(name for name in names if reader.has(name)) or names[-1:]
    found: list[RopeConfig] = []
    for name in names:
        found.append(
            _read_rope(
                reader,
                name,
                max_positions=max_positions,
                default=found[0] if found else default,
                is_whole=default_share is None,
                rope_names=rope_names or {},
            )
        )
    if found[0] != found[-1]:
        raise ConfigError(
            f"{reader.where} has rope_parameters and rope_scaling, two spellings of the same thing, and they differ."
            " Keep rope_parameters, with every key that is meant."
        )
    return found[0]


def _read_rope(
    reader: ConfigReader,
    name: str,
    *,
    max_positions: int,
    default: RopeConfig,
    is_whole: bool,
    rope_names: Mapping[str, str],
) -> RopeConfig:
    """The section `name`. `default`: theta and share where the config does not say them. `is_whole`: all of a head must
    be rotated."""
    rope = reader.section(name)
    for key in rope.keys:
        if rope.is_object(key):
            raise UnsupportedError(
                f"{rope.said(key)}: one rope for each kind of layer is not supported. Supported: one for all layers."
            )
    if rope.has("type") and rope.has("rope_type") and rope.text("type") != rope.text("rope_type"):
        raise ConfigError(f"{rope.said('type')} contradicts rope_type={rope.text('rope_type')!r}. Remove one of them.")
    known = tuple(kind for kind in ROPE_TYPES if kind not in rope_names) + tuple(rope_names)
    rope_type = rope.choice("type" if rope.has("type") else "rope_type", known, default="default")
    rope_type = rope_names.get(rope_type, rope_type)
    theta = _inner_or_outer(rope, reader, "rope_theta", default=default.theta)
    share = _inner_or_outer(rope, reader, "partial_rotary_factor", default=default.partial_rotary_factor)
    if share > 1 or (is_whole and share != 1):
        supported = "1.0" if is_whole else "at most 1.0"
        raise UnsupportedError(
            f"{reader.where}: partial_rotary_factor={share} is not supported. Supported: {supported}."
        )
    for key in sorted({key for keys in _ROPE_KEYS.values() for key in keys}):
        rope.neutral(key, reason="not set")
    values: dict[str, Any] = {}
    for key in _ROPE_KEYS[rope_type]:
        if key == "original_max_position_embeddings":
            values[key] = _original_length(rope, reader, default=max_positions)
        elif key == "truncate":
            values[key] = rope.flag(key, default=True)
        elif key == "extrapolation_factor":
            rope.choice(key, (1, 1.0), default=1.0)
        elif key in ("mscale", "mscale_all_dim"):
            if rope.has(key):
                values[key] = rope.number(key, can_be_zero=True)
        elif key in ("short_factor", "long_factor"):
            values[key] = rope.numbers(key)
        elif rope_type == "longrope" and key == "factor" and not rope.has(key):
            continue  # derived below
        elif key != "apply_yarn_scaling" and (key in _ROPE_REQUIRED or rope.has(key)):
            values[key] = rope.number(key)
    if rope_type == "yarn":
        _check_attention_factor(rope, values)
    if rope_type == "longrope" and not rope.has("factor"):
        values["factor"] = max_positions / values["original_max_position_embeddings"]
    if rope_type == "llama3" and values["high_freq_factor"] <= values["low_freq_factor"]:
        raise ConfigError(
            f"{rope.said('high_freq_factor')} is not above low_freq_factor={values['low_freq_factor']}."
            " Copy the values of the original checkpoint."
        )
    return RopeConfig(rope_type=rope_type, theta=theta, partial_rotary_factor=share, **values)


def _original_length(rope: ConfigReader, outer: ConfigReader, *, default: int) -> int:
    """original_max_position_embeddings, in the section or outside of it; without either the model's own length."""
    key = "original_max_position_embeddings"
    value = rope.integer(key, default=outer.integer(key, default=default))
    if outer.has(key) and outer.integer(key) != value:
        raise ConfigError(f"{outer.said(key)} contradicts {rope.said(key)}. Remove one of the two.")
    return value


def _check_attention_factor(rope: ConfigReader, values: dict[str, Any]) -> None:
    """attention_factor replaces the factor on cos and sin, attn_factor multiplies the derived one: not both. Without
    apply_yarn_scaling the derived one is 1."""
    if values.get("attention_factor") is not None and values.get("attn_factor", 1.0) != 1.0:
        raise ConfigError(
            f"{rope.said('attention_factor')} is the whole factor on cos and sin, and"
            f" attn_factor={values['attn_factor']} multiplies the one that follows from factor. Keep one of the two."
        )
    if not rope.flag("apply_yarn_scaling", default=True):
        values.setdefault("attention_factor", values.pop("attn_factor", 1.0))


def _inner_or_outer(inner: ConfigReader, outer: ConfigReader, key: str, *, default: float) -> float:
    """Read a number that is in a section or outside of it. Raises ConfigError where both have it and they differ."""
    value = inner.number(key, default=outer.number(key, default=default))
    if outer.has(key) and outer.number(key) != value:
        raise ConfigError(f"{outer.said(key)} contradicts {inner.said(key)}. Remove one of the two.")
    return value
