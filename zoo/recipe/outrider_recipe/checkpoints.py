"""Writes and reads the model folders: Qwen3 and Qwen3.5 in Hugging Face layout, EAGLE-3 heads in the original one."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider_recipe.eagle3 import Eagle3Head, HeadShape
from outrider_recipe.hybrid import Hybrid, HybridShape
from outrider_recipe.mtp import MtpModule
from outrider_recipe.network import Shape, Target


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def save_target(target: Target, folder: Path, *, end_ids: tuple[int, int], mtp: MtpModule | None = None) -> None:
    """end_ids: end of turn, end of text. mtp: of a hybrid, in the same file as its target."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = target.state_dict()
    if isinstance(target, Hybrid):
        weights = {name.replace("model.", "model.language_model.", 1): weight for name, weight in weights.items()}
        weights |= {f"mtp.{name}": weight for name, weight in mtp.state_dict().items()} if mtp else {}
        config = _hybrid_config(target.shape, end_ids=end_ids, has_mtp=mtp is not None)
    else:
        config = _dense_config(target.shape, end_ids=end_ids)
    weights = {name: weight.detach().to("cpu", torch.bfloat16).contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": list(end_ids), "pad_token_id": end_ids[1]},
    )


def _dense_config(shape: Shape, *, end_ids: tuple[int, int]) -> dict[str, Any]:
    return {
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
    }


def _hybrid_config(shape: HybridShape, *, end_ids: tuple[int, int], has_mtp: bool) -> dict[str, Any]:
    """Nested as in the multimodal checkpoints, of which this has the text part alone."""
    half = shape.rotary_dim // 2
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen3_5_text",
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": shape.norm_eps,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_output_gate": True,
            "full_attention_interval": shape.full_attention_interval,
            "layer_types": shape.layer_types,
            "linear_conv_kernel_dim": shape.linear_conv_kernel_dim,
            "linear_num_key_heads": shape.linear_num_key_heads,
            "linear_num_value_heads": shape.linear_num_value_heads,
            "linear_key_head_dim": shape.linear_key_head_dim,
            "linear_value_head_dim": shape.linear_value_head_dim,
            "mamba_ssm_dtype": "float32",
            "mtp_num_hidden_layers": int(has_mtp),
            "mtp_use_dedicated_embeddings": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": shape.rope_theta,
                "partial_rotary_factor": shape.partial_rotary_factor,
                # the three streams of positions are equal in text, so any sections of the right sum will do
                "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
                "mrope_interleaved": True,
            },
            "max_position_embeddings": shape.max_length,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": end_ids[0],
            "pad_token_id": end_ids[1],
            "dtype": "bfloat16",
        },
    }


def _common_shape(config: dict[str, Any], *, rope_theta: float) -> dict[str, Any]:
    return {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "rope_theta": rope_theta,
        "norm_eps": config["rms_norm_eps"],
        "max_length": config["max_position_embeddings"],
    }


def _hybrid_shape(config: dict[str, Any]) -> HybridShape:
    linear = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
    rope = config["rope_parameters"]
    return HybridShape(
        **_common_shape(config, rope_theta=rope["rope_theta"]),
        full_attention_interval=config["full_attention_interval"],
        partial_rotary_factor=rope["partial_rotary_factor"],
        **{f"linear_{name}": config[f"linear_{name}"] for name in linear},
    )


def load_target(folder: Path, device: torch.device) -> Target:
    """The shipped weights, computing in fp32."""
    config = json.loads((folder / "config.json").read_text())
    weights = _as_fp32(load_file(folder / "model.safetensors"))
    target: Target
    if config["model_type"] == "qwen3_5":
        target = Hybrid(_hybrid_shape(config["text_config"]))
        weights = {
            name.replace("language_model.", "", 1): w for name, w in weights.items() if not name.startswith("mtp.")
        }
    else:
        target = Target(Shape(**_common_shape(config, rope_theta=config["rope_theta"])))
    target.load_state_dict(weights)
    return target.to(device).requires_grad_(False)


def has_mtp(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text())
    return bool(config["text_config"]["mtp_num_hidden_layers"])


def load_mtp(folder: Path, device: torch.device) -> MtpModule:
    """The module beside a hybrid's shipped weights, computing in fp32."""
    config = json.loads((folder / "config.json").read_text())
    mtp = MtpModule(_hybrid_shape(config["text_config"]))
    weights = _as_fp32(load_file(folder / "model.safetensors"))
    mtp.load_state_dict({name.removeprefix("mtp."): w for name, w in weights.items() if name.startswith("mtp.")})
    return mtp.to(device).requires_grad_(False)


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
