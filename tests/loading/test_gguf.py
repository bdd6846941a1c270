"""Models in GGUF files: config and weights against the same model as safetensors, against transformers, and values of
each type against the gguf package."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.generation_config import read_sampling_defaults
from outrider.loading.gguf.file import GgufFile
from outrider.loading.gguf.tensors import TYPES, GgufTensors
from outrider.models import read_model_config
from tests.support.gguf_files import add_values, encoded, no_text, raw_type, write_gguf
from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.tiny_models import write_tiny_model

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}

GEMMA3 = {
    "num_hidden_layers": 7,
    "layer_types": ["full_attention" if index == 5 else "sliding_attention" for index in range(7)],
    "query_pre_attn_scalar": 16,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3, "head_dim": 64, "tie_word_embeddings": True}),
    "linear rope": ("llama", {"rope_parameters": LINEAR}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma3": ("gemma3", GEMMA3 | {"tie_word_embeddings": True}),
}

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, in fp32."""


def written(tmp_path: Path, case: str, **options: Any) -> tuple[Path, Path, Any]:
    """The directory, the GGUF file, and transformers' model of a case."""
    family, overrides = CASES[case]
    model = write_tiny_model(tmp_path / "directory", family, **overrides)
    if case == "llama3 rope":
        options["divisors"] = llama3_divisors(model)
    return tmp_path / "directory", write_gguf(tmp_path / "model.gguf", model, **options), model


def llama3_divisors(model: Any) -> np.ndarray:
    """Plain frequencies by those of transformers: [head_dim / 2] fp32."""
    size = model.config.head_dim
    plain = LLAMA3["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / model.model.rotary_emb.inv_freq.double()).float().numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_same_model_as_its_directory(tmp_path: Path, case: str) -> None:
    directory, file, _ = written(tmp_path, case)
    ours, theirs = read_model_config(file), read_model_config(directory)
    assert ours.dtype == "bfloat16" and {**vars_of(ours), "dtype": ""} == {**vars_of(theirs), "dtype": ""}
    wanted = dict(Checkpoint(directory).tensors())
    found = GgufTensors(file)
    assert found.names == wanted.keys() and {name: tensor.shape for name, tensor in found.headers()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }
    for name, tensor in found.tensors():
        # adding 1 in fp32 and taking it away again rounds
        close = (
            {"rtol": 0, "atol": 1e-6} if case == "gemma3" and name.endswith("norm.weight") else {"rtol": 0, "atol": 0}
        )
        torch.testing.assert_close(tensor, wanted[name], **close)


def vars_of(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


@pytest.mark.parametrize("case", ["llama", "qwen2", "qwen3", "gemma3"])
def test_tokens_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    _, file, model = written(tmp_path, case)
    ids = torch.randint(0, 503, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(ids).logits[0]
        continued = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, eos_token_id=None)
    runner = PagedRunner(load_tiny(file))
    hidden, _ = runner.feed([("row", ids[0].tolist())])
    assert (runner.logits(hidden) - wanted).abs().max() < TOLERANCE * wanted.abs().max()
    assert PagedRunner(load_tiny(file)).greedy([ids[0].tolist()], 12)[0] == continued[0, 40:].tolist()


def test_transformers_reads_the_same_model_from_the_same_file(tmp_path: Path) -> None:
    """The judge of the order of q and k, and of the writer that the other tests use."""
    _, file, model = written(tmp_path, "llama")
    read = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)
    for name, tensor in GgufTensors(file).tensors():
        assert torch.equal(read["tensors"][name], tensor), name
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_quantised_models_compute_what_transformers_computes(tmp_path: Path, family: str, type_name: str) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_attention_heads": 4}
    model = write_tiny_model(tmp_path / "directory", family, **sizes)
    file = write_gguf(tmp_path / "model.gguf", model, type_name=type_name)
    read = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)
    model.load_state_dict(read["tensors"])
    ids = torch.randint(0, 503, (1, 40), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = model(ids).logits[0]
        continued = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, eos_token_id=None)
    runner = PagedRunner(load_tiny(file))
    hidden, _ = runner.feed([("row", ids[0].tolist())])
    assert (runner.logits(hidden) - wanted).abs().max() < TOLERANCE * wanted.abs().max()
    assert PagedRunner(load_tiny(file)).greedy([ids[0].tolist()], 24)[0] == continued[0, 40:].tolist()


def test_values_of_each_type_are_those_of_the_package(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "qwen2")
    for index, type_name in enumerate(TYPES):
        values = draw.standard_normal((5000 if type_name == "Q8_0" else 3, 512)).astype(np.float32)  # in several parts
        writer.add_tensor(f"blk.{index}.ffn_up.weight", encoded(values, type_name, draw), raw_dtype=raw_type(type_name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    found = dict(GgufTensors(tmp_path / "model.gguf").tensors())
    assert len(found) == len(TYPES)
    for index, type_name in enumerate(TYPES):
        tensor = stored[f"blk.{index}.ffn_up.weight"]
        assert tensor.tensor_type.name == type_name
        wanted = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        assert wanted.std() > 0.01 and torch.equal(found[f"model.layers.{index}.mlp.up_proj.weight"], wanted), type_name


def test_metadata_is_what_the_package_reads(tmp_path: Path) -> None:
    values = {
        "a.bool": True, "a.int": 7, "a.float": 0.1, "a.text": "Grüße\n", "a.texts": ["", "a", "好"],
        "a.numbers": [-3, 4], "a.floats": [0.5, -1.25], "a.flags": [True, False], "general.alignment": 64,
    }  # fmt: skip
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    add_values(writer, {key: value for key, value in values.items() if key != "general.alignment"})
    writer.add_custom_alignment(64)
    writer.add_uint64("a.large", 2**40)
    writer.add_int8("a.negative", -5)
    writer.add_float64("a.double", 1e-300)
    writer.add_tensor("x", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("y", np.ones(3, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file, oracle = GgufFile(tmp_path / "model.gguf"), gguf.GGUFReader(tmp_path / "model.gguf")
    own = {key: field.contents() for key, field in oracle.fields.items() if not key.startswith("GGUF.")}
    assert (
        file.section("") == own and file.get("a.text") == "Grüße\n" and file.section("a.")["texts"] == ["", "a", "好"]
    )
    for tensor in oracle.tensors:
        mine = file.tensors[tensor.name]
        assert (mine.shape, mine.type_name) == (tuple(tensor.shape.tolist()[::-1]), tensor.tensor_type.name)
        assert (mine.offset, mine.num_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert file.stored_bytes(mine).tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"expert_count": 8}, r"llama\.expert_count=8 \(only 0\)"),
        ({"attention.clamp_kqv": 1.0}, r"llama\.attention\.clamp_kqv=1\.0"),
        ({"rope.scaling.type": "longrope"}, r"llama\.rope\.scaling\.type='longrope' is not supported"),
        ({"rope.dimension_count": 8}, r"rope\.dimension_count=8 is not supported: it is not the width of a head, 16"),
        ({"attention.head_count_kv": [2, 1]}, r"attention\.head_count_kv=\[2, 1\] must be a positive integer"),
        ({"block_count": None}, r"has no llama\.block_count"),
    ],
)
def test_what_the_config_cannot_be_is_named(tmp_path: Path, fields: dict, says: str) -> None:
    model = write_tiny_model(tmp_path / "directory")
    with pytest.raises(ValueError, match=says):
        read_model_config(write_gguf(tmp_path / "model.gguf", model, fields=fields))


def test_another_rope_than_llama_3s_is_named(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "directory")
    for divisors in (np.linspace(1, 8, 8), np.ones(7), np.full(8, np.nan)):
        file = write_gguf(tmp_path / "model.gguf", model, divisors=divisors.astype(np.float32))
        with pytest.raises(UnsupportedError, match=r"rope_freqs.weight is not the rope of Llama 3.1 to 3.3"):
            read_model_config(file)


def test_outputs_end_at_the_tokens_that_the_file_names_and_at_known_ones(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "directory")
    tokenizer = no_text(model.config)
    assert read_model_config(write_gguf(tmp_path / "model.gguf", model, tokenizer=tokenizer)).eos_token_ids == (2,)
    tokenizer["ggml.tokens"][9] = "<|im_end|>"
    tokenizer["ggml.eot_token_id"] = 7
    assert read_model_config(write_gguf(tmp_path / "model.gguf", model, tokenizer=tokenizer)).eos_token_ids == (2, 7, 9)
    tokenizer["ggml.eot_token_id"] = "seven"
    with pytest.raises(ConfigError, match=r"eos_token_id=\[2, 'seven', 9\] must be a token id"):
        read_model_config(write_gguf(tmp_path / "model.gguf", model, tokenizer=tokenizer))


def test_recommended_sampling_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    add_values(writer, {"general.sampling.temp": 0.6, "general.sampling.top_k": 20, "general.sampling.mirostat": 1})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_sampling_defaults(tmp_path / "model.gguf") == SamplingDefaults(temperature=0.6, top_k=20)
