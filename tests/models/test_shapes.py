"""Real sizes on the meta device: the names and shapes that the released checkpoints have, without their data."""

import pytest
import torch

from models.paged_runner import cpu_context
from outrider.core.model_config import ModelConfig, MoeConfig, RopeConfig
from outrider.layers.context import LayerContext
from outrider.loading.load import load_into, targets_of
from outrider.models import find_model

LLAMA_8B = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=128256,
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    norm_eps=1e-5,
    max_position_embeddings=131072,
    rope=RopeConfig(),
)
QWEN3_8B = ModelConfig(
    architecture="Qwen3ForCausalLM",
    vocab_size=151936,
    hidden_size=4096,
    num_layers=36,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=12288,
    norm_eps=1e-6,
    max_position_embeddings=40960,
    rope=RopeConfig(),
)
QWEN3_SMALL = ModelConfig(
    architecture="Qwen3ForCausalLM",
    vocab_size=151936,
    hidden_size=1024,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=3072,
    norm_eps=1e-6,
    max_position_embeddings=40960,
    rope=RopeConfig(),
    tie_word_embeddings=True,
)
QWEN3_MOE = ModelConfig(
    architecture="Qwen3MoeForCausalLM",
    vocab_size=151936,
    hidden_size=2048,
    num_layers=48,
    num_heads=32,
    num_kv_heads=4,
    head_dim=128,
    intermediate_size=6144,
    norm_eps=1e-6,
    max_position_embeddings=40960,
    rope=RopeConfig(),
    moe=MoeConfig(num_experts=128, num_experts_per_tok=8, intermediate_size=768, is_normalized=True),
)
MIMO_7B = ModelConfig(
    architecture="MiMoForCausalLM",
    vocab_size=151680,
    hidden_size=4096,
    num_layers=36,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=11008,
    norm_eps=1e-5,
    max_position_embeddings=32768,
    rope=RopeConfig(theta=640000.0),
    attention_bias=True,
    num_mtp_layers=1,
)
EXPERT = {"gate_proj.weight": (768, 2048), "up_proj.weight": (768, 2048), "down_proj.weight": (2048, 768)}
PACKED = {"experts.gate_up_proj": (128, 1536, 2048), "experts.down_proj": (128, 2048, 768)}
MODELS = {
    "Llama-3.1-8B": (
        LLAMA_8B,
        291,
        {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)},
        {"gate_proj.weight": (14336, 4096), "up_proj.weight": (14336, 4096), "down_proj.weight": (4096, 14336)},
    ),
    "Qwen3-8B": (
        QWEN3_8B,
        399,
        {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)},
        {"gate_proj.weight": (12288, 4096), "up_proj.weight": (12288, 4096), "down_proj.weight": (4096, 12288)},
    ),
    "Qwen3-0.6B": (
        QWEN3_SMALL,
        310,
        {"q": (2048, 1024), "k": (1024, 1024), "v": (1024, 1024), "o": (1024, 2048)},
        {"gate_proj.weight": (3072, 1024), "up_proj.weight": (3072, 1024), "down_proj.weight": (1024, 3072)},
    ),
    "MiMo-7B": (
        MIMO_7B,
        36 * 12 + 3,
        {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)},
        {"gate_proj.weight": (11008, 4096), "up_proj.weight": (11008, 4096), "down_proj.weight": (4096, 11008)},
    ),
    "Qwen3-30B-A3B": (
        QWEN3_MOE,
        48 * (9 + 3 * 128) + 3,
        {"q": (4096, 2048), "k": (512, 2048), "v": (512, 2048), "o": (2048, 4096)},
        {"gate.weight": (128, 2048)}
        | {f"experts.{i}.{name}": shape for i in range(128) for name, shape in EXPERT.items()},
    ),
    "Qwen3-30B-A3B, packed": (
        QWEN3_MOE,
        48 * (9 + 2) + 3,
        {"q": (4096, 2048), "k": (512, 2048), "v": (512, 2048), "o": (2048, 4096)},
        {"gate.weight": (128, 2048)} | PACKED,
    ),
}


def _checkpoint_shapes(config, attention, mlp) -> dict[str, tuple[int, ...]]:
    """Names as they stand in the released files."""
    shapes = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    shapes["model.norm.weight"] = (config.hidden_size,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    for index in range(config.num_layers):
        layer = f"model.layers.{index}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (config.hidden_size,)
        if config.architecture.startswith("Qwen3"):
            for norm in ("q_norm", "k_norm"):
                shapes[f"{layer}.self_attn.{norm}.weight"] = (config.head_dim,)
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": shape for name, shape in attention.items()}
        if config.attention_bias:
            shapes |= {f"{layer}.self_attn.{name}_proj.bias": attention[name][:1] for name in "qkv"}
        shapes |= {f"{layer}.mlp.{name}": shape for name, shape in mlp.items()}
    return shapes


def _on_meta(config):
    context = cpu_context(config)
    meta = LayerContext(
        kernels=context.kernels, backend=context.backend, dtype=torch.bfloat16, device=torch.device("meta")
    )
    return find_model(config)(config, meta, max_positions=4096)


def _fill(module, shapes, *, where, **options) -> None:
    tensors = ((key, torch.empty(shape, dtype=torch.bfloat16, device="meta")) for key, shape in shapes.items())
    filled = load_into(module, tensors, where=where, **options)
    assert filled == set(targets_of(module).tensors)
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    assert num_parameters == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert all(parameter.dtype == torch.bfloat16 for parameter in module.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_released_names_and_shapes_fill_the_model(name):
    config, num_tensors, attention, mlp = MODELS[name]
    shapes = _checkpoint_shapes(config, attention, mlp)
    assert len(shapes) == num_tensors
    _fill(_on_meta(config), shapes, where=name)


MIMO_MODULE = {
    "token_layernorm.weight": (4096,),
    "hidden_layernorm.weight": (4096,),
    "input_proj.weight": (4096, 8192),
    "input_layernorm.weight": (4096,),
    "post_attention_layernorm.weight": (4096,),
    "self_attn.q_proj.weight": (4096, 4096),
    "self_attn.q_proj.bias": (4096,),
    "self_attn.k_proj.weight": (1024, 4096),
    "self_attn.k_proj.bias": (1024,),
    "self_attn.v_proj.weight": (1024, 4096),
    "self_attn.v_proj.bias": (1024,),
    "self_attn.o_proj.weight": (4096, 4096),
    "mlp.gate_proj.weight": (11008, 4096),
    "mlp.up_proj.weight": (11008, 4096),
    "mlp.down_proj.weight": (4096, 11008),
    "final_layernorm.weight": (4096,),
}
MODULES = {"MiMo-7B": (MIMO_7B, {f"model.mtp_layers.0.{name}": shape for name, shape in MIMO_MODULE.items()})}
"""Prediction modules: the model's config, and the tensors that the model itself leaves alone."""


@pytest.mark.parametrize("name", MODULES)
def test_released_names_and_shapes_fill_the_prediction_module(name):
    config, shapes = MODULES[name]
    model = _on_meta(config)
    renames = {model.mtp.prefix + old: new for old, new in model.mtp.renames.items()}
    _fill(model.build_mtp(), shapes, where=name, renames=renames)
