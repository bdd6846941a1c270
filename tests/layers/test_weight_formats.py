"""Weight formats: every file of the folder keeps the contract, and one with scales loads and computes as it should."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.core import plugins
from outrider.core.errors import CheckpointError, ConfigError
from outrider.kernels import load_kernels
from outrider.layers import formats
from outrider.layers.weight_format import Weight, WeightFormat, find_format
from outrider.loading.load import load_into
from outrider.models import find_model, read_model_config
from tests.support.paged_runner import PagedRunner, cpu_context, load_tiny
from tests.support.tiny_models import write_tiny_model

KERNELS = load_kernels(("reference",))
CPU = torch.device("cpu")
IDS = list(range(5, 40))


class Int8PerRow(WeightFormat):
    """int8 values with a scale for each output row: tensors `weight` and `weight_scale`."""

    name = "int8_per_row"
    scales_activations_by = None

    def empty(self, kernels, output_size, input_size, *, dtype, device, num_experts=None) -> Weight:
        experts = () if num_experts is None else (num_experts,)
        return Weight(
            format=self,
            data=torch.empty(*experts, output_size, input_size, dtype=torch.int8, device=device),
            scales=torch.empty(*experts, output_size, 1, dtype=dtype, device=device),
            whole_shape=(output_size, input_size),
        )

    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Tensor]:
        assert weight.scales is not None
        some = (..., slice(first, first + count), slice(None))
        return {"weight": weight.data[some], "weight_scale": weight.scales[some]}

    def linear(self, kernels, x, weight, bias, *, out_dtype):
        return kernels.linear(x, dequantised(weight), bias, out_dtype=out_dtype)

    def experts(self, kernels, x, gate_up, down, routing):
        return kernels.experts(x, dequantised(gate_up), dequantised(down), routing)


def dequantised(weight: Weight) -> Tensor:
    return weight.data.float() * weight.scales


def quantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of projections and experts, not the router, as int8 with scales of their own."""
    out = {}
    for name, tensor in tensors.items():
        if "_proj.weight" in name:
            scale = tensor.float().abs().amax(dim=1, keepdim=True) / 127
            out[name], out[f"{name}_scale"] = (tensor.float() / scale).round().to(torch.int8), scale
        else:
            out[name] = tensor
    return out


@pytest.mark.parametrize("name", plugins.names(formats))
def test_a_format_keeps_the_contract(name: str) -> None:
    """Rows of a format partition the weight; a token has the same bits alone and among others."""
    form = find_format(name)
    assert form.name == name and form.refuses(KERNELS) is None
    assert form.scales_activations_by in (None, "token", "group"), "a scale of the whole batch cannot be exact"
    weight = form.empty(KERNELS, 96, 128, dtype=torch.float32, device=CPU)
    assert weight.whole_shape == (96, 128)
    covered = {key: torch.zeros_like(view, dtype=torch.int32) for key, view in form.rows(weight, 0, 96).items()}
    first_row = 0
    for count in (32, 16, 48):
        whole = form.rows(weight, 0, 96)
        for key, view in form.rows(weight, first_row, count).items():
            offset = (view.data_ptr() - whole[key].data_ptr()) // view.element_size()
            places = torch.as_strided(covered[key], view.shape, view.stride(), offset) if covered[key].numel() else view
            places += 1
        first_row += count
    assert all((seen == 1).all() for seen in covered.values()), "each element belongs to the rows of one piece"
    generator = torch.Generator().manual_seed(1)
    for view in form.rows(weight, 0, 96).values():
        view.copy_(torch.randn(view.shape, generator=generator))
    x = torch.randn(40, 128, generator=generator)
    together = form.linear(KERNELS, x, weight, None, out_dtype=None)
    for i in (0, 7, 39):
        assert torch.equal(form.linear(KERNELS, x[i : i + 1], weight, None, out_dtype=None), together[i : i + 1])


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"weight format 'int3' is not known. Known: .*plain"):
        find_format("int3")


@pytest.fixture(params=["llama", "qwen3_moe"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint as int8 with scales, and the plain one of the values that these stand for."""
    plain, int8 = tmp_path / "plain", tmp_path / "int8"
    for directory in (plain, int8):
        directory.mkdir()
        write_tiny_model(directory, request.param)
    tensors = quantised(load_file(int8 / "model.safetensors"))
    save_file(tensors, int8 / "model.safetensors")
    rounded = {
        name: tensor.float() * tensors[f"{name}_scale"] if f"{name}_scale" in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith("_scale")
    }
    save_file(rounded, plain / "model.safetensors")
    for directory in (plain, int8):
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}))
    return plain, int8


def load_int8(directory: Path):
    config = read_model_config(directory)
    context = replace(cpu_context(), weight_format=Int8PerRow())
    model = find_model(config)(config, context, max_positions=512)
    tensors = load_file(directory / "model.safetensors")
    parts = (part for name, tensor in tensors.items() for part in model.split(name, tensor))
    load_into(model, parts, where=str(directory), renames=model.renames)
    return model


def test_fused_pieces_and_experts_load_with_scales_of_their_own(pair: tuple[Path, Path]) -> None:
    """q, k and v, gate and up, and every expert have separate scales: the logits are those of the plain model."""
    plain, int8 = pair
    logits = []
    for model in (load_tiny(plain), load_int8(int8)):
        runner = PagedRunner(model)
        logits.append(runner.logits(runner.feed([(0, IDS)])[0]))
    assert torch.equal(*logits)


def test_a_missing_scale_and_a_plain_model_with_scales_are_refused(pair: tuple[Path, Path]) -> None:
    plain, int8 = pair
    tensors = load_file(int8 / "model.safetensors")
    scale = next(name for name in tensors if name.endswith("k_proj.weight_scale"))
    save_file({name: tensor for name, tensor in tensors.items() if name != scale}, int8 / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"1 weight is \({scale.removeprefix('model.')}\) of the model not in"):
        load_int8(int8)
    with pytest.raises(
        CheckpointError, match=r"torch.int8, which cannot fill torch.float32: quantised weights are not"
    ):
        load_tiny(int8)
    with pytest.raises(CheckpointError, match=r"torch.float32, which cannot fill torch.int8"):
        load_int8(plain)
