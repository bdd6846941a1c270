"""Writes GGUF files from tiny transformers models, as the converter of llama.cpp does, with the gguf package."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize
from transformers import PreTrainedModel

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""model_type -> general.architecture."""

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA_NAMES = _NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_SCALES = {"Q4_K": (0, 4), "Q5_K": (0, 4), "Q6_K": (208, 210)}
"""Bytes of a block that are fp16 scales, for types that the package reads only."""


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    *,
    type_name: str = "F32",
    tokenizer: dict[str, Any] | None = None,
    fields: dict[str, Any] | None = None,
    divisors: np.ndarray | None = None,
) -> Path:
    """Writes a model with its matrices in one type; a type that cannot be written gets random blocks.

    tokenizer: values by their keys below "tokenizer.". fields: further or other values of the architecture's keys;
    None leaves a key out. divisors: those of a llama3 rope, [head_dim / 2] fp32.
    """
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, architecture)
    writer.add_name("a tiny model")
    add_values(writer, {f"{architecture}.{key}": value for key, value in (_fields(config) | (fields or {})).items()})
    add_values(writer, {f"tokenizer.{key}": value for key, value in (tokenizer or no_text(config)).items()})
    draw = np.random.default_rng(0)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", divisors)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if architecture == "llama" and "q_proj" in name:
            values = interleaved(values, config.num_attention_heads)
        if architecture == "llama" and "k_proj" in name:
            values = interleaved(values, config.num_key_value_heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        chosen = type_name if values.ndim == 2 else "F32"
        writer.add_tensor(gguf_name(name, architecture), encoded(values, chosen, draw), raw_dtype=raw_type(chosen))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_values(writer: GGUFWriter, values: dict[str, Any]) -> None:
    """Adds values in the types that converters choose: unsigned integers and fp32."""
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_int32(key, value) if value < 0 else writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def no_text(config: Any) -> dict[str, Any]:
    """Metadata of a vocabulary of made-up tokens, for prompts as ids."""
    tokens = [f"token{index}" for index in range(config.vocab_size)]
    return {"ggml.model": "none", "ggml.tokens": tokens, "ggml.eos_token_id": config.eos_token_id}


def raw_type(type_name: str) -> GGMLQuantizationType:
    """The package's constant."""
    return GGMLQuantizationType[type_name]


def encoded(values: np.ndarray, type_name: str, draw: np.random.Generator) -> np.ndarray:
    """Values in a type, [rows, bytes or values]; random ones of the same shape for types that cannot be written."""
    if type_name not in _SCALES:
        return quantize(np.ascontiguousarray(values), raw_type(type_name))
    values_per_block, bytes_per_block = GGML_QUANT_SIZES[raw_type(type_name)]
    num_blocks = values.size // values_per_block
    blocks = draw.integers(0, 256, (num_blocks, bytes_per_block), dtype=np.uint8)
    begin, end = _SCALES[type_name]
    scales = draw.uniform(1e-4, 3e-4, (num_blocks, (end - begin) // 2)).astype(np.float16)
    blocks[:, begin:end] = scales.view(np.uint8)
    return blocks.reshape(len(values), -1)


def interleaved(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of each head for a rope of neighbouring pairs: 0 … n-1 become 0, n/2, 1, n/2 + 1, …"""
    halves = values.reshape(num_heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def gguf_name(name: str, architecture: str) -> str:
    """The name in a file of a tensor of transformers."""
    names = _GEMMA_NAMES if architecture == "gemma3" else _NAMES
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        index, _, part = module.removeprefix("model.layers.").partition(".")
        return f"blk.{index}.{names[part]}.{kind}"
    return f"{names[module]}.{kind}"


def _fields(config: Any) -> dict[str, Any]:
    """Keys of the architecture."""
    fields = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "vocab_size": config.vocab_size,
    }
    rope = config.rope_parameters
    if config.model_type == "gemma3_text":
        fields["attention.sliding_window"] = config.sliding_window
        rope = rope["full_attention"]
    else:
        fields["rope.dimension_count"] = config.head_dim
    fields["rope.freq_base"] = float(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        fields |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        fields["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    return fields
