"""Layers on top of kernels: fused pieces, tied heads, and weights that do not train."""

from dataclasses import replace

import pytest
import torch

from outrider.core.model_config import EncoderConfig, GroupedRouting, LatentConfig, ModelConfig, MoeConfig, RopeConfig
from outrider.layers.embedding import Embedding, LMHead
from outrider.layers.encoder import Encoder
from outrider.layers.linear import Linear
from outrider.models import families
from tests.support.paged_runner import cpu_context

CONFIG = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=61,
    hidden_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=80,
    norm_eps=1e-6,
    max_position_embeddings=64,
    rope=RopeConfig(),
    moe=MoeConfig(num_experts=4, num_experts_per_tok=2, intermediate_size=32, is_normalized=True),
)

GROUPED = GroupedRouting(scoring="sigmoid", num_groups=2, num_chosen_groups=1, scale=1.0, has_bias=True)
LATENT = LatentConfig(q_rank=24, kv_rank=32, rope_size=16, nope_size=16, value_size=16, is_interleaved=True)


@pytest.mark.parametrize("name", families())
def test_no_weight_of_a_model_wants_a_gradient(name):
    family = families()[name]
    encoder = EncoderConfig(num_positions=64, num_token_types=2)
    is_encoder = issubclass(family.Model, Encoder)
    own = {"encoder": encoder, "local_rope": RopeConfig(), "hidden_act": "gelu"} if is_encoder else {"latent": LATENT}
    if name.startswith("Deepseek"):
        own["moe"] = replace(CONFIG.moe, grouped=GROUPED)
    model = family.Model(replace(CONFIG, **own), cpu_context(), max_positions=64)
    assert not any(tensor.requires_grad for tensor in [*model.parameters(), *model.buffers()])


def test_a_linear_layer_keeps_the_shape_of_its_weight():
    layer = Linear(40, 33, cpu_context(), bias=True, pieces=(("a", 30), ("b", 3)))
    assert layer.weight.shape == (33, 40) and layer.bias.shape == (33,)
    with pytest.raises(AssertionError, match=r"33 rows"):
        Linear(40, 33, cpu_context(), pieces=(("a", 30),))


def test_a_tied_head_multiplies_by_the_embedding():
    context = cpu_context()
    table = Embedding(61, 48, context)
    table.weight.normal_(generator=torch.Generator().manual_seed(0))
    head = LMHead(48, 61, context, tied_to=table)
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    assert head.weight is table.weight
    torch.testing.assert_close(head(x), x @ table.weight.t(), rtol=1e-5, atol=1e-5)
    assert head(x).dtype == torch.float32
