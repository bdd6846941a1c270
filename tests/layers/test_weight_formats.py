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
from outrider.layers.weight_format import Weight, WeightFormat, find_format, store
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


K = 256
PIECES = (128, 16, 48)


def filled(form: WeightFormat, garbage: int, *, seed: int = 1) -> tuple[list[Weight], Tensor]:
    """Weights with random pieces, over memory that held `garbage`, and the dense matrix of all pieces."""
    generator = torch.Generator().manual_seed(seed)
    runs = [PIECES] if form.can_join(PIECES) else [(rows,) for rows in PIECES]
    weights, dense = [], []
    for run in runs:
        weight = form.empty(KERNELS, sum(run), K, dtype=torch.float32, device=CPU)
        assert weight.whole_shape == (sum(run), K)
        for field, tensor in weight.tensors().items():
            if field not in ("input_scale", "order"):
                torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(garbage)
        first = 0
        for rows in run:
            dense.append(torch.randn(rows, K, generator=generator) / K**0.5)
            store(weight, first, dense[-1])
            first += rows
        weights.append(weight)
    return weights, torch.cat(dense)


def product(weights: list[Weight], x: Tensor) -> Tensor:
    return torch.cat([w.format.linear(KERNELS, x, w, None, out_dtype=None) for w in weights], dim=1)


@pytest.mark.parametrize("name", plugins.names(formats))
def test_a_format_keeps_the_contract(name: str) -> None:
    """Pieces fill a weight and nothing else, and its products are near those of the matrix that was stored."""
    for form in plugins.find(formats, name, what="weight format").Format.examples():
        assert form.name == name and form.refuses(KERNELS) is None
        assert form.scales_activations_by in (None, "token", "group"), "a scale of the whole batch cannot be exact"
        x = torch.randn(40, K, generator=torch.Generator().manual_seed(2))
        outputs = []
        for garbage in (0x3A, 0x21):
            weights, dense = filled(form, garbage)
            outputs.append(product(weights, x))
        assert torch.equal(*outputs), f"{form}: something was not filled"
        wanted = x @ dense.T
        assert (outputs[0] - wanted).norm() / wanted.norm() < 0.2, form


@pytest.mark.parametrize("name", plugins.names(formats))
def test_values_that_are_restored_are_those_that_were_stored(name: str) -> None:
    """A product with rows of the identity takes the values out of a weight, one column at a time."""
    for form in plugins.find(formats, name, what="weight format").Format.examples():
        dense = torch.randn(200, K, generator=torch.Generator().manual_seed(5))
        encoded = form.encode(dense)
        found = form.decode(encoded)
        if found is None:
            continue
        if encoded.keys() == {"weight"}:
            assert torch.equal(found, dense), "the files are plain"
            continue
        weight = form.empty(KERNELS, *dense.shape, dtype=torch.float32, device=CPU)
        store(weight, 0, dense)
        wanted = form.linear(KERNELS, torch.eye(K), weight, None, out_dtype=None).T
        if weight.input_scale is None:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert (found - dense).norm() / dense.norm() < 0.05, form


@pytest.mark.parametrize("name", plugins.names(formats))
def test_a_token_has_the_same_bits_in_every_batch(name: str) -> None:
    """Alone, at any place, in any chunk, and among rows of infinities and NaN."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, K, generator=generator) * torch.logspace(-3, 3, 50).unsqueeze(1)
    for form in plugins.find(formats, name, what="weight format").Format.examples():
        weights, _ = filled(form, 0)
        together = product(weights, x)
        for size in (1, 3, 16, 17, 33):
            assert torch.equal(torch.cat([product(weights, part) for part in x.split(size)]), together), (form, size)
        order = torch.randperm(50, generator=generator)
        assert torch.equal(product(weights, x[order]), together[order]), form
        noisy = torch.full((101, K), torch.nan)
        noisy[2::2], noisy[1::2] = torch.inf, x
        assert torch.equal(product(weights, noisy)[1::2], together), form


@pytest.mark.parametrize("name", plugins.names(formats))
def test_a_token_has_the_same_bits_whatever_its_neighbours_choose(name: str) -> None:
    """Experts: alone and in a batch, and near the experts of the dense matrices."""
    generator = torch.Generator().manual_seed(4)
    x, logits = torch.randn(20, K, generator=generator), torch.randn(20, 4, generator=generator)
    for form in plugins.find(formats, name, what="weight format").Format.examples():
        if form.refuses_shape(256, K, is_expert=True):
            continue
        gate_up, down = (
            form.empty(KERNELS, rows, columns, dtype=torch.float32, device=CPU, num_experts=4)
            for rows, columns in ((256, K), (K, 128))
        )
        dense: list[list[Tensor]] = [[], []]
        for weight, kept in ((gate_up, dense[0]), (down, dense[1])):
            for i in range(4):
                kept.append(torch.randn(weight.whole_shape, generator=generator) / 16)
                half = kept[-1].shape[0] // 2
                store(weight.expert(i), 0, kept[-1][:half])
                store(weight.expert(i), half, kept[-1][half:])

        def run(rows: Tensor, of: Tensor, form=form, gate_up=gate_up, down=down) -> Tensor:
            routing = KERNELS.route(of, top_k=2, is_normalized=True)
            return form.experts(KERNELS, rows, gate_up, down, routing)

        together = run(x, logits)
        for i in range(20):
            assert torch.equal(run(x[i : i + 1], logits[i : i + 1]), together[i : i + 1]), form
        routing = KERNELS.route(logits, top_k=2, is_normalized=True)
        wanted = KERNELS.experts(x, torch.stack(dense[0]), torch.stack(dense[1]), routing)
        assert (together - wanted).norm() / wanted.norm() < 0.3, form


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
