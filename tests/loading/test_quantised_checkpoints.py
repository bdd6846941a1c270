"""Quantised checkpoints: every kind loads as its config says, and what is wrong is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3ForCausalLM

from outrider import LLM, SamplingParams
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.kernels.reference import quantised as kernels
from outrider.layers.grouped_int4 import packed_integers, unpacked
from outrider.layers.linear import Linear
from outrider.layers.moe import Experts
from outrider.models import load_model, read_model_config
from outrider.runtime.describe import describe
from tests.support.paged_runner import PagedRunner, cpu_context, load_tiny
from tests.support.prediction_modules import write_latent
from tests.support.quantised_models import CONFIGS, compressed, quantise, rewrite_config
from tests.support.tiny_models import write_tiny_model

IDS = list(range(5, 40))
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "vocab_size": 199}
FAMILIES = {"llama": {}, "qwen3_moe": {"moe_intermediate_size": 128, "num_experts": 4}}


def write(directory: Path, kind: str, family: str = "llama", **changes) -> Path:
    directory.mkdir(exist_ok=True)
    write_tiny_model(directory, family, **SIZES, **FAMILIES[family])
    quantise(directory, CONFIGS[kind] | changes)
    return directory


def logits(directory: Path) -> torch.Tensor:
    runner = PagedRunner(load_tiny(directory))
    return runner.logits(runner.feed([(0, IDS)])[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_kind_computes_nearly_what_the_plain_model_computes(kind: str, family: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    write_tiny_model(tmp_path / "plain", family, **SIZES, **FAMILIES[family])
    wanted, found = logits(tmp_path / "plain"), logits(write(tmp_path / "quantised", kind, family))
    assert (found - wanted).norm() / wanted.norm() < (0.35 if "8" in kind or kind in ("deepseek", "modelopt") else 0.9)
    assert not torch.equal(found, wanted)
    model = load_tiny(tmp_path / "quantised")
    layers = [child for child in model.modules() if isinstance(child, (Linear, Experts)) and child.storage]
    assert len(layers) == (8 if family == "llama" else 6), "all projections are quantised, and nothing else"


def test_modules_that_are_ignored_stay_plain_even_inside_a_fused_layer(tmp_path: Path) -> None:
    ignored = ["lm_head", "model.layers.0.self_attn.k_proj", "re:.*layers[.]1[.]mlp"]
    model = load_tiny(write(tmp_path / "model", "fp8-dynamic", ignore=ignored))
    first, second = model.layers
    assert [segment.weight.format.name for segment in first.self_attn.qkv_proj.segments] == ["fp8", "plain", "fp8"]
    assert [segment.weight.format.name for segment in second.self_attn.qkv_proj.segments] == ["fp8"]
    assert not second.mlp.gate_up_proj.storage and not second.mlp.down_proj.storage
    assert first.mlp.down_proj.storage
    x = torch.randn(3, 128)
    whole = first.self_attn.qkv_proj(x)
    k = load_file(tmp_path / "model" / "model.safetensors")["model.layers.0.self_attn.k_proj.weight"]
    assert torch.allclose(whole[:, 128:192], x @ k.T, rtol=1e-4, atol=1e-4)


def test_groups_may_have_schemes_of_their_own(tmp_path: Path) -> None:
    block = CONFIGS["fp8-block"]["config_groups"]["group_0"] | {"targets": ["re:.*down_proj$"]}
    groups = CONFIGS["fp8-dynamic"]["config_groups"] | {"group_1": block}
    model = load_tiny(write(tmp_path / "model", "fp8-dynamic", config_groups=groups, format="mixed-precision"))
    assert model.layers[0].mlp.down_proj.segments[0].weight.format.name == "fp8_block"
    assert model.layers[0].mlp.gate_up_proj.segments[0].weight.format.name == "fp8"


def test_pieces_have_scales_of_their_own(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", "fp8-static")
    tensors = load_file(directory / "model.safetensors")
    names = [f"model.layers.0.self_attn.{piece}_proj" for piece in "qkv"]
    for i, name in enumerate(names):
        tensors[f"{name}.weight_scale"] *= i + 1
        tensors[f"{name}.input_scale"] *= i + 1
    save_file(tensors, directory / "model.safetensors")
    (segment,) = load_tiny(directory).layers[0].self_attn.qkv_proj.segments
    pieces = segment.weight.scales.split([128, 64, 64])
    for name, scales in zip(names, pieces, strict=True):
        assert torch.equal(scales, tensors[f"{name}.weight_scale"].expand_as(scales))
    assert torch.equal(segment.weight.input_scale, tensors[f"{names[2]}.input_scale"]), "the largest of the three"


def test_modelopt_is_read_from_its_own_file(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", "modelopt")
    wanted = logits(directory)
    rewrite_config(directory, quantization_config=None)
    stated = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    path = directory / "hf_quant_config.json"
    path.write_text(json.dumps({"producer": {"name": "modelopt", "version": "0.33"}, "quantization": stated}))
    assert torch.equal(logits(directory), wanted)
    path.write_text(json.dumps({"quantization": stated | {"quant_algo": "NVFP4"}}))
    with pytest.raises(UnsupportedError, match=r"quant_algo='NVFP4' is not supported. Supported: 'FP8'"):
        read_model_config(directory)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_fill_every_format(family: str, tmp_path: Path) -> None:
    """Logits spread as those of a plain model do, and depend on the seed alone."""
    directory = write(tmp_path / "model", "fp8-block", family)

    def spread(seed: int) -> torch.Tensor:
        runner = PagedRunner(load_tiny(directory, load_format="dummy", seed=seed))
        return runner.logits(runner.feed([(0, IDS)])[0])

    found = spread(1)
    assert torch.equal(spread(1), found) and not torch.equal(spread(2), found)
    rewrite_config(directory, quantization_config=None)
    assert 0.5 < found.std() / spread(1).std() < 2


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_same_with_drafts_and_in_a_batch(family: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "model", "fp8-dynamic", family)
    prompts = [{"prompt_token_ids": [7, 8, 9, 7, 8, 9, 7, 8] * n} for n in (1, 3, 5)]
    params = [SamplingParams(temperature=t, seed=3, max_tokens=12, detokenize=False) for t in (0.0, 0.5, 1.0)]
    options = {"skip_tokenizer_init": True, "device": "cpu"}
    llm = LLM(str(directory), **options)
    alone = [llm.generate([p], s)[0].outputs[0].token_ids for p, s in zip(prompts, params, strict=True)]
    drafting = LLM(str(directory), speculative_config={"method": "ngram"}, max_num_batched_tokens=24, **options)
    together = [output.outputs[0].token_ids for output in drafting.generate(prompts, params)]
    assert together == alone
    line = dict(describe(llm.engine.worker))["weights"]
    assert line.startswith("compressed-tensors: ") and "8 × fp8" in line


def changed(directory: Path, change) -> Path:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return directory


NAME = "model.layers.1.self_attn.o_proj"
WRONG = {
    "missing": (lambda t: t.pop(f"{NAME}.weight_scale"), r"1 weight is \(layers.1.self_attn.o_proj.weight_scale\) of"),
    "extra": (lambda t: t.update({f"{NAME}.weight_zero_point": torch.zeros(1)}), r"o_proj.weight_zero_point\) in the"),
    "shape": (lambda t: t.update({f"{NAME}.weight_scale": torch.ones(64, 1)}), r"\[64, 1\] .* asks for \[128, 1\]"),
    "type": (lambda t: t.update({f"{NAME}.weight_scale": torch.ones(128, 1).int()}), r"stored as torch.int32, and its"),
    "plain": (lambda t: t.update({f"{NAME}.weight": torch.ones(128, 128)}), r"torch.float32, which cannot fill"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tensors_are_refused_before_memory_is_taken(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, message = WRONG[case]
    directory = changed(write(tmp_path / "model", "fp8-dynamic"), change)
    devices = set()

    def empty(*shape, device, **options):
        devices.add(device.type)
        return kernels.empty_fp8(*shape, device=device, **options)

    context = cpu_context()
    monkeypatch.setattr(context.kernels, "empty_fp8", empty)
    with pytest.raises(CheckpointError, match=message):
        load_model(str(directory), read_model_config(directory), context, max_positions=64)
    assert devices == {"meta"}


def test_scales_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    directory = changed(
        write(tmp_path / "model", "fp8-dynamic"), lambda t: t[f"{NAME}.weight_scale"].fill_(float("nan"))
    )
    with pytest.raises(
        CheckpointError, match=rf"'{NAME}.weight_scale' holds infinities or values that are not numbers"
    ):
        load_tiny(directory)


def test_a_platform_without_the_kernels_refuses_the_format(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", "fp8-block")
    context = cpu_context()
    del context.kernels.linear_fp8_block
    with pytest.raises(UnsupportedError, match=r"q_proj is stored in the format 'fp8_block': .* no linear_fp8_block"):
        load_model(str(directory), read_model_config(directory), context, max_positions=64)


def test_groups_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    quantization = compressed({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128})
    rewrite_config(tmp_path, quantization_config=quantization)
    with pytest.raises(UnsupportedError, match=r"q_proj is stored .*: groups of 128 do not divide an input of 64. Use"):
        load_tiny(tmp_path)


def test_experts_that_no_block_divides_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_tiny_model(tmp_path / "model", "qwen3_moe", moe_intermediate_size=96)
    rewrite_config(tmp_path / "model", quantization_config=CONFIGS["deepseek"])
    with pytest.raises(UnsupportedError, match=r"experts.0.gate_proj .* \[96, 64\] do not divide by blocks of 128"):
        load_tiny(tmp_path / "model")


def test_an_order_of_columns_is_loaded_for_each_piece(tmp_path: Path) -> None:
    """The groups of the columns are shuffled, another way in every piece: the weights move with them."""
    directory = write(tmp_path / "model", "gptq", group_size=32)
    wanted = load_tiny(directory).layers[0].self_attn.qkv_proj(torch.eye(128))
    orders = {}

    def shuffle(tensors) -> None:
        generator = torch.Generator().manual_seed(5)
        for name in [name for name in tensors if name.endswith("g_idx")]:
            order = torch.randperm(128, generator=generator)  # column j of the model is column order[j] of the groups
            module = name.removesuffix("g_idx")
            values = unpacked(tensors[f"{module}qweight"].t())
            if tensors[name].shape == order.shape:
                orders[module] = order
                tensors[name] = tensors[name][order]
                tensors[f"{module}qweight"] = packed_integers(values[:, order]).t().contiguous()

    changed(directory, shuffle)
    rewrite_config(directory, quantization_config=CONFIGS["gptq"] | {"group_size": 32, "desc_act": True})
    layer = load_tiny(directory).layers[0].self_attn.qkv_proj
    assert len(layer.segments) == 3
    pieces = zip("qkv", layer(torch.eye(128)).split([128, 64, 64], 1), wanted.split([128, 64, 64], 1), strict=True)
    for piece, found, expected in pieces:
        assert torch.equal(found, expected[orders[f"model.layers.0.self_attn.{piece}_proj."]])
    rewrite_config(directory, quantization_config=CONFIGS["gptq"] | {"group_size": 32})
    with pytest.raises(
        CheckpointError, match=r"g_idx' has an order of columns, and the config says that there is none"
    ):
        load_tiny(directory)


LATENT = {
    "q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "hidden_size": 128,
    "intermediate_size": 256, "moe_intermediate_size": 128, "vocab_size": 199,
}  # fmt: skip
UE8M0 = CONFIGS["deepseek"] | {"scale_fmt": "ue8m0"}


def blockwise_logits(directory: Path, config: dict, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """transformers' model with the values of the weights in `directory`, and activations rounded as the format says."""
    tensors = load_file(directory / "model.safetensors")
    plain = {}
    for name, tensor in tensors.items():
        if f"{name}_scale_inv" in tensors:
            scales = tensors[f"{name}_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
            tensor = tensor.float() * scales[: tensor.shape[0], : tensor.shape[1]]
        if not name.endswith("_scale_inv") and not name.startswith("model.layers.3."):
            plain[name] = tensor
    target = directory.parent / "values"
    target.mkdir()
    save_file(plain, target / "model.safetensors")
    (target / "config.json").write_text((directory / "config.json").read_text())
    rewrite_config(target, quantization_config=None, num_nextn_predict_layers=0)
    model = DeepseekV3ForCausalLM.from_pretrained(target).eval()
    model.set_experts_implementation("eager")
    left_alone = {8, 199, 280}  # rows of the router, the head and kv_b_proj
    linear = torch.nn.functional.linear

    def rounded(x: torch.Tensor) -> torch.Tensor:
        parts = []
        for group in x.split(128, dim=-1):
            scales = group.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 448
            if config.get("scale_fmt") == "ue8m0":
                scales = torch.exp2(scales.log2().ceil())
            parts.append((group / scales).to(torch.float8_e4m3fn).float() * scales)
        return torch.cat(parts, dim=-1)

    def rounding(x, weight, bias=None):
        return linear(x if weight.shape[0] in left_alone else rounded(x), weight, bias)

    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", rounding)
        return model(torch.tensor([IDS])).logits[0]


@pytest.mark.slow
@pytest.mark.parametrize("scale_type", ["float32", "ue8m0"])
def test_latent_attention_and_its_module_in_blocks(
    scale_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kv_b_proj has its exact values, eh_proj is plain in the files, and the module drafts in its own format."""
    for name in ("plain", "quantised"):
        (tmp_path / name).mkdir()
        write_latent(tmp_path / name, **LATENT)
    directory = tmp_path / "quantised"
    config = CONFIGS["deepseek"] if scale_type == "float32" else UE8M0
    config = {key: value for key, value in config.items() if key != "modules_to_not_convert"}
    kept = ("eh_proj.weight", "head.weight")
    before = load_file(directory / "model.safetensors")
    quantise(directory, config)
    tensors = load_file(directory / "model.safetensors")
    tensors = {
        name: tensor for name, tensor in tensors.items() if not name.endswith(tuple(f"{k}_scale_inv" for k in kept))
    }
    tensors |= {name: tensor for name, tensor in before.items() if name.endswith(kept)}
    save_file(tensors, directory / "model.safetensors")

    model = load_tiny(directory)
    for index, layer in enumerate(model.layers):
        name = f"model.layers.{index}.self_attn.kv_b_proj"
        scales = tensors[f"{name}.weight_scale_inv"].repeat_interleave(128, dim=0)[:280].repeat_interleave(128, dim=1)
        assert torch.equal(layer.self_attn.kv_b_proj.weight, tensors[f"{name}.weight"].float() * scales)
        assert "fp8_block" in {segment.weight.format.name for segment in layer.self_attn.qkv_a_proj.segments}
        assert bool((scales.log2() % 1 == 0).all()) == (scale_type == "ue8m0")
    wanted, found = blockwise_logits(directory, config, monkeypatch), logits(directory)
    assert (found - wanted).norm() / wanted.norm() < 0.05
    assert (logits(tmp_path / "plain") - wanted).norm() / wanted.norm() > 0.1, "quantising is not seen"

    options = {"skip_tokenizer_init": True, "device": "cpu", "max_num_batched_tokens": 24}
    llm = LLM(str(directory), speculative_config={"method": "mtp", "num_speculative_tokens": 2}, **options)
    (module,) = llm.engine.worker.drafter.modules
    assert module.fc.weight.dtype == torch.float32 and module.layer.self_attn.o_proj.storage
    prompt, params = {"prompt_token_ids": IDS}, SamplingParams(temperature=0.0, max_tokens=12, detokenize=False)
    drafted = llm.generate([prompt], params)[0].outputs[0].token_ids
    assert drafted == LLM(str(directory), **options).generate([prompt], params)[0].outputs[0].token_ids


def test_latent_attention_in_a_format_without_values_is_refused(tmp_path: Path) -> None:
    write_latent(tmp_path, **LATENT)
    rewrite_config(tmp_path, quantization_config=CONFIGS["awq"] | {"modules_to_not_convert": ["gate", "experts"]})
    with pytest.raises(UnsupportedError, match=r"kv_b_proj is stored in the format 'awq': latent attention needs the"):
        load_tiny(tmp_path)


FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
REFUSED = {
    "method": ({"quant_method": "bitsandbytes"}, "quant_method='bitsandbytes' is not supported. Supported: .*fp8"),
    "nvfp4": (compressed(FP4), "4-bit float weights per tensor_group are not supported. Supported: FP8"),
    "w8": (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}), "8-bit int weights per channel are not"),
    "gptq": (CONFIGS["gptq"] | {"bits": 8}, "bits=8 is not supported. Supported: 4"),
    "awq": (CONFIGS["awq"] | {"version": "marlin"}, "version='marlin' is not supported. Supported: 'gemm'"),
    "blocks": (CONFIGS["deepseek"] | {"weight_block_size": [64, 64]}, r"weight_block_size=\[64, 64\] is not supported"),
    "scales": (
        {"quant_method": "fp8", "activation_scheme": "dynamic", "scale_fmt": "ue8m0"},
        r"scale_fmt='ue8m0' is supported with weight_block_size=\[128, 128\] only",
    ),
    "key": (CONFIGS["deepseek"] | {"rotation": "hadamard"}, "quantization_config.rotation='hadamard'"),
    "sparse": (CONFIGS["fp8-dynamic"] | {"sparsity_config": {"format": "24"}}, "sparsity_config="),
    "regex": (CONFIGS["fp8-dynamic"] | {"ignore": ["re:(lm_head"]}, "is not a regular expression"),
    "weights alone": (
        compressed({"num_bits": 8, "type": "float", "strategy": "channel"}),
        "8-bit float weights per channel are not supported",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(case: str, tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    quantization, message = REFUSED[case]
    rewrite_config(tmp_path, quantization_config=quantization)
    with pytest.raises((UnsupportedError, ConfigError), match=message):
        read_model_config(tmp_path)
