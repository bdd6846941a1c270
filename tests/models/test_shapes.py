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
        shapes |= {f"{layer}.mlp.{name}": shape for name, shape in mlp.items()}
    return shapes


@pytest.mark.parametrize("name", MODELS)
def test_released_names_and_shapes_fill_the_model(name):
    config, num_tensors, attention, mlp = MODELS[name]
    context = cpu_context(config)
    meta = LayerContext(
        kernels=context.kernels, backend=context.backend, dtype=torch.bfloat16, device=torch.device("meta")
    )
    model = find_model(config)(config, meta, max_positions=4096)
    shapes = _checkpoint_shapes(config, attention, mlp)
    assert len(shapes) == num_tensors
    tensors = ((key, torch.empty(shape, dtype=torch.bfloat16, device="meta")) for key, shape in shapes.items())
    filled = load_into(model, tensors, where=name)
    assert filled == set(targets_of(model).tensors)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
