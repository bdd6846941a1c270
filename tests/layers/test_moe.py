"""The mixture of experts as a layer: against transformers, from both layouts of a checkpoint, row by row."""

from dataclasses import replace

import pytest
import torch
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextSparseMoeBlock

from outrider.core.errors import CheckpointError
from outrider.core.model_config import ModelConfig, MoeConfig, RopeConfig
from outrider.kernels.reference.activation import add_gated
from outrider.layers.moe import MoE
from outrider.loading.load import load_into, targets_of
from tests.support.paged_runner import cpu_context

HIDDEN, WIDTH, SHARED, NUM_EXPERTS, TOP_K = 48, 32, 80, 7, 3
CONFIG = ModelConfig(
    architecture="X",
    vocab_size=61,
    hidden_size=HIDDEN,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=80,
    norm_eps=1e-6,
    max_position_embeddings=64,
    rope=RopeConfig(),
    moe=MoeConfig(
        num_experts=NUM_EXPERTS,
        num_experts_per_tok=TOP_K,
        intermediate_size=WIDTH,
        is_normalized=True,
        shared_intermediate_size=SHARED,
    ),
)


def _block(is_normalized: bool) -> Qwen3NextSparseMoeBlock:
    config = Qwen3NextConfig(
        hidden_size=HIDDEN,
        moe_intermediate_size=WIDTH,
        shared_expert_intermediate_size=SHARED,
        num_experts=NUM_EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=is_normalized,
    )
    torch.manual_seed(3)
    block = Qwen3NextSparseMoeBlock(config).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0.0, 0.3)
    return block


def _split(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Expert by expert, as the released files of Qwen3-MoE and Qwen3-Next."""
    split = {name: tensor for name, tensor in tensors.items() if not name.startswith("experts.")}
    for i in range(NUM_EXPERTS):
        gate, up = tensors["experts.gate_up_proj"][i].chunk(2)
        split |= {f"experts.{i}.gate_proj.weight": gate, f"experts.{i}.up_proj.weight": up}
        split[f"experts.{i}.down_proj.weight"] = tensors["experts.down_proj"][i]
    return split


def _layer(tensors: dict[str, torch.Tensor], *, is_normalized: bool = True) -> MoE:
    config = replace(CONFIG, moe=replace(CONFIG.moe, is_normalized=is_normalized))
    layer = MoE(config, cpu_context())
    filled = load_into(layer, tensors.items(), where="here")
    assert filled == set(targets_of(layer).tensors)
    return layer


@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
def test_equals_the_block_of_transformers(is_normalized, is_packed):
    block = _block(is_normalized)
    tensors = dict(block.state_dict())
    layer = _layer(tensors if is_packed else _split(tensors), is_normalized=is_normalized)
    x = torch.randn(37, HIDDEN, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = block(x.unsqueeze(0))
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(layer(x), expected.squeeze(0), rtol=2e-5, atol=2e-5)


def test_rows_do_not_see_each_other():
    layer = _layer(dict(_block(True).state_dict()))
    x = torch.randn(60, HIDDEN, generator=torch.Generator().manual_seed(0))
    together = layer(x)
    for count in (1, 2, 15, 16, 17, 33):
        rows = torch.randperm(60, generator=torch.Generator().manual_seed(count))[:count]
        assert torch.equal(layer(x[rows]), together[rows])


def test_both_layouts_at_once_are_an_error():
    tensors = dict(_block(True).state_dict())
    both = tensors | {"experts.3.up_proj.weight": torch.zeros(WIDTH, HIDDEN)}
    with pytest.raises(CheckpointError, match=r"'experts.gate_up_proj' and 'experts.3.up_proj.weight' both fill"):
        _layer(both)
    with pytest.raises(CheckpointError, match=r"1 weight is \(experts.6.up_proj.weight\) of the model not in"):
        _layer({name: tensor for name, tensor in _split(tensors).items() if "6.up" not in name})
    with pytest.raises(CheckpointError, match=r"1 tensor is \(experts.7.up_proj.weight\) in the files not used"):
        _layer(_split(tensors) | {"experts.7.up_proj.weight": torch.zeros(WIDTH, HIDDEN)})


def test_experts_stored_the_other_way_are_refused_by_shape():
    tensors = dict(_block(True).state_dict())
    tensors["experts.gate_up_proj"] = tensors["experts.gate_up_proj"].transpose(1, 2)
    with pytest.raises(CheckpointError, match=r"gate_up_proj' has shape \[7, 48, 64\].* asks for \[7, 64, 48\]"):
        _layer(tensors)


def test_a_gate_of_a_whole_row_is_rounded_where_the_model_says():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, 40, generator=generator).bfloat16() for _ in range(2))
    gate = torch.randn(9, 5, generator=generator)[:, 3] * 4
    expected = x + torch.sigmoid(gate.double()).bfloat16().unsqueeze(1) * y
    assert torch.equal(add_gated(x, y, gate), expected)
    gate[2], gate[4] = 200.0, -200.0
    assert torch.equal(add_gated(x, y, gate)[4], x[4]) and torch.equal(add_gated(x, y, gate)[2], x[2] + y[2])
