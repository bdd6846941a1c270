"""Released hybrids on the meta device: their nested configs, and the names and shapes of their tensors.

Of a multimodal checkpoint the vision tower and the prediction layers are left knowingly; anything else is an error.
"""

from typing import Any

import pytest
import torch

from models.paged_runner import cpu_context
from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.loading.load import load_into, targets_of
from outrider.models import find_model

Shapes = dict[str, tuple[int, ...]]

QWEN3_5: dict[str, Any] = {
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
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
        "mrope_section": [11, 11, 10],
        "mrope_interleaved": True,
    },
}
SIZES = {  # hidden, layers, mlp, value heads, heads, kv heads, tied
    "Qwen3.5-0.8B": (1024, 24, 3584, 16, 8, 2, True),
    "Qwen3.5-9B": (4096, 32, 12288, 32, 16, 4, False),
    "Qwen3.6-27B": (5120, 64, 17408, 48, 24, 4, False),
}


def qwen3_5_config(name: str) -> dict[str, Any]:
    """config.json as it is released."""
    hidden, layers, mlp, value_heads, heads, kv_heads, is_tied = SIZES[name]
    kinds = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(layers)]
    text = QWEN3_5 | {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": mlp, "layer_types": kinds,
        "linear_num_value_heads": value_heads, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
    }  # fmt: skip
    if "3.6" in name:
        text["output_gate_type"] = "swish"
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "image_token_id": 248056,
        "tie_word_embeddings": is_tied, "text_config": text, "vision_config": {"depth": 12},
    }  # fmt: skip


def linear_shapes(hidden: int, value_heads: int) -> Shapes:
    """Of one layer with linear attention, 16 key heads of 128."""
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


def attention_shapes(hidden: int, heads: int, kv_heads: int) -> Shapes:
    """Of one layer with attention: q_proj holds the gates."""
    return {
        "q_proj.weight": (512 * heads, hidden),
        "k_proj.weight": (256 * kv_heads, hidden),
        "v_proj.weight": (256 * kv_heads, hidden),
        "o_proj.weight": (hidden, 256 * heads),
        "q_norm.weight": (256,),
        "k_norm.weight": (256,),
    }


def dense_shapes(hidden: int, mlp: int) -> Shapes:
    return {"gate_proj.weight": (mlp, hidden), "up_proj.weight": (mlp, hidden), "down_proj.weight": (hidden, mlp)}


def checkpoint_shapes(name: str) -> Shapes:
    """Every tensor of the text part, as it is named on the hub."""
    hidden, layers, mlp, value_heads, heads, kv_heads, is_tied = SIZES[name]
    prefix = "model.language_model"
    shapes: Shapes = {f"{prefix}.embed_tokens.weight": (248320, hidden), f"{prefix}.norm.weight": (hidden,)}
    if not is_tied:
        shapes["lm_head.weight"] = (248320, hidden)
    for index in range(layers):
        layer = f"{prefix}.layers.{index}"
        shapes |= {f"{layer}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{layer}.mlp.{key}": shape for key, shape in dense_shapes(hidden, mlp).items()}
        if index % 4 == 3:
            parts = attention_shapes(hidden, heads, kv_heads)
            shapes |= {f"{layer}.self_attn.{key}": shape for key, shape in parts.items()}
        else:
            shapes |= {f"{layer}.linear_attn.{key}": shape for key, shape in linear_shapes(hidden, value_heads).items()}
    return shapes


ELSEWHERE: Shapes = {
    "model.visual.patch_embed.proj.weight": (1152, 3, 2, 16, 16),
    "mtp.fc.weight": (4096, 8192),
    "mtp.layers.0.self_attn.q_proj.weight": (8192, 4096),
}


def meta_model(config: ModelConfig):
    context = cpu_context(config)
    meta = LayerContext(
        kernels=context.kernels, backend=context.backend, dtype=torch.bfloat16, device=torch.device("meta")
    )
    return find_model(config)(config, meta, max_positions=4096)


def meta_tensors(shapes: Shapes):
    return ((key, torch.empty(shape, dtype=torch.bfloat16, device="meta")) for key, shape in shapes.items())


@pytest.mark.parametrize("name", SIZES)
def test_released_names_and_shapes_fill_the_model(name):
    config = ModelConfig.from_dict(qwen3_5_config(name))
    assert (config.rotary_size, config.eos_token_ids, config.rope.theta) == (64, (248044,), 1e7)
    model = meta_model(config)
    shapes = checkpoint_shapes(name)
    filled = load_into(
        model,
        meta_tensors(shapes | ELSEWHERE),
        where=name,
        renames=model.renames,
        skips=(*model.skips, model.mtp.prefix),
    )
    assert filled == set(targets_of(model).tensors)
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(
        torch.Size(shape).numel() for shape in shapes.values()
    )
    linear = model.layers[0].linear_attn
    assert linear.A_log.dtype == linear.dt_bias.dtype == torch.float32


@pytest.mark.parametrize("extra", ["model.language_model.layers.0.linear_attn.bias", "model.audio.proj.weight"])
def test_other_tensors_are_not_left_silently(extra):
    config = ModelConfig.from_dict(qwen3_5_config("Qwen3.5-0.8B"))
    model = meta_model(config)
    shapes = checkpoint_shapes("Qwen3.5-0.8B") | {extra: (1,)}
    with pytest.raises(CheckpointError, match="not used by the model"):
        load_into(
            model, meta_tensors(shapes), where="here", renames=model.renames, skips=(*model.skips, model.mtp.prefix)
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("linear_conv_kernel_dim", 3),
        ("mamba_ssm_dtype", "bfloat16"),
        ("output_gate_type", "sigmoid"),
        ("attn_output_gate", False),
        ("linear_key_head_dim", 100),
        ("layer_types", ["sliding_attention"] * 24),
    ],
)
def test_what_is_not_built_is_refused_by_name(field, value):
    values = qwen3_5_config("Qwen3.5-0.8B")
    values["text_config"] = values["text_config"] | {field: value}
    with pytest.raises(UnsupportedError, match=field):
        ModelConfig.from_dict(values)
