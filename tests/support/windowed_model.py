"""The model of `models/windowed.py`: its directory, and its logits by the definition, in double precision."""

import json
from pathlib import Path

import torch
from torch import Tensor

from outrider import models
from outrider.layers.decoder import CausalLM
from outrider.layers.rope import rope_table
from tests.support.models.windowed import KINDS, kinds_of

SIZES = {
    "architectures": ["WindowedForCausalLM"],
    "model_type": "windowed",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": len(KINDS),
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def find_it(monkeypatch) -> None:
    """Let the engine find the model's file."""
    folder = Path(__file__).parent / "models"
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])


def write(
    directory: Path, *, num_layers: int = len(KINDS), head_dim: int = 16, vocab_size: int, eos_token_id: int
) -> None:
    """config.json; the weights are drawn (`load_format="dummy"`)."""
    directory.mkdir(exist_ok=True)
    values = SIZES | {
        "num_hidden_layers": num_layers,
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "eos_token_id": eos_token_id,
    }
    (directory / "config.json").write_text(json.dumps(values))


def logits(model: CausalLM, token_ids: list[int]) -> Tensor:
    """[len(token_ids), vocab_size] fp64: every layer over the whole sequence, its window as a mask."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    x = weights["embed_tokens.weight"][token_ids]
    for index in range(model.config.num_layers):
        x = x + _attention(model, weights, index, _norm(x, weights[f"layers.{index}.input_layernorm.weight"]))
        x = x + _mlp(weights, index, _norm(x, weights[f"layers.{index}.post_attention_layernorm.weight"]))
    return _norm(x, weights["norm.weight"]) @ weights["lm_head.weight"].T


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + SIZES["rms_norm_eps"]).rsqrt() * weight


def _mlp(weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    gate, up = (x @ weights[f"layers.{index}.mlp.gate_up_proj.weight"].T).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up) @ weights[f"layers.{index}.mlp.down_proj.weight"].T


def _attention(model: CausalLM, weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    kind, prefix, length = kinds_of(model.config.num_layers)[index], f"layers.{index}.self_attn.", len(x)
    head_dim = model.config.head_dim * kind.width
    sizes = [count * head_dim for count in (kind.num_heads, kind.num_kv_heads, kind.num_kv_heads)]
    q, k, v = (
        part.view(length, -1, head_dim) for part in (x @ weights[prefix + "qkv_proj.weight"].T).split(sizes, dim=1)
    )
    table = rope_table(model.config.rope, head_dim, length).double()
    q, k = _rotated(q, table), _rotated(k, table)
    k, v = (part.repeat_interleave(kind.num_heads // kind.num_kv_heads, dim=1) for part in (k, v))
    scores = torch.einsum("thd,shd->hts", q, k) * head_dim**-0.5
    distance = torch.arange(length)[:, None] - torch.arange(length)
    is_seen = (distance >= 0) & (distance < (kind.window or length))
    scores = scores.masked_fill(~is_seen, float("-inf"))
    if kind.has_sinks:
        sinks = weights[prefix + "sinks"].view(-1, 1, 1).expand(-1, length, 1)
        scores = torch.cat([scores, sinks], dim=-1)
    seen = scores.softmax(-1)[..., :length]
    return torch.einsum("hts,shd->thd", seen, v).flatten(1) @ weights[prefix + "o_proj.weight"].T


def _rotated(x: Tensor, table: Tensor) -> Tensor:
    """x [length, heads, D], table [length, D]: cos, then sin."""
    cos, sin = table.unsqueeze(1).chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
