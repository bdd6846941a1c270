"""Filling a model: every weight is found, every tensor used, or the error says which."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from outrider.core.errors import CheckpointError
from outrider.loading.load import load_into, targets_of
from outrider.loading.names import module_name
from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.tiny_models import write_tiny_model

IDS = list(range(5, 40))


@pytest.fixture
def directory(tmp_path):
    write_tiny_model(tmp_path)
    return tmp_path


@pytest.fixture
def tied_directory(tmp_path):
    write_tiny_model(tmp_path, "qwen3", tie_word_embeddings=True)
    return tmp_path


def _rewrite(directory, change):
    """Applies `change` to the dict of tensors on disk."""
    tensors = change(load_file(directory / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")


def _set(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _logits(directory):
    runner = PagedRunner(load_tiny(directory))
    return runner.logits(runner.feed([(0, IDS)])[0])


def _fails(directory, *patterns):
    with pytest.raises(CheckpointError) as caught:
        load_tiny(directory)
    for pattern in (re.escape(str(directory)), *patterns):
        assert re.search(pattern, str(caught.value)), f"{pattern!r} is not in {caught.value}"


def test_a_missing_weight_is_named(directory):
    _rewrite(directory, lambda t: _without(t, "layers.1.mlp.up_proj"))
    _fails(directory, r"1 weight is \(layers\.1\.mlp\.up_proj\.weight\) of the model not in the files")


def _without(tensors, part):
    return {name: tensor for name, tensor in tensors.items() if part not in name}


def test_many_missing_weights_are_counted(directory):
    _rewrite(directory, lambda t: _without(t, "layers.1."))
    _fails(directory, r"9 weights are .*and 1 more")


def test_an_unread_tensor_is_named(directory):
    _rewrite(directory, lambda t: t | {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)})
    _fails(directory, r"1 tensor is \(model\.layers\.0\.self_attn\.q_norm\.weight\) in the files not used")


def test_an_unread_bias_is_named(directory):
    _rewrite(directory, lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)})
    _fails(directory, r"q_proj\.bias")


def test_a_layer_too_many_is_named(directory):
    _set(directory, num_hidden_layers=1)
    _fails(directory, r"9 tensors are .*layers\.1\.")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.k_proj.weight", (64, 64)),
        ("model.norm.weight", (32,)),
        ("lm_head.weight", (500, 64)),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(directory, name, shape):
    before = list(load_file(directory / "model.safetensors")[name].shape)
    _rewrite(directory, lambda t: t | {name: torch.zeros(shape)})
    _fails(directory, re.escape(f"{name!r} has shape {list(shape)}"), re.escape(f"asks for {before}"))


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (torch.int8, "quantised weights are not supported"),
        (torch.float8_e4m3fn, "quantised weights are not supported"),
        (torch.float64, "Save it as float32"),
        (torch.int64, "Save it as float32"),
    ],
)
def test_a_dtype_that_is_not_built_is_named(directory, dtype, reason):
    name = "model.layers.0.mlp.down_proj.weight"
    _rewrite(directory, lambda t: t | {name: t[name].to(dtype)})
    _fails(directory, f"{name}' is stored as {dtype}", reason)


def test_a_tensor_that_comes_twice_is_named(directory):
    _rewrite(directory, lambda t: t | {"norm.weight": t["model.norm.weight"].clone()})
    _fails(directory, r"both fill 'norm\.weight'")


@pytest.mark.parametrize("prefix", ["", "model.", "module.model.", "_orig_mod.model."])
def test_prefixes_and_rotary_buffers_do_not_matter(directory, prefix):
    expected = _logits(directory)
    _rewrite(directory, lambda t: {prefix + name.removeprefix("model."): tensor for name, tensor in t.items()})
    _rewrite(directory, lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    assert torch.equal(_logits(directory), expected)


def test_half_precision_is_widened_exactly(directory):
    _rewrite(directory, lambda t: {name: tensor.bfloat16() for name, tensor in t.items()})
    half = _logits(directory)
    _rewrite(directory, lambda t: {name: tensor.float() for name, tensor in t.items()})
    assert torch.equal(_logits(directory), half)


def test_an_absent_head_is_the_embedding_whatever_the_flag_says(tied_directory):
    expected = _logits(tied_directory)
    assert "lm_head.weight" not in load_file(tied_directory / "model.safetensors")
    _set(tied_directory, tie_word_embeddings=False)
    assert torch.equal(_logits(tied_directory), expected)
    model = load_tiny(tied_directory)
    assert model.lm_head.weight is model.embed_tokens.weight and model.config.tie_word_embeddings


def test_a_stored_copy_of_a_tied_head_must_be_equal(tied_directory):
    expected = _logits(tied_directory)
    _rewrite(tied_directory, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    assert torch.equal(_logits(tied_directory), expected)
    _rewrite(tied_directory, lambda t: t | {"lm_head.weight": t["lm_head.weight"] + 1})
    _fails(tied_directory, r"ties 'lm_head\.weight' to 'embed_tokens\.weight'.*two different", "tie_word_embeddings")
    _rewrite(tied_directory, lambda t: t | {"lm_head.weight": torch.zeros(3, 64)})
    _fails(tied_directory, r"'lm_head\.weight' has shape \[3, 64\]")


def test_fused_pieces_are_rows_of_one_weight(directory):
    model = load_tiny(directory)
    tensors = load_file(directory / "model.safetensors")
    attention = model.layers[1].self_attn
    pieces = [tensors[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(attention.qkv_proj.weight, torch.cat(pieces))


class _Drafter(nn.Module):
    """A head with tables of ids and an embedding that may be shared."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2, bias=False)
        self.embed_tokens = nn.Embedding(5, 2)
        self.register_buffer("d2t", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


def test_any_module_can_be_filled():
    tensors = {"model.head.fc.weight": torch.ones(2, 6), "d2t": torch.tensor([4, 5, 6])}
    drafter = _Drafter()
    options = {"where": "here", "renames": {"head.": ""}}
    with pytest.raises(CheckpointError, match=r"here: 1 weight is \(embed_tokens\.weight\)"):
        load_into(drafter, tensors.items(), **options)
    filled = load_into(drafter, tensors.items(), optional=("embed_tokens.weight",), **options)
    assert filled == {"fc.weight", "d2t"}
    assert drafter.d2t.tolist() == [4, 5, 6] and bool((drafter.fc.weight == 1).all())
    with pytest.raises(CheckpointError, match=r"'d2t' is stored as torch.float32, which cannot fill torch.int64"):
        load_into(drafter, {"d2t": torch.zeros(3)}.items(), where="here", optional=targets_of(drafter).tensors)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.bool])
def test_tables_may_be_stored_as_any_type_of_integer(dtype):
    class Tables(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ids", torch.full((3,), 9))
            self.register_buffer("marks", torch.full((3,), True))

    tables, stored = Tables(), torch.tensor([0, 1, 1]).to(dtype)
    load_into(tables, {"ids": stored, "marks": stored}.items(), where="here")
    assert tables.ids.tolist() == [0, 1, 1] and tables.marks.tolist() == [False, True, True]
    if dtype is not torch.bool:
        wrong = {"ids": stored, "marks": torch.tensor([0, 1, 2]).to(dtype)}
        with pytest.raises(CheckpointError, match=f"'marks' is stored as {dtype} and has values that torch.bool does"):
            load_into(Tables(), wrong.items(), where="here")
    with pytest.raises(CheckpointError, match=r"which cannot fill torch\.bool: it is a table of whole numbers"):
        load_into(Tables(), {"ids": stored, "marks": torch.zeros(3)}.items(), where="here")


def test_names_lose_their_wrappers_and_follow_renames():
    renames = {"midlayer.": "layers.0."}
    assert module_name("model.midlayer.mlp.up_proj.weight", renames) == "layers.0.mlp.up_proj.weight"
    assert module_name("module._orig_mod.model.norm.weight", {}) == "norm.weight"
    assert module_name("lm_head.weight", renames) == "lm_head.weight"
