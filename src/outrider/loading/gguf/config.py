"""config.json of a GGUF file, made from its metadata. A key of the model that is not read is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.loading.gguf.file import GgufFile
from outrider.loading.gguf.vocabulary import end_ids

FREQUENCIES = "rope_freqs.weight"
"""Divisors of the rope's frequencies, [head_dim / 2] fp32: the one tensor that the config stands for."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The rope of every Llama 3.1 to 3.3. A file has its divisors only; they are compared with those of these values."""

_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
"""Keys of general.sampling that mean the same as keys of generation_config.json, and their names there."""


def read_gguf_config(path: str | Path) -> dict[str, Any]:
    """The config of the model in a GGUF file, in Hugging Face form. UnsupportedError names what is not supported."""
    file = GgufFile(path)
    name = file.architecture
    if name not in _FAMILIES:
        raise UnsupportedError(
            f"{path}: general.architecture={name!r} is not supported in GGUF. Supported: {', '.join(_FAMILIES)}."
            " Use the model's safetensors, if docs/models.md lists it."
        )
    reader = ConfigReader(file.section(f"{name}."), where=str(path), prefix=f"{name}.")
    config = _shared(file, reader) | _FAMILIES[name](file, reader)
    reader.finish()
    return config


def read_gguf_sampling(path: str | Path) -> dict[str, Any]:
    """Recommended sampling parameters of a file, under the keys of generation_config.json."""
    given = GgufFile(path).section("general.sampling.")
    return {name: _shortest(given[key]) for key, name in _SAMPLING.items() if key in given}


def _shared(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    """The keys that every family has."""
    reader.ignore("vocab_size", "rope.scaling.finetuned", reason="the tensors say it, or it changes nothing")
    hidden, heads = reader.integer("embedding_length"), reader.integer("attention.head_count")
    head_dim = reader.integer("attention.key_length", default=max(hidden // heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if reader.integer(key, default=head_dim) != head_dim:
            raise UnsupportedError(
                f"{reader.said(key)} is not supported: it is not the width of a head, {head_dim}. Use the model's"
                " safetensors."
            )
    for key in ("expert_count", "expert_used_count"):
        reader.neutral(key, 0, reason="no mixture of experts")
    return {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": reader.integer("attention.head_count_kv", default=heads),
        "head_dim": head_dim,
        "num_hidden_layers": reader.integer("block_count"),
        "intermediate_size": reader.integer("feed_forward_length"),
        "max_position_embeddings": reader.integer("context_length"),
        "rms_norm_eps": _shortest(reader.number("attention.layer_norm_rms_epsilon")),
        "vocab_size": _vocab_size(file),
        "rope_theta": _theta(reader),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "eos_token_id": end_ids(file),
        "dtype": "bfloat16",
    } | _rope_scaling(file, reader, head_dim)


def _vocab_size(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(f"{file.path} has no token_embd.weight: it holds no whole model. Download it again.")
    return embedding.shape[0]


def _theta(reader: ConfigReader, *, default: float = 10000.0) -> float:
    return _shortest(reader.number("rope.freq_base", default=default))


def _rope_scaling(file: GgufFile, reader: ConfigReader, head_dim: int) -> dict[str, Any]:
    factor = _shortest(reader.number("rope.scaling.factor", default=1.0))
    kind = reader.choice("rope.scaling.type", ("none", "linear", "yarn"), default="none" if factor == 1 else "linear")
    if kind == "yarn":
        original = reader.integer("rope.scaling.original_context_length")
        scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        return {"rope_scaling": scaling}
    reader.ignore("rope.scaling.original_context_length", reason="of yarn only")
    if kind == "linear" and factor != 1:
        return {"rope_scaling": {"rope_type": "linear", "factor": factor}}
    if FREQUENCIES not in file.tensors:
        return {}
    return {"rope_scaling": _llama3_rope(file, _theta(reader), head_dim)}


def _llama3_rope(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any]:
    """The rope of Llama 3.1, whose factor is the largest divisor."""
    tensor = file.tensors[FREQUENCIES]
    scaling: dict[str, Any] = {}
    if tensor.type_name == "F32" and tensor.shape == (head_dim // 2,):
        stored = file.stored_bytes(tensor).view(np.float32)
        scaling = {"rope_type": "llama3", "factor": float(stored.max())} | _LLAMA3
    if not scaling or not np.allclose(stored, _divisors(scaling, theta, head_dim), rtol=1e-4):
        raise UnsupportedError(
            f"{file.path}: {FREQUENCIES} is not the rope of Llama 3.1 to 3.3, and no other is supported. Use the"
            " model's safetensors."
        )
    return scaling


def _divisors(scaling: dict[str, Any], theta: float, head_dim: int) -> np.ndarray:
    """The divisor of each frequency under a llama3 rope, [head_dim / 2]: 1 for short waves, `factor` for long ones."""
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / (share + (1.0 - share) / scaling["factor"])


def _llama(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
    }


def _qwen2(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def _qwen3(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def _gemma3(file: GgufFile, reader: ConfigReader) -> dict[str, Any]:
    """A file leaves out the local rope, the pattern of windows, and the scale of attention, which is a head's width
    except in the model of 62 layers."""
    reader.neutral("final_logit_softcapping", 0.0, reason="no soft cap")
    hidden, heads = reader.integer("embedding_length"), reader.integer("attention.head_count")
    head_dim = reader.integer("attention.key_length", default=max(hidden // heads, 1))
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": hidden / heads if reader.integer("block_count") == 62 else head_dim,
        "sliding_window": reader.integer("attention.sliding_window"),
        "sliding_window_pattern": reader.integer("attention.sliding_window_pattern", default=6),
        "rope_local_base_freq": _shortest(reader.number("rope.freq_base_swa", default=10000.0)),
        "rope_theta": _theta(reader, default=1e6),
    }


_FAMILIES: dict[str, Callable[[GgufFile, ConfigReader], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3": _gemma3,
}


def _shortest(value: Any) -> Any:
    """The shortest decimal number with the same fp32 bits: files hold 1e-5 as 9.9999997e-6. Other values stay."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
