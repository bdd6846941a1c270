"""Tiny random checkpoints in the Hugging Face layout, written by transformers, the oracle of the model tests.

Weights are spread widely and norms and biases are random, or a test could not see a wrong formula.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

_FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen3_5": (Qwen3_5TextConfig, Qwen3_5ForCausalLM),
}

HYBRIDS = ("qwen3_5",)
"""Families whose layers have a recurrent state, and norms that multiply by 1 + weight."""

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
"""What a tiny model is made of where the caller says nothing else."""


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


def write_tiny_model(
    directory: str | Path, family: str = "llama", *, seed: int = 0, max_shard_size: str = "1GB", **overrides: Any
) -> PreTrainedModel:
    """Saves a random model in float32 and returns it, in eval mode. `overrides`: fields of its config."""
    config_class, model_class = _FAMILIES[family]
    torch.manual_seed(seed)
    is_hybrid = family in HYBRIDS
    sizes = SIZES | (_HYBRID_SIZES if is_hybrid else {})
    model = model_class(config_class(**(sizes | overrides))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                is_plain = not is_hybrid or name.endswith("linear_attn.norm.weight")
                parameter.normal_(1.0 if "norm" in name and is_plain else 0.0, 0.3)
            if name.endswith("A_log"):
                parameter.normal_(0.0, 1.0)  # from heads that forget at once to those that remember all
    model.generation_config.do_sample = False
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    return model


def write_draft_model(directory: str | Path, target: str | Path, *, spread: float, seed: int = 0) -> None:
    """The target's model with each weight moved a little: it agrees with the target often, and not always."""
    model = Qwen3ForCausalLM.from_pretrained(target)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread * parameter.std(unbiased=False))
    model.save_pretrained(directory)
