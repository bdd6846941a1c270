"""Contents of released checkpoints: config.json, and the names and shapes of their tensors on the hub.

A multimodal checkpoint has the tensors of its text model here. Shapes are written down apart from what the engine makes
of a config.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from outrider import models
from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_architecture

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Release:
    """One checkpoint."""

    config: dict[str, Any]
    """config.json, as far as it says what the model is."""
    shapes: Shapes
    """Tensors of the model itself."""
    num_tensors: int
    """Number of tensors in `shapes`."""
    module: Shapes = field(default_factory=dict)
    """Tensors of its prediction module."""
    elsewhere: Shapes = field(default_factory=dict)
    """Tensors of other parts, some of them: a vision tower."""


@dataclass(frozen=True, kw_only=True)
class ReleasedHead:
    """A drafter's head, and whose it is."""

    target: str
    method: str
    config: dict[str, Any]
    shapes: Shapes
    taps: tuple[int, ...] = ()
    """Target layers of an EAGLE-3 head, as "after k layers"."""


def read_any(reader: ConfigReader) -> ModelConfig:
    """The config of a model that generates, or pools if its family cannot generate."""
    architecture = read_architecture(reader)
    read_pooler = getattr(models.find_family(architecture), "read_pooler", None)
    pooler = None if read_pooler is None else read_pooler(reader, architecture=architecture)
    return models.read_config(reader, pooler=pooler)


def under(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """These shapes, their names behind a prefix."""
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def mlp(hidden: int, width: int) -> Shapes:
    """A gated MLP."""
    return {"gate_proj.weight": (width, hidden), "up_proj.weight": (width, hidden), "down_proj.weight": (hidden, width)}


def one_by_one(num_experts: int, hidden: int, width: int) -> Shapes:
    """Experts with a name each."""
    return {f"{i}.{name}": shape for i in range(num_experts) for name, shape in mlp(hidden, width).items()}


def attention(hidden: int, queries: int, keys: int, *, out: int | None = None) -> Shapes:
    """Rows of q and of k (as many as of v); `out`: columns of o, where they are fewer than rows of q."""
    return {
        "q_proj.weight": (queries, hidden),
        "k_proj.weight": (keys, hidden),
        "v_proj.weight": (keys, hidden),
        "o_proj.weight": (hidden, out or queries),
    }


def head_norms(size: int) -> Shapes:
    return {"q_norm.weight": (size,), "k_norm.weight": (size,)}


def biases(queries: int, keys: int) -> Shapes:
    return {"q_proj.bias": (queries,), "k_proj.bias": (keys,), "v_proj.bias": (keys,)}


def layer(hidden: int, **parts: Shapes) -> Shapes:
    """One layer: its two norms, and what each part holds."""
    shapes: Shapes = {f"{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
    for name, part in parts.items():
        shapes |= under(name, part)
    return shapes


def text_model(
    layers: list[Shapes], *, vocab: int, hidden: int, is_tied: bool = False, prefix: str = "model"
) -> Shapes:
    """All tensors: embedding, layers, final norm, head."""
    shapes: Shapes = {f"{prefix}.embed_tokens.weight": (vocab, hidden), f"{prefix}.norm.weight": (hidden,)}
    if not is_tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    for index, parts in enumerate(layers):
        shapes |= under(f"{prefix}.layers.{index}", parts)
    return shapes


LLAMA_8B = Release(
    config={
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "attention_bias": False, "mlp_bias": False,
        "attention_dropout": 0.0, "hidden_act": "silu", "bos_token_id": 128000, "eos_token_id": 128001,
        "initializer_range": 0.02, "pretraining_tp": 1, "use_cache": True, "transformers_version": "4.43.0.dev0",
    },
    num_tensors=291,
    shapes=text_model(
        [layer(4096, self_attn=attention(4096, 4096, 1024), mlp=mlp(4096, 14336))] * 32, vocab=128256, hidden=4096
    ),
)  # fmt: skip

QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936, "head_dim": 128,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 40960, "rope_theta": 1000000, "rope_scaling": None,
    "sliding_window": None, "use_sliding_window": False, "attention_bias": False, "torch_dtype": "bfloat16",
    "attention_dropout": 0.0, "hidden_act": "silu", "bos_token_id": 151643, "eos_token_id": 151645,
    "initializer_range": 0.02, "use_cache": True, "transformers_version": "4.51.0",
}  # fmt: skip

QWEN3_8B = Release(
    config=QWEN3 | {
        "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 12288, "max_window_layers": 36, "tie_word_embeddings": False,
    },
    num_tensors=399,
    shapes=text_model(
        [layer(4096, self_attn=attention(4096, 4096, 1024) | head_norms(128), mlp=mlp(4096, 12288))] * 36,
        vocab=151936, hidden=4096,
    ),
)  # fmt: skip

QWEN3_SMALL = Release(
    config=QWEN3 | {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "intermediate_size": 3072, "max_window_layers": 28, "tie_word_embeddings": True,
    },
    num_tensors=310,
    shapes=text_model(
        [layer(1024, self_attn=attention(1024, 2048, 1024) | head_norms(128), mlp=mlp(1024, 3072))] * 28,
        vocab=151936, hidden=1024, is_tied=True,
    ),
)  # fmt: skip


def _qwen3_moe(experts: Shapes, num_tensors: int) -> Release:
    return Release(
        config=QWEN3 | {
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048,
            "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 6144,
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "max_window_layers": 48, "tie_word_embeddings": False,
            "output_router_logits": False, "router_aux_loss_coef": 0.001,
        },
        num_tensors=num_tensors,
        shapes=text_model(
            [layer(
                2048, self_attn=attention(2048, 4096, 512) | head_norms(128),
                mlp={"gate.weight": (128, 2048)} | under("experts", experts),
            )] * 48,
            vocab=151936, hidden=2048,
        ),
    )  # fmt: skip


QWEN3_MOE = _qwen3_moe(one_by_one(128, 2048, 768), 48 * (9 + 3 * 128) + 3)
QWEN3_MOE_PACKED = _qwen3_moe({"gate_up_proj": (128, 1536, 2048), "down_proj": (128, 2048, 768)}, 48 * (9 + 2) + 3)

SMOLLM2_135M = Release(
    config={
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "rope_theta": 100000, "rope_scaling": None,
        "rope_interleaved": False, "is_llama_config": True, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
        "initializer_range": 0.041666666666666664, "pretraining_tp": 1, "use_cache": True,
    },
    num_tensors=272,
    shapes=text_model(
        [layer(576, self_attn=attention(576, 576, 192), mlp=mlp(576, 1536))] * 30, vocab=49152, hidden=576,
        is_tied=True,
    ),
)  # fmt: skip


def _qwen2(hidden: int, num_layers: int, heads: int, kv_heads: int, width: int, vocab: int, **values: Any) -> Release:
    is_tied = values.get("tie_word_embeddings", False)
    queries, keys = hidden, hidden // heads * kv_heads
    parts = layer(hidden, self_attn=attention(hidden, queries, keys) | biases(queries, keys), mlp=mlp(hidden, width))
    return Release(
        config={
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocab, "hidden_size": hidden,
            "num_hidden_layers": num_layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "intermediate_size": width, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
            "rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 21,
            "tie_word_embeddings": is_tied, "torch_dtype": "bfloat16", "attention_dropout": 0.0, "hidden_act": "silu",
            "bos_token_id": 151643, "eos_token_id": 151645, "initializer_range": 0.02, "use_cache": True,
        } | values,
        num_tensors=num_layers * 12 + (2 if is_tied else 3),
        shapes=text_model([parts] * num_layers, vocab=vocab, hidden=hidden, is_tied=is_tied),
    )  # fmt: skip


QWEN2_5_SMALL = _qwen2(896, 24, 14, 2, 4864, 151936, tie_word_embeddings=True)
QWEN2_5_7B = _qwen2(3584, 28, 28, 4, 18944, 152064, max_window_layers=28, sliding_window=131072)

MISTRAL: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "attention_dropout": 0.0, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.02, "use_cache": True,
}  # fmt: skip
MISTRAL_7B_V1 = Release(
    config=MISTRAL | {
        "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "max_position_embeddings": 32768,
        "rope_theta": 10000.0, "sliding_window": 4096,
    },
    num_tensors=291,
    shapes=text_model(
        [layer(4096, self_attn=attention(4096, 4096, 1024), mlp=mlp(4096, 14336))] * 32, vocab=32000, hidden=4096
    ),
)  # fmt: skip
MISTRAL_NEMO = Release(
    config=MISTRAL | {
        "vocab_size": 131072, "hidden_size": 5120, "num_hidden_layers": 40, "head_dim": 128,
        "max_position_embeddings": 131072, "rope_theta": 1000000.0, "sliding_window": None,
    },
    num_tensors=363,
    shapes=text_model(
        [layer(5120, self_attn=attention(5120, 4096, 1024), mlp=mlp(5120, 14336))] * 40, vocab=131072, hidden=5120
    ),
)  # fmt: skip

PHI_4 = Release(
    config={
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 100352, "hidden_size": 5120,
        "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 10, "intermediate_size": 17920,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 16384, "original_max_position_embeddings": 16384,
        "rope_theta": 250000, "rope_scaling": None, "partial_rotary_factor": 1.0, "sliding_window": None,
        "tie_word_embeddings": False, "attention_bias": False, "torch_dtype": "bfloat16", "attention_dropout": 0.0,
        "embd_pdrop": 0.0, "resid_pdrop": 0.0, "hidden_act": "silu", "bos_token_id": 100257, "eos_token_id": 100265,
        "pad_token_id": 100349, "initializer_range": 0.02, "use_cache": True,
    },
    num_tensors=243,
    shapes=text_model(
        [layer(
            5120,
            self_attn={"qkv_proj.weight": (7680, 5120), "o_proj.weight": (5120, 5120)},
            mlp={"gate_up_proj.weight": (35840, 5120), "down_proj.weight": (5120, 17920)},
        )] * 40,
        vocab=100352, hidden=5120,
    ),
)  # fmt: skip


PHI_4_MINI = Release(
    config={
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 200064, "hidden_size": 3072,
        "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8, "intermediate_size": 8192,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75, "rope_theta": 10000.0, "rope_scaling": {
            "type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1 + i for i in range(48)],
        },
        "sliding_window": 262144, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "attention_bias": False,
        "mlp_bias": False, "lm_head_bias": False, "full_attn_mod": 1, "interpolate_factor": 1,
        "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "hidden_act": "silu", "bos_token_id": 199999,
        "eos_token_id": 199999, "pad_token_id": 199999, "initializer_range": 0.02, "use_cache": True,
        "transformers_version": "4.45.0",
    },
    num_tensors=194,
    shapes=text_model(
        [layer(
            3072,
            self_attn={"qkv_proj.weight": (5120, 3072), "o_proj.weight": (3072, 3072)},
            mlp={"gate_up_proj.weight": (16384, 3072), "down_proj.weight": (3072, 8192)},
        )] * 32,
        vocab=200064, hidden=3072, is_tied=True,
    ),
)  # fmt: skip


def _post_norms(hidden: int, *, queries: int, keys: int) -> Shapes:
    """Norms of OLMo: on outputs, and over all heads of q and of k."""
    outputs: Shapes = {f"post_{part}_layernorm.weight": (hidden,) for part in ("attention", "feedforward")}
    return outputs | {"self_attn.q_norm.weight": (queries,), "self_attn.k_norm.weight": (keys,)}


OLMO: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "intermediate_size": 11008, "rms_norm_eps": 1e-6, "rope_theta": 500000, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "torch_dtype": "bfloat16",
    "eos_token_id": 100257, "pad_token_id": 100277, "initializer_range": 0.02, "use_cache": False,
}  # fmt: skip
_OLMO_LAYER: Shapes = (
    under("self_attn", attention(4096, 4096, 4096))
    | under("mlp", mlp(4096, 11008))
    | _post_norms(4096, queries=4096, keys=4096)
)
OLMO2_7B = Release(
    config=OLMO | {
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "vocab_size": 100352,
        "max_position_embeddings": 4096, "rope_scaling": None,
    },
    num_tensors=355,
    shapes=text_model([_OLMO_LAYER] * 32, vocab=100352, hidden=4096),
)  # fmt: skip
OLMO3_7B = Release(
    config=OLMO | {
        "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "vocab_size": 100278,
        "max_position_embeddings": 65536, "sliding_window": 4096,
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 8,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192, "beta_fast": 32,
            "beta_slow": 1, "attention_factor": 1.2079441541679836,
        },
    },
    num_tensors=355,
    shapes=text_model([_OLMO_LAYER] * 32, vocab=100278, hidden=4096),
)  # fmt: skip


def _gemma3_text(
    hidden: int, num_layers: int, heads: int, kv_heads: int, width: int, *, head_dim: int = 256, **where: Any
) -> Shapes:
    norms: Shapes = {f"{name}_feedforward_layernorm.weight": (hidden,) for name in ("pre", "post")}
    projections = attention(hidden, heads * head_dim, kv_heads * head_dim) | head_norms(head_dim)
    parts = layer(hidden, self_attn=projections, mlp=mlp(hidden, width)) | norms
    return text_model([parts] * num_layers, hidden=hidden, is_tied=True, **where)


GEMMA3_1B = Release(
    config={
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 1152,
        "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "intermediate_size": 6912, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "rope_theta": 1000000,
        "rope_local_base_freq": 10000, "rope_scaling": None, "sliding_window": 512, "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "attention_bias": False, "attention_dropout": 0.0, "torch_dtype": "bfloat16",
        "bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0, "cache_implementation": "hybrid",
        "initializer_range": 0.02, "use_cache": True, "transformers_version": "4.50.0.dev0",
    },
    num_tensors=340,
    shapes=_gemma3_text(1152, 26, 4, 1, 6912, vocab=262144),
)  # fmt: skip


def _gemma3(shapes: Shapes, num_tensors: int, *, prefix: str, **text: Any) -> Release:
    """A multimodal release, whose config leaves most of the text model's keys out."""
    scaling = {"factor": 8.0, "rope_type": "linear"}
    return Release(
        config={
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "boi_token_index": 255999,
            "eoi_token_index": 256000, "image_token_index": 262144, "mm_tokens_per_image": 256,
            "eos_token_id": [1, 106], "initializer_range": 0.02, "torch_dtype": "bfloat16",
            "vision_config": {"hidden_size": 1152},
            "text_config": {"model_type": "gemma3_text", "sliding_window": 1024, "rope_scaling": scaling} | text,
        },
        num_tensors=num_tensors,
        shapes=shapes,
        elsewhere={
            f"{prefix}vision_tower.vision_model.post_layernorm.bias": (1152,),
            f"{prefix}multi_modal_projector.mm_soft_emb_norm.weight": (1152,),
        },
    )  # fmt: skip


GEMMA3_4B = _gemma3(
    _gemma3_text(2560, 34, 8, 4, 10240, vocab=262208, prefix="language_model.model"), 444,
    prefix="", hidden_size=2560, intermediate_size=10240, num_hidden_layers=34,
)  # fmt: skip
GEMMA3_27B = _gemma3(
    _gemma3_text(5376, 62, 32, 16, 21504, head_dim=128, vocab=262208, prefix="model.language_model"), 808,
    prefix="model.", hidden_size=5376, intermediate_size=21504, num_hidden_layers=62, num_attention_heads=32,
    num_key_value_heads=16, head_dim=128, query_pre_attn_scalar=168,
)  # fmt: skip


def _gpt_oss(num_layers: int, num_experts: int, *, is_packed: bool = True) -> Release:
    """packed: in MXFP4, as OpenAI released it; otherwise as transformers writes it in bfloat16."""
    kinds = ["sliding_attention", "full_attention"] * (num_layers // 2)
    quantization = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    experts: Shapes = {"gate_up_proj_bias": (num_experts, 5760), "down_proj_bias": (num_experts, 2880)}
    if is_packed:
        for name, rows in (("gate_up_proj", 5760), ("down_proj", 2880)):
            experts |= {f"{name}_blocks": (num_experts, rows, 90, 16), f"{name}_scales": (num_experts, rows, 90)}
    else:
        experts |= {"gate_up_proj": (num_experts, 2880, 5760), "down_proj": (num_experts, 2880, 2880)}
    part = layer(
        2880,
        self_attn=attention(2880, 4096, 512) | biases(4096, 512) | {"o_proj.bias": (2880,), "sinks": (64,)},
        mlp={"router.weight": (num_experts, 2880), "router.bias": (num_experts,)} | under("experts", experts),
    )
    return Release(
        config={
            "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "vocab_size": 201088, "hidden_size": 2880,
            "num_hidden_layers": num_layers, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
            "intermediate_size": 2880, "num_local_experts": num_experts, "num_experts_per_tok": 4,
            "experts_per_token": 4, "layer_types": kinds, "sliding_window": 128, "attention_bias": True,
            "attention_dropout": 0.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072,
            "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling": {
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                "original_max_position_embeddings": 4096,
            },
            "swiglu_limit": 7.0, "hidden_act": "silu", "tie_word_embeddings": False, "eos_token_id": 200002,
            "pad_token_id": 199999, "initializer_range": 0.02, "output_router_logits": False,
            "router_aux_loss_coef": 0.9, "use_cache": True, "transformers_version": "4.55.0.dev0",
        } | ({"quantization_config": quantization} if is_packed else {"swiglu_alpha": 1.702, "dtype": "bfloat16"}),
        num_tensors=num_layers * (19 if is_packed else 17) + 3,
        shapes=text_model([part] * num_layers, vocab=201088, hidden=2880),
    )  # fmt: skip


GPT_OSS_20B = _gpt_oss(24, 32)
GPT_OSS_20B_BF16 = _gpt_oss(24, 32, is_packed=False)
GPT_OSS_120B = _gpt_oss(36, 128)


LATENT_FP8: dict[str, Any] = {
    "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
}  # fmt: skip
_YARN = {"type": "yarn", "original_max_position_embeddings": 4096, "beta_slow": 1}
_AUTO_MAP = {
    "AutoConfig": "configuration_deepseek.DeepseekV3Config", "AutoModel": "modeling_deepseek.DeepseekV3Model",
    "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
}  # fmt: skip
LATENT: dict[str, Any] = {
    "attention_bias": False, "attention_dropout": 0.0, "auto_map": _AUTO_MAP, "hidden_act": "silu",
    "initializer_range": 0.02, "kv_lora_rank": 512, "moe_layer_freq": 1, "norm_topk_prob": True,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": True,
}  # fmt: skip


def _latent(
    *, hidden: int, num_layers: int, heads: int, q_rank: int | None, width: int, experts: int, expert_width: int,
    shared: int, first_dense: int, vocab: int, has_bias: bool = True, is_fp8: bool = False, num_modules: int = 0,
    **config: Any,
) -> Release:  # fmt: skip
    """A model with latent attention, whose heads have 128 + 64 and 128 numbers."""
    projections: Shapes = {
        "kv_a_proj_with_mqa.weight": (576, hidden), "kv_a_layernorm.weight": (512,),
        "kv_b_proj.weight": (heads * 256, 512), "o_proj.weight": (hidden, heads * 128),
    }  # fmt: skip
    if q_rank is None:
        projections["q_proj.weight"] = (heads * 192, hidden)
    else:
        projections |= {"q_a_proj.weight": (q_rank, hidden), "q_a_layernorm.weight": (q_rank,)}
        projections["q_b_proj.weight"] = (heads * 192, q_rank)
    moe: Shapes = {"gate.weight": (experts, hidden)}
    if has_bias:
        moe["gate.e_score_correction_bias"] = (experts,)
    moe |= under("experts", one_by_one(experts, hidden, expert_width))
    moe |= under("shared_experts", mlp(hidden, shared * expert_width))
    dense = layer(hidden, self_attn=projections, mlp=mlp(hidden, width))
    sparse = layer(hidden, self_attn=projections, mlp=moe)
    scaled = _with_scales if is_fp8 else dict
    layers = [scaled(dense)] * first_dense + [scaled(sparse)] * (num_layers - first_dense)
    module: Shapes = {f"{name}.weight": (hidden,) for name in ("enorm", "hnorm", "shared_head.norm")}
    module |= {"eh_proj.weight": (hidden, 2 * hidden)}
    module |= {"embed_tokens.weight": (vocab, hidden), "shared_head.head.weight": (vocab, hidden)} | scaled(sparse)
    shapes = text_model(layers, vocab=vocab, hidden=hidden)
    return Release(
        config=LATENT | {
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "scoring_func": "sigmoid",
            "topk_method": "noaux_tc", "hidden_size": hidden, "num_hidden_layers": num_layers,
            "num_attention_heads": heads, "num_key_value_heads": heads, "q_lora_rank": q_rank,
            "intermediate_size": width, "n_routed_experts": experts, "moe_intermediate_size": expert_width,
            "n_shared_experts": shared, "first_k_dense_replace": first_dense, "vocab_size": vocab,
        } | ({"quantization_config": LATENT_FP8} if is_fp8 else {}) | config,
        shapes=shapes,
        num_tensors=3 + sum(map(len, layers)),
        module={k: v for i in range(num_modules) for k, v in under(f"model.layers.{num_layers + i}", module).items()},
    )  # fmt: skip


def _with_scales(shapes: Shapes) -> Shapes:
    """The scales of blocks of 128 x 128 beside every matrix but the router's."""
    found = dict(shapes)
    for name, shape in shapes.items():
        if len(shape) == 2 and name != "mlp.gate.weight":
            found[f"{name}_scale_inv"] = tuple(-(-size // 128) for size in shape)
    return found


_V3: dict[str, Any] = {
    "hidden": 7168, "q_rank": 1536, "width": 18432, "expert_width": 2048, "shared": 1, "is_fp8": True,
}  # fmt: skip
DEEPSEEK_V3 = _latent(
    **_V3, num_layers=61, heads=128, experts=256, first_dense=3, vocab=129280, num_modules=1, n_group=8,
    topk_group=4, num_experts_per_tok=8, routed_scaling_factor=2.5, max_position_embeddings=163840, rope_theta=10000,
    rope_scaling=_YARN | {"beta_fast": 32, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0}, bos_token_id=0,
    eos_token_id=1, ep_size=1, num_nextn_predict_layers=1,
)  # fmt: skip
KIMI_K2 = _latent(
    **_V3, num_layers=61, heads=64, experts=384, first_dense=1, vocab=163840, model_type="kimi_k2", n_group=1,
    topk_group=1, num_experts_per_tok=8, routed_scaling_factor=2.827, max_position_embeddings=131072,
    rope_theta=50000.0,
    rope_scaling=_YARN | {"beta_fast": 1.0, "factor": 32.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    bos_token_id=163584, eos_token_id=163585, aux_loss_alpha=0.001, seq_aux=True, pretraining_tp=1,
    num_nextn_predict_layers=0,
)  # fmt: skip
MOONLIGHT = _latent(
    hidden=2048, num_layers=27, heads=16, q_rank=None, width=11264, experts=64, expert_width=1408, shared=2,
    first_dense=1, vocab=163840, n_group=1, topk_group=1, num_experts_per_tok=6, routed_scaling_factor=2.446,
    max_position_embeddings=8192, rope_theta=50000.0, rms_norm_eps=1e-5, bos_token_id=163584, eos_token_id=163586,
    aux_loss_alpha=0.001, seq_aux=True, pretraining_tp=1, ep_size=1, num_nextn_predict_layers=0,
)  # fmt: skip
DEEPSEEK_V2_LITE = _latent(
    hidden=2048, num_layers=27, heads=16, q_rank=None, width=10944, experts=64, expert_width=1408, shared=2,
    first_dense=1, vocab=102400, has_bias=False, architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2",
    scoring_func="softmax", topk_method="greedy", norm_topk_prob=False, n_group=1, topk_group=1,
    num_experts_per_tok=6, routed_scaling_factor=1.0, max_position_embeddings=163840, rope_theta=10000,
    rope_scaling=_YARN | {"beta_fast": 32, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707},
    bos_token_id=100000, eos_token_id=100001, aux_loss_alpha=0.001, seq_aux=True, pretraining_tp=1,
)  # fmt: skip
DEEPSEEK_V2_CONFIG: dict[str, Any] = DEEPSEEK_V2_LITE.config | {
    "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3, "routed_scaling_factor": 16.0,
    "hidden_size": 5120, "num_hidden_layers": 60, "num_attention_heads": 128, "num_key_value_heads": 128,
    "q_lora_rank": 1536, "intermediate_size": 12288, "n_routed_experts": 160, "moe_intermediate_size": 1536,
}  # fmt: skip
"""DeepSeek-V2, whose tensors have the names of the small one."""

MIMO_LAYER = layer(4096, self_attn=attention(4096, 4096, 1024) | biases(4096, 1024), mlp=mlp(4096, 11008))
MIMO_7B = Release(
    config={
        "architectures": ["MiMoForCausalLM"], "model_type": "mimo", "vocab_size": 151680, "hidden_size": 4096,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 11008, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768, "rope_theta": 640000,
        "rope_scaling": None, "attention_bias": True, "sliding_window": 32768, "use_sliding_window": False,
        "max_window_layers": 36, "num_nextn_predict_layers": 1, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02,
        "use_cache": True, "auto_map": {"AutoConfig": "configuration_mimo.MiMoConfig"},
    },
    num_tensors=36 * 12 + 3,
    shapes=text_model([MIMO_LAYER] * 36, vocab=151680, hidden=4096),
    module=under("model.mtp_layers.0", MIMO_LAYER | {
        "token_layernorm.weight": (4096,), "hidden_layernorm.weight": (4096,), "input_proj.weight": (4096, 8192),
        "final_layernorm.weight": (4096,),
    }),
)  # fmt: skip

QWEN3_5: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "vocab_size": 248320,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 262144,
    "attn_output_gate": True,
    "mamba_ssm_dtype": "float32",
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "eos_token_id": 248044,
    "dtype": "bfloat16",
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
        "mrope_section": [11, 11, 10],
        "mrope_interleaved": True,
    },
}


def _period(count: int, linear: Shapes, full: Shapes) -> list[Shapes]:
    """Three layers of linear attention, and one that attends to everything."""
    return [full if index % 4 == 3 else linear for index in range(count)]


def _qwen_module(hidden: int, full: Shapes) -> Shapes:
    """The prediction module of Qwen3-Next and its successors; its layer attends."""
    norms: Shapes = {f"{name}.weight": (hidden,) for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
    return under("mtp", norms | {"fc.weight": (hidden, 2 * hidden)} | under("layers.0", full))


def _qwen3_5(
    name: str, *, hidden: int, num_layers: int, text: dict[str, Any], linear: Shapes, full: Shapes, module: Shapes,
    num_tensors: int, is_tied: bool = False,
) -> Release:  # fmt: skip
    kinds = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(num_layers)]
    sizes = {"hidden_size": hidden, "num_hidden_layers": num_layers, "layer_types": kinds}
    return Release(
        config={
            "architectures": [f"{name}ForConditionalGeneration"], "image_token_id": 248056,
            "model_type": {"Qwen3_5": "qwen3_5", "Qwen3_5Moe": "qwen3_5_moe"}[name], "video_token_id": 248057,
            "vision_start_token_id": 248053, "vision_end_token_id": 248054,
            "tie_word_embeddings": is_tied, "text_config": QWEN3_5 | sizes | text, "vision_config": {"depth": 12},
        },
        shapes=text_model(
            _period(num_layers, linear, full), vocab=248320, hidden=hidden, is_tied=is_tied,
            prefix="model.language_model",
        ),
        num_tensors=num_tensors,
        module=_qwen_module(hidden, module),
        elsewhere={"model.visual.patch_embed.proj.weight": (1152, 3, 2, 16, 16)},
    )  # fmt: skip


def _linear(hidden: int, value_heads: int) -> Shapes:
    """Linear attention of 16 key heads of 128, in Qwen3.5."""
    values = 128 * value_heads
    return {
        "in_proj_qkv.weight": (4096 + values, hidden),
        "in_proj_z.weight": (values, hidden),
        "in_proj_b.weight": (value_heads, hidden),
        "in_proj_a.weight": (value_heads, hidden),
        "conv1d.weight": (4096 + values, 1, 4),
        "A_log": (value_heads,),
        "dt_bias": (value_heads,),
        "norm.weight": (128,),
        "out_proj.weight": (hidden, values),
    }


def _gated(hidden: int, heads: int, kv_heads: int) -> Shapes:
    """Attention with heads of 256: q_proj holds the gates."""
    return attention(hidden, 512 * heads, 256 * kv_heads, out=256 * heads) | head_norms(256)


def _dense(
    hidden: int, num_layers: int, width: int, value_heads: int, heads: int, kv_heads: int, *, is_tied: bool = False,
    **text: Any,
) -> Release:  # fmt: skip
    full = layer(hidden, self_attn=_gated(hidden, heads, kv_heads), mlp=mlp(hidden, width))
    return _qwen3_5(
        "Qwen3_5", hidden=hidden, num_layers=num_layers, full=full, module=full, is_tied=is_tied,
        linear=layer(hidden, linear_attn=_linear(hidden, value_heads), mlp=mlp(hidden, width)),
        text=text | {
            "intermediate_size": width, "linear_num_value_heads": value_heads, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
        },
        num_tensors=num_layers // 4 * (3 * 14 + 11) + (2 if is_tied else 3),
    )  # fmt: skip


QWEN3_5_SMALL = _dense(1024, 24, 3584, 16, 8, 2, is_tied=True)
QWEN3_5_9B = _dense(4096, 32, 12288, 32, 16, 4)
QWEN3_6_27B = _dense(5120, 64, 17408, 48, 24, 4, output_gate_type="swish")

_EXPERTS_35B: Shapes = {"gate_up_proj": (256, 1024, 2048), "down_proj": (256, 2048, 512)}
_LINEAR_35B: Shapes = {
    "in_proj_qkv.weight": (8192, 2048),
    "in_proj_z.weight": (4096, 2048),
    "in_proj_a.weight": (32, 2048),
    "in_proj_b.weight": (32, 2048),
    "conv1d.weight": (8192, 1, 4),
    "A_log": (32,),
    "dt_bias": (32,),
    "norm.weight": (128,),
    "out_proj.weight": (2048, 4096),
}
_GATED_2048 = attention(2048, 8192, 512, out=4096) | head_norms(256)
"""Attention of 35B-A3B and of Qwen3-Next: 16 heads, 2 of k and v."""


def _shared(num_experts: int, experts: Shapes) -> Shapes:
    """512 wide experts beside one that every token goes to."""
    gates: Shapes = {"gate.weight": (num_experts, 2048), "shared_expert_gate.weight": (1, 2048)}
    return gates | under("shared_expert", mlp(2048, 512)) | under("experts", experts)


def _qwen3_5_moe(module_experts: Shapes, **text: Any) -> Release:
    """The model's experts are packed; those of its module are one by one in Qwen3.5 and packed in 3.6."""
    return _qwen3_5(
        "Qwen3_5Moe", hidden=2048, num_layers=40,
        linear=layer(2048, linear_attn=_LINEAR_35B, mlp=_shared(256, _EXPERTS_35B)),
        full=layer(2048, self_attn=_GATED_2048, mlp=_shared(256, _EXPERTS_35B)),
        module=layer(2048, self_attn=_GATED_2048, mlp=_shared(256, module_experts)),
        text=text | {
            "model_type": "qwen3_5_moe_text", "linear_num_value_heads": 32, "num_attention_heads": 16,
            "num_key_value_heads": 2, "num_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512, "mlp_only_layers": [],
        },
        num_tensors=30 * (9 + 2 + 7) + 10 * (6 + 2 + 7) + 3,
    )  # fmt: skip


QWEN3_5_35B = _qwen3_5_moe(one_by_one(256, 2048, 512))
QWEN3_6_35B = _qwen3_5_moe(_EXPERTS_35B, output_gate_type="swish")

_LINEAR_80B: Shapes = {
    "in_proj_qkvz.weight": (12288, 2048),
    "in_proj_ba.weight": (64, 2048),
    "conv1d.weight": (8192, 1, 4),
    "A_log": (32,),
    "dt_bias": (32,),
    "norm.weight": (128,),
    "out_proj.weight": (2048, 4096),
}
_EXPERTS_80B = _shared(512, one_by_one(512, 2048, 512))
_FULL_80B = layer(2048, self_attn=_GATED_2048, mlp=_EXPERTS_80B)
QWEN3_NEXT_80B = Release(
    config={
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "vocab_size": 151936,
        "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 256, "intermediate_size": 5120, "rms_norm_eps": 1e-6, "max_position_embeddings": 262144,
        "rope_theta": 10000000, "rope_scaling": None, "partial_rotary_factor": 0.25, "attention_bias": False,
        "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "num_experts": 512,
        "num_experts_per_tok": 10, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": False,
        "eos_token_id": 151645, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 151643,
        "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "use_cache": True,
        "output_router_logits": False, "router_aux_loss_coef": 0.001,
    },
    num_tensors=36 * (7 + 2 + 5 + 3 * 512) + 12 * (6 + 2 + 5 + 3 * 512) + 3,
    shapes=text_model(
        _period(48, layer(2048, linear_attn=_LINEAR_80B, mlp=_EXPERTS_80B), _FULL_80B), vocab=151936, hidden=2048
    ),
    module=_qwen_module(2048, _FULL_80B),
)  # fmt: skip


def dense(name: str, output_size: int, input_size: int) -> Shapes:
    """A linear layer with a bias."""
    return {f"{name}.weight": (output_size, input_size), f"{name}.bias": (output_size,)}


def layer_norm(name: str, size: int) -> Shapes:
    """A norm with a bias."""
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def post_norm_encoder(
    *, vocab: int, hidden: int, width: int, num_layers: int, positions: int, types: int, prefix: str = ""
) -> Shapes:
    """An encoder in the layout of BERT."""
    shapes: Shapes = {
        f"{prefix}embeddings.word_embeddings.weight": (vocab, hidden),
        f"{prefix}embeddings.position_embeddings.weight": (positions, hidden),
        f"{prefix}embeddings.token_type_embeddings.weight": (types, hidden),
    } | layer_norm(f"{prefix}embeddings.LayerNorm", hidden)
    for index in range(num_layers):
        name = f"{prefix}encoder.layer.{index}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= dense(f"{name}.{part}", hidden, hidden)
        shapes |= layer_norm(f"{name}.attention.output.LayerNorm", hidden)
        shapes |= dense(f"{name}.intermediate.dense", width, hidden) | dense(f"{name}.output.dense", hidden, width)
        shapes |= layer_norm(f"{name}.output.LayerNorm", hidden)
    return shapes


def pre_norm_encoder(*, vocab: int, hidden: int, width: int, num_layers: int) -> Shapes:
    """An encoder in the layout of ModernBERT, without biases."""
    shapes: Shapes = {
        "embeddings.tok_embeddings.weight": (vocab, hidden),
        "embeddings.norm.weight": (hidden,),
        "final_norm.weight": (hidden,),
    }
    for index in range(num_layers):
        parts: Shapes = {"attn.Wqkv.weight": (3 * hidden, hidden), "attn.Wo.weight": (hidden, hidden)}
        parts |= {"mlp.Wi.weight": (2 * width, hidden), "mlp.Wo.weight": (hidden, width), "mlp_norm.weight": (hidden,)}
        shapes |= under(f"layers.{index}", parts | ({"attn_norm.weight": (hidden,)} if index else {}))
    return shapes


MINILM = Release(
    config={
        "_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 384, "initializer_range": 0.02, "intermediate_size": 1536,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
        "num_hidden_layers": 6, "pad_token_id": 0, "position_embedding_type": "absolute",
        "transformers_version": "4.8.2", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522,
    },
    num_tensors=101,
    shapes=post_norm_encoder(
        vocab=30522, hidden=384, width=1536, num_layers=6, positions=512, types=2
    ),
    elsewhere={"embeddings.position_ids": (1, 512)} | dense("pooler.dense", 384, 384),
)  # fmt: skip

BGE_RERANKER = Release(
    config={
        "_name_or_path": "BAAI/bge-m3", "architectures": ["XLMRobertaForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1, "bos_token_id": 0, "classifier_dropout": None, "eos_token_id": 2,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 1024, "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02, "intermediate_size": 4096, "label2id": {"LABEL_0": 0}, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 8194, "model_type": "xlm-roberta", "num_attention_heads": 16,
        "num_hidden_layers": 24, "output_past": True, "pad_token_id": 1, "position_embedding_type": "absolute",
        "torch_dtype": "float32", "transformers_version": "4.38.1", "type_vocab_size": 1, "use_cache": True,
        "vocab_size": 250002,
    },
    num_tensors=393,
    shapes=post_norm_encoder(
        vocab=250002, hidden=1024, width=4096, num_layers=24, positions=8194, types=1, prefix="roberta."
    ) | dense("classifier.dense", 1024, 1024) | dense("classifier.out_proj", 1, 1024),
)  # fmt: skip

GTE_MODERNBERT = Release(
    config={
        "_name_or_path": "answerdotai/ModernBERT-base", "architectures": ["ModernBertModel"], "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False,
        "classifier_dropout": 0.0, "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True,
        "deterministic_flash_attn": False, "embedding_dropout": 0.0, "eos_token_id": 50282,
        "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": False,
        "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0, "initializer_range": 0.02,
        "intermediate_size": 1152, "layer_norm_eps": 1e-5, "local_attention": 128, "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0, "model_type": "modernbert",
        "norm_bias": False, "norm_eps": 1e-5, "num_attention_heads": 12, "num_hidden_layers": 22,
        "pad_token_id": 50283, "position_embedding_type": "absolute", "reference_compile": False,
        "repad_logits_with_grad": False, "sep_token_id": 50282, "sparse_pred_ignore_index": -100,
        "sparse_prediction": False, "torch_dtype": "float16", "transformers_version": "4.48.0", "vocab_size": 50368,
    },
    num_tensors=134,
    shapes=pre_norm_encoder(vocab=50368, hidden=768, width=1152, num_layers=22),
)  # fmt: skip


ENCODERS = {"all-MiniLM-L6-v2": MINILM, "bge-reranker-v2-m3": BGE_RERANKER, "gte-modernbert-base": GTE_MODERNBERT}
"""Checkpoints of encoders."""

RELEASES = ENCODERS | {
    "Llama-3.1-8B": LLAMA_8B,
    "SmolLM2-135M": SMOLLM2_135M,
    "Qwen2.5-0.5B": QWEN2_5_SMALL,
    "Qwen2.5-7B": QWEN2_5_7B,
    "Mistral-7B-v0.1": MISTRAL_7B_V1,
    "Mistral-Nemo": MISTRAL_NEMO,
    "Phi-4": PHI_4,
    "Phi-4-mini": PHI_4_MINI,
    "OLMo-2-7B": OLMO2_7B,
    "OLMo-3-7B": OLMO3_7B,
    "Gemma-3-1B": GEMMA3_1B,
    "Gemma-3-4B": GEMMA3_4B,
    "Gemma-3-27B": GEMMA3_27B,
    "gpt-oss-20b": GPT_OSS_20B,
    "gpt-oss-20b, bfloat16": GPT_OSS_20B_BF16,
    "gpt-oss-120b": GPT_OSS_120B,
    "Qwen3-0.6B": QWEN3_SMALL,
    "Qwen3-8B": QWEN3_8B,
    "Qwen3-30B-A3B": QWEN3_MOE,
    "Qwen3-30B-A3B, packed": QWEN3_MOE_PACKED,
    "MiMo-7B": MIMO_7B,
    "DeepSeek-V3": DEEPSEEK_V3,
    "Kimi-K2": KIMI_K2,
    "Moonlight-16B-A3B": MOONLIGHT,
    "DeepSeek-V2-Lite": DEEPSEEK_V2_LITE,
    "Qwen3.5-0.8B": QWEN3_5_SMALL,
    "Qwen3.5-9B": QWEN3_5_9B,
    "Qwen3.6-27B": QWEN3_6_27B,
    "Qwen3.5-35B-A3B": QWEN3_5_35B,
    "Qwen3.6-35B-A3B": QWEN3_6_35B,
    "Qwen3-Next-80B-A3B": QWEN3_NEXT_80B,
}

_LLAMA_HEAD: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "vocab_size": 128256,
    "model_type": "llama", "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02,
    "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": 0, "use_cache": True, "torch_dtype": "float16",
}  # fmt: skip
_EAGLE: Shapes = {"fc.weight": (4096, 8192)} | under(
    "layers.0",
    under("self_attn", attention(4096, 4096, 1024))
    | under("mlp", mlp(4096, 14336))
    | {"post_attention_layernorm.weight": (4096,)},
)
_EAGLE3: Shapes = {
    "fc.weight": (4096, 12288),
    "norm.weight": (4096,),
    "lm_head.weight": (32000, 4096),
    "d2t": (32000,),
    "t2d": (128256,),
} | under(
    "midlayer",
    layer(4096, self_attn=attention(8192, 4096, 1024) | {"o_proj.weight": (4096, 4096)}, mlp=mlp(4096, 14336))
    | {"hidden_norm.weight": (4096,)},
)

_CLAMPED_HEAD: dict[str, Any] = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 2880, "num_hidden_layers": 1,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 17280,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "vocab_size": 201088, "rope_theta": 150000,
    "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "bos_token_id": 199998, "eos_token_id": 200002, "pad_token_id": 199999,
    "pretraining_tp": 1, "initializer_range": 0.02, "use_cache": True, "torch_dtype": "bfloat16",
}  # fmt: skip


def _clamped_head(**further: tuple[int, ...]) -> Shapes:
    """A head as wide as gpt-oss, whose MLP is six times as wide."""
    norms: Shapes = {f"{name}.weight": (2880,) for name in ("norm", "midlayer.hidden_norm")}
    projections = attention(5760, 4096, 512) | {"o_proj.weight": (2880, 4096)}
    part = under("midlayer", layer(2880, self_attn=projections, mlp=mlp(2880, 17280)))
    return {"fc.weight": (2880, 8640)} | norms | part | further


HEADS = {
    "EAGLE for Llama-3.1-8B": ReleasedHead(
        target="Llama-3.1-8B", method="eagle", config=_LLAMA_HEAD | {"architectures": ["LlamaForCausalLM"]},
        shapes=_EAGLE | {"fc.bias": (4096,), "embed_tokens.weight": (128256, 4096)},
    ),
    "EAGLE for Llama-3.1-8B, nothing but the layer": ReleasedHead(
        target="Llama-3.1-8B", method="eagle", shapes=_EAGLE,
        config=_LLAMA_HEAD | {"architectures": ["LlamaForCausalLM"], "bias": False},
    ),
    "EAGLE-3 for gpt-oss-20b": ReleasedHead(
        target="gpt-oss-20b", method="eagle3", taps=(2, 12, 22),
        shapes=_clamped_head(**{"lm_head.weight": (32000, 2880), "d2t": (32000,), "t2d": (201088,)}),
        config=_CLAMPED_HEAD | {
            "draft_vocab_size": 32000,
            "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 11, 21], "use_aux_hidden_state": True},
        },
    ),
    "EAGLE-3 for gpt-oss-120b, without lm_head": ReleasedHead(
        target="gpt-oss-120b", method="eagle3", taps=(24, 30, 36),
        shapes=_clamped_head(**{"input_norm.weight": (8640,)}),
        config=_CLAMPED_HEAD | {
            "draft_vocab_size": None,
            "eagle_config": {
                "eagle_aux_hidden_state_layer_ids": [23, 29, 35], "use_aux_hidden_state": True, "norm_before_fc": True,
                "use_input_layernorm_in_first_layer": True, "use_last_layernorm": True, "use_mtp_layernorm": False,
                "next_layer_regular": True, "parallel_draft_step": 1, "parallel_draft_heads_num_layers": 1,
            },
        },
    ),
    "EAGLE-3 for Llama-3.1-8B": ReleasedHead(
        target="Llama-3.1-8B", method="eagle3", shapes=_EAGLE3, taps=(2, 16, 29),
        config=_LLAMA_HEAD | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000},
    ),
}  # fmt: skip
