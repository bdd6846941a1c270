"""Tiny random checkpoints in the Hugging Face layout, written by transformers, the oracle of the model tests.

Weights are spread widely and norms and biases are random, or a test could not see a wrong formula.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from outrider.layers.formats.mxfp4 import Format

HYBRIDS = ("qwen3_5", "qwen3_5_moe", "qwen3_next")
"""Families whose layers have a recurrent state."""

PLUS_ONE = (*HYBRIDS, "gemma3")
"""Families whose norms multiply by 1 + weight."""

_GEMMA3: dict[str, Any] = {
    "num_hidden_layers": 4,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "query_pre_attn_scalar": 20,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    "pad_token_id": 0,
}

_GPT_OSS: dict[str, Any] = {
    "num_hidden_layers": 3,
    "sliding_window": 24,
    "attention_bias": True,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "swiglu_limit": 1.5,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "truncate": False, "original_max_position_embeddings": 64,
    },
}  # fmt: skip

_HYBRID_SIZES: dict[str, Any] = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}

_SHARED_EXPERT = {
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 48,
    "num_experts": 8,
    "num_experts_per_tok": 3,
}

_LATENT = {
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "hidden_size": 80,
    "q_lora_rank": 40,
    "kv_lora_rank": 48,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_group": 4,
    "topk_group": 2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.707,
        "mscale_all_dim": 1.2,
    },
}

_FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": False, "attention_bias": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 24}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"pad_token_id": 0, "sliding_window": 24}),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, {}),
    "olmo3": (Olmo3Config, Olmo3ForCausalLM, {"num_hidden_layers": 4, "sliding_window": 24}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, _GEMMA3),
    "gpt_oss": (GptOssConfig, GptOssForCausalLM, _GPT_OSS),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "qwen3_moe": (
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True},
    ),
    "deepseek_v2": (
        DeepseekV2Config,
        DeepseekV2ForCausalLM,
        _LATENT | {"topk_method": "group_limited_greedy", "routed_scaling_factor": 4.0},
    ),
    "deepseek_v3": (
        DeepseekV3Config,
        DeepseekV3ForCausalLM,
        _LATENT | {"routed_scaling_factor": 2.5, "num_nextn_predict_layers": 0},
    ),
    "qwen3_5": (Qwen3_5TextConfig, Qwen3_5ForCausalLM, _HYBRID_SIZES),
    "qwen3_5_moe": (Qwen3_5MoeTextConfig, Qwen3_5MoeForCausalLM, _HYBRID_SIZES | _SHARED_EXPERT),
    "qwen3_next": (Qwen3NextConfig, Qwen3NextForCausalLM, _HYBRID_SIZES | _SHARED_EXPERT),
}
"""Config, model, and what the family needs besides `SIZES`."""

SIZES: dict[str, Any] = {
    "vocab_size": 503,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": True,
}
"""Default shape of a tiny model."""


def write_tiny_model(
    directory: str | Path, family: str = "llama", *, seed: int = 0, max_shard_size: str = "1GB", **overrides: Any
) -> PreTrainedModel:
    """Saves a random model in float32 and returns it, in eval mode. `overrides`: fields of its config."""
    torch.manual_seed(seed)
    model = _FAMILIES[family][1](tiny_config(family, **overrides)).eval()
    _randomize_vectors(model, is_plus_one=family in PLUS_ONE)
    model.generation_config.do_sample = False
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    return model


def tiny_config(family: str, **overrides: Any) -> Any:
    """transformers' config of a tiny model."""
    config_class, _, needs = _FAMILIES[family]
    return config_class(**(SIZES | needs | overrides))


def write_mxfp4(directory: str | Path, **overrides: Any) -> PreTrainedModel:
    """gpt-oss as it is released. Experts of the model that is returned have the values that the file holds."""
    model = write_tiny_model(directory, "gpt_oss", **overrides)
    path, form = Path(directory) / "model.safetensors", Format(is_packed=True)
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        encoded = [form.encode(matrix) for matrix in tensors.pop(name).transpose(1, 2).contiguous()]
        for last in ("blocks", "scales"):
            tensors[f"{name}_{last}"] = torch.stack([one[f"weight_{last}"] for one in encoded])
        values = convert_moe_packed_tensors(tensors[f"{name}_blocks"], tensors[f"{name}_scales"], dtype=torch.float32)
        model.get_parameter(name).data.copy_(values)
    save_file(tensors, path, metadata={"format": "pt"})
    config = Path(directory) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": MXFP4}))
    return model


MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"
    ],
}  # fmt: skip
"""quantization_config of the releases of gpt-oss."""


def write_multimodal(directory: str | Path, family: str, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A model as it is released: a config in parts, a vision tower, names that say which part, packed experts."""
    config_class, model_class = _MULTIMODAL[family]
    torch.manual_seed(seed)
    text = SIZES | _FAMILIES[family][2] | overrides
    is_tied = text["tie_word_embeddings"]
    vision = _SIGLIP if family == "gemma3" else _VISION
    model = model_class(config_class(text_config=text, vision_config=vision, tie_word_embeddings=is_tied)).eval()
    _randomize_vectors(model, is_plus_one=True)
    model.generation_config.do_sample = False
    model.save_pretrained(directory)
    if family != "gemma3":  # as it is, where transformers unpacks experts
        save_file(model.state_dict(), Path(directory) / "model.safetensors")
    return model


def write_renamed(directory: str | Path, **overrides: Any) -> PreTrainedModel:
    """A multimodal Gemma 3 under the names of new releases."""
    model = write_multimodal(directory, "gemma3", **overrides)
    path = Path(directory) / "model.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in load_file(path).items()}
    old, new = "model.language_model.model.", "model.language_model."
    save_file({name.replace(old, new): tensor for name, tensor in tensors.items()}, path)
    return model


_MULTIMODAL = {
    "gemma3": (Gemma3Config, Gemma3ForConditionalGeneration),
    "qwen3_5": (Qwen3_5Config, Qwen3_5ForConditionalGeneration),
    "qwen3_5_moe": (Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration),
}
_VISION = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "patch_size": 16, "out_hidden_size": 64,
    "num_position_embeddings": 16,
}  # fmt: skip
_SIGLIP = {
    "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 16,
}  # fmt: skip


def _randomize_vectors(model: PreTrainedModel, *, is_plus_one: bool) -> None:
    """Norms, biases and decays."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0.0, 0.3)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith("_bias"):
                is_plain = not is_plus_one or name.endswith("linear_attn.norm.weight")
                parameter.normal_(1.0 if "norm" in name and is_plain else 0.0, 0.3)
            if name.endswith("A_log"):
                parameter.normal_(0.0, 1.0)  # from heads that forget at once to those that remember all


def write_draft_model(directory: str | Path, target: str | Path, *, spread: float, seed: int = 0) -> None:
    """The target's model with each weight moved a little: it agrees with the target often, and not always."""
    model = Qwen3ForCausalLM.from_pretrained(target)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread * parameter.std(unbiased=False))
    model.save_pretrained(directory)
