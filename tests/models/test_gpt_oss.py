"""gpt-oss: its gate, what its config leaves out, and where it is refused by name."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider import LLM, models
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.core.model_config import ClampedGate
from outrider.kernels import load_kernels
from outrider.kernels.reference.activation import clamped_swiglu
from outrider.layers.moe import Experts
from outrider.layers.weight_format import find_format
from outrider.platforms.cuda import Platform as Cuda
from outrider.quantizing.target import find_target
from outrider.quantizing.write import quantize
from tests.support.paged_runner import PagedRunner, cpu_context, load_tiny
from tests.support.tiny_models import write_mxfp4, write_tiny_model

from .released import GPT_OSS_20B


def read(values):
    return models.read_config(ConfigReader(values))


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gate_is_rounded_once_and_a_row_is_alone(dtype):
    gate_up = (torch.randn(33, 74, generator=torch.Generator().manual_seed(0)) * 6).to(dtype)
    gate_up[0, :3] = torch.tensor([torch.inf, -1e30, -200.0])
    gate, up = gate_up.double().chunk(2, dim=1)
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    exact = gate * (1.702 * gate).sigmoid() * (up + 1)
    found = clamped_swiglu(gate_up, alpha=1.702, limit=7.0)
    largest = 1e-5 if dtype == torch.float32 else 0.51 * torch.finfo(dtype).eps
    assert ((found.double() - exact).abs() <= exact.abs() * largest + 1e-30).all()
    for row in (0, 1, 17, 32):
        assert torch.equal(clamped_swiglu(gate_up[row : row + 1], alpha=1.702, limit=7.0), found[row : row + 1])


def test_what_a_config_leaves_out_is_known():
    config = read(GPT_OSS_20B.config)
    assert (config.head_dim, config.max_length, config.norm_casts_last) == (64, 131072, True)
    assert [config.window(index) for index in range(4)] == [128, None, 128, None]
    assert (config.moe.clamped_gate.alpha, config.moe.clamped_gate.limit) == (1.702, 7.0)
    assert config.local_rope is None, "both kinds of layers have the same rope"
    left_out = ("layer_types", "rope_scaling", "rope_theta", "attention_bias", "sliding_window", "swiglu_limit")
    assert read(without(GPT_OSS_20B.config, *left_out, "head_dim")) == config
    with pytest.raises(UnsupportedError, match="experts_per_token=3 is not supported"):
        read(GPT_OSS_20B.config | {"experts_per_token": 3})
    quantization = GPT_OSS_20B.config["quantization_config"]
    with pytest.raises(UnsupportedError, match="dequantize=True is not supported"):
        read(GPT_OSS_20B.config | {"quantization_config": quantization | {"dequantize": True}})


def test_modules_that_are_not_converted_may_be_named_with_a_star():
    quantization = GPT_OSS_20B.config["quantization_config"]
    found = read(GPT_OSS_20B.config).quantization
    assert found.scheme_of("model.layers.3.mlp.experts.0.gate_proj").format == "mxfp4"
    assert found.scheme_of("model.layers.3.mlp.router") is found.scheme_of("lm_head") is None
    some = quantization | {"modules_to_not_convert": ["model.layers.*.mlp.experts"]}
    found = read(GPT_OSS_20B.config | {"quantization_config": some}).quantization
    assert found.scheme_of("model.layers.3.mlp.experts.0.gate_proj") is None


@pytest.mark.parametrize("form", ["plain", "mxfp4"])
@pytest.mark.parametrize("kernels", ["cuda", "without"])
def test_kernels_that_lack_such_experts_refuse_the_model_before_memory_is_taken(form, kernels, monkeypatch):
    context = cpu_context()
    name = "clamped_experts" if form == "plain" else "clamped_experts_mxfp4"
    if kernels == "without":
        monkeypatch.delattr(context.kernels, name)
    else:
        context = replace(context, kernels=load_kernels(Cuda.kernel_stack))
    context = replace(context, device=torch.device("meta"), weight_format=find_format(form))
    refused = pytest.raises(UnsupportedError, match=rf"experts with biases .*no {name}\. Use device='cpu'\.")
    with refused:
        Experts(4, 64, 32, context, clamped_gate=ClampedGate(alpha=1.702, limit=7.0))
    if form == "plain":
        with refused:
            models.cache_specs(replace(read(GPT_OSS_20B.config), num_layers=1), context)


def test_other_formats_are_refused_by_name(tmp_path):
    write_tiny_model(tmp_path, "gpt_oss")
    with pytest.raises(UnsupportedError, match=r"experts with biases .*the format 'fp8' is not supported for them"):
        LLM(str(tmp_path), quantization="fp8", skip_tokenizer_init=True, device="cpu")
    with pytest.raises(UnsupportedError, match=r"experts with biases .*the format 'fp8' is not supported for them"):
        quantize(tmp_path, find_target("fp8-dynamic"), tmp_path / "out", done=lambda *_: None)


def test_experts_that_lie_the_other_way_are_refused_by_shape(tmp_path):
    """In the layout of other families the rows of gate and up do not take turns."""
    write_tiny_model(tmp_path, "gpt_oss")
    path = tmp_path / "model.safetensors"
    tensors, name = load_file(path), "model.layers.1.mlp.experts.gate_up_proj"
    save_file(tensors | {name: tensors[name].transpose(1, 2).contiguous()}, path)
    with pytest.raises(CheckpointError, match=r"gate_up_proj' has shape \[6, 192, 64\].* asks for \[6, 64, 192\]"):
        load_tiny(tmp_path)


@pytest.mark.parametrize("write", [partial(write_tiny_model, family="gpt_oss"), write_mxfp4], ids=["plain", "mxfp4"])
def test_random_weights_fill_both_forms(write, tmp_path):
    write(tmp_path)
    runner = PagedRunner(load_tiny(tmp_path, load_format="dummy", seed=1))
    for parameter in runner.model.parameters():
        assert parameter.isfinite().all() and parameter.float().std() > 0
    assert runner.logits(runner.feed([(0, list(range(5, 40)))])[0]).std() > 0.5
