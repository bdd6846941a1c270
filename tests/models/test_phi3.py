"""Phi-3: the tensors of fused projections, taken apart by rows."""

import pytest
import torch

from outrider.core.errors import CheckpointError
from tests.support.paged_runner import load_tiny
from tests.support.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("phi3")
    write_tiny_model(directory, "phi3")
    return load_tiny(directory)


def names_of(model, name, tensor):
    return {part: piece.tolist() for part, piece in model.split(name, tensor)}


def test_rows_and_their_scales_are_taken_apart(model):
    """4 heads of q and 2 of k and v, 16 wide; gate and up have 96 rows each."""
    prefix, rows = "model.layers.0.", torch.arange(128)
    assert names_of(model, f"{prefix}self_attn.qkv_proj.weight_scale", rows) == {
        f"{prefix}self_attn.q_proj.weight_scale": list(range(64)),
        f"{prefix}self_attn.k_proj.weight_scale": list(range(64, 96)),
        f"{prefix}self_attn.v_proj.weight_scale": list(range(96, 128)),
    }
    assert names_of(model, f"{prefix}mlp.gate_up_proj.weight", torch.arange(192)) == {
        f"{prefix}mlp.gate_proj.weight": list(range(96)),
        f"{prefix}mlp.up_proj.weight": list(range(96, 192)),
    }


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.tensor([0.5])])
def test_a_scale_of_the_whole_belongs_to_each_part(model, scale):
    found = dict(model.split("model.layers.0.mlp.gate_up_proj.weight_scale", scale))
    assert list(found) == [f"model.layers.0.mlp.{part}_proj.weight_scale" for part in ("gate", "up")]
    assert all(torch.equal(piece, scale) for piece in found.values())
    name = "model.layers.0.self_attn.o_proj.weight_scale"
    assert list(model.split(name, scale)) == [(name, scale)]


def test_other_rows_are_refused_by_name(tmp_path, model):
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert [part for part, _ in model.split(name, torch.zeros(127, 64))] == [name]
    write_tiny_model(tmp_path, "phi3", num_key_value_heads=4)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_key_value_heads": 4', '"num_key_value_heads": 2'))
    with pytest.raises(CheckpointError, match="not in the files"):
        load_tiny(tmp_path)
