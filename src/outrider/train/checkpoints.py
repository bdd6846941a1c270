"""Writes and reads the model folders: Qwen3 in Hugging Face layout, EAGLE-3 heads in the original format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .eagle import Eagle3Head, HeadShape
from .network import Shape, Target


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def save_target(target: Target, folder: Path, *, end_ids: tuple[int, int]) -> None:
    """end_ids: end of turn, end of text."""
    shape = target.shape
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to("cpu", torch.bfloat16) for name, weight in target.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": shape.rope_theta,
            "rope_scaling": None,
            "max_position_embeddings": shape.max_length,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": end_ids[0],
            "pad_token_id": end_ids[1],
            "dtype": "bfloat16",
        },
    )
    _write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": list(end_ids), "pad_token_id": end_ids[1]},
    )


def load_target(folder: Path, device: torch.device) -> Target:
    """The shipped weights, computing in fp32."""
    config = json.loads((folder / "config.json").read_text())
    shape = Shape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
        max_length=config["max_position_embeddings"],
    )
    target = Target(shape)
    target.load_state_dict(_as_fp32(load_file(folder / "model.safetensors")))
    return target.to(device).requires_grad_(False)


def save_head(head: Eagle3Head, folder: Path) -> None:
    shape = head.shape
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().cpu() for name, weight in head.state_dict().items()}
    weights = {name: w.to(torch.bfloat16) if w.is_floating_point() else w for name, w in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLMEagle3"],
            "model_type": "llama",
            "vocab_size": shape.vocab_size,
            "draft_vocab_size": shape.draft_vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": 1,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": shape.rope_theta,
            "rope_scaling": None,
            "max_position_embeddings": shape.max_length,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "dtype": "bfloat16",
        },
    )


def load_head(folder: Path, device: torch.device) -> Eagle3Head:
    """The shipped weights, computing in fp32."""
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    shape = HeadShape(
        vocab_size=config["vocab_size"],
        draft_vocab_size=config["draft_vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
        max_length=config["max_position_embeddings"],
    )
    head = Eagle3Head(shape, draft_ids=weights["t2d"].nonzero()[:, 0])
    head.load_state_dict(_as_fp32(weights))
    return head.to(device).requires_grad_(False)


def _as_fp32(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
