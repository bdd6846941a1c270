"""Encoders: hidden states and labels against transformers, and the same bits alone and in every batch."""

import json
import random
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider.core.errors import UnsupportedError
from outrider.kernels import load_kernels
from outrider.models import cache_specs, read_model_config
from outrider.platforms.cuda import Platform as Cuda
from tests.support.paged_runner import cpu_context, load_tiny
from tests.support.pooling_models import write_modules
from tests.support.tiny_encoders import FAMILIES, hidden_states, write_tiny_encoder

TOLERANCE = 2e-5
"""Largest difference in fp32, relative to the largest value."""

LENGTHS = (1, 2, 15, 16, 17, 64, 150, 190)

OTHERS = {
    "bert": {"hidden_size": 40, "num_attention_heads": 5, "vocab_size": 97, "type_vocab_size": 3},
    "roberta": {"pad_token_id": 3, "max_position_embeddings": 204},
    "xlm-roberta": {"layer_norm_eps": 0.01},
    "modernbert": {
        "norm_bias": False, "attention_bias": True, "mlp_bias": True, "classifier_bias": True,
        "local_attention": 7, "global_attn_every_n_layers": 2, "classifier_pooling": "mean",
    },
}  # fmt: skip
"""Another form of each family."""
FORMS = [(family, form) for family in FAMILIES for form in ({}, OTHERS[family])]


def texts_of(lengths, *, vocab_size=97, seed=0):
    generator = random.Random(seed)
    return [[generator.randrange(4, vocab_size) for _ in range(length)] for length in lengths]


def close(ours, expected):
    assert expected.std() > 0.1, "values are too flat to tell formulas apart"
    return (ours - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_hidden_states_are_those_of_transformers(tmp_path, family, form):
    oracle = write_tiny_encoder(tmp_path, family, **form)
    model, texts = load_tiny(tmp_path), texts_of(LENGTHS)
    if family == "bert":
        types = [[index % 2 for index in range(len(text))] for text in texts]
        found = hidden_states(model, texts, token_types=types)
    else:
        texts[-1][5] = texts[-1][9] = oracle.config.pad_token_id  # a padding token in the text itself
        types, found = None, hidden_states(model, texts)
    for index, text in enumerate(texts):
        given = {} if types is None else {"token_type_ids": torch.tensor([types[index]])}
        with torch.no_grad():
            expected = oracle(torch.tensor([text]), attention_mask=torch.ones(1, len(text)), **given)
        assert close(found[index], expected.last_hidden_state[0])


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_labels_are_those_of_transformers(tmp_path, family, form):
    oracle = write_tiny_encoder(tmp_path, family, num_labels=3, **form)
    model, texts = load_tiny(tmp_path), texts_of((7, 120))
    found = hidden_states(model, texts)
    is_mean = model.config.pooler.pooling == "mean"
    with torch.inference_mode():
        labels = model.pool(torch.stack([hidden.mean(dim=0) if is_mean else hidden[0] for hidden in found]))
    for text, ours in zip(texts, labels, strict=True):
        with torch.no_grad():
            expected = oracle(torch.tensor([text]), attention_mask=torch.ones(1, len(text))).logits[0]
        assert close(ours, expected)


def bytes_of(hidden):
    return [states.numpy().tobytes() for states in hidden]


def alone(model, texts):
    return [bytes_of(hidden_states(model, [text]))[0] for text in texts]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_same_bytes_alone_and_in_every_batch(tmp_path, family):
    write_tiny_encoder(tmp_path, family)
    model, texts = load_tiny(tmp_path), texts_of(LENGTHS)
    expected = alone(model, texts)
    assert bytes_of(hidden_states(model, texts)) == expected
    assert bytes_of(hidden_states(model, texts[::-1])) == expected[::-1]
    assert bytes_of(hidden_states(model, texts, num_padding=11)) == expected


def batched_product(x, weight, bias=None, **_):
    """One product of all rows."""
    return torch.nn.functional.linear(x, weight, bias)


def padded_attention(q, k, v, plan, *, scale, window=None):
    """All texts in one call, padded to the longest."""
    lengths = [text.stop - text.start for text in plan.texts]
    most = max(lengths)
    padded = [torch.zeros(len(lengths), most, *q.shape[1:]) for _ in "qkv"]
    for index, text in enumerate(plan.texts):
        for whole, part in zip(padded, (q, k, v), strict=True):
            whole[index, : lengths[index]] = part[text]
    sees = torch.arange(most) < torch.tensor(lengths)[:, None]
    heads = [whole.transpose(1, 2) for whole in padded]
    out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=sees[:, None, None], scale=scale)
    return torch.cat([out[index, :, :length].transpose(0, 1) for index, length in enumerate(lengths)])


def batch_norm_sums(x, weight, bias, eps):
    """Moments by sums over columns of the transposed batch, whose order follows the number of rows."""
    columns = x.t().contiguous()
    mean = torch.mm(torch.ones(1, x.shape[1]), columns) / x.shape[1]
    variance = torch.mm(torch.ones(1, x.shape[1]), (columns - mean) ** 2) / x.shape[1]
    return ((columns - mean) * torch.rsqrt(variance + eps)).t() * weight + bias


LEAKS = {
    "linear": batched_product,
    "text_attention": padded_attention,
    "layer_norm": batch_norm_sums,
}


@pytest.mark.parametrize("function", LEAKS)
def test_a_function_of_the_batch_is_seen(tmp_path, monkeypatch, function):
    write_tiny_encoder(tmp_path, "bert")
    model = load_tiny(tmp_path)
    texts = texts_of(LENGTHS)
    monkeypatch.setattr(model.context.kernels, function, LEAKS[function])
    assert bytes_of(hidden_states(model, texts)) != alone(model, texts)


def test_a_text_that_comes_in_parts_is_seen(tmp_path):
    write_tiny_encoder(tmp_path, "bert")
    model = load_tiny(tmp_path)
    with pytest.raises(AssertionError, match="whole text"):
        model.context.kernels.plan_texts(torch.tensor([1, 2, 4, 5]), (2, 2))


def test_a_device_without_kernels_of_encoders_is_refused(tmp_path):
    write_tiny_encoder(tmp_path, "bert")
    context = replace(cpu_context(), kernels=load_kernels(Cuda.kernel_stack))
    with pytest.raises(UnsupportedError, match=r"'hopper' has no text_linear, .*Use device='cpu'"):
        cache_specs(read_model_config(tmp_path, runner="pooling"), context)


def test_an_encoder_keeps_nothing(tmp_path):
    write_tiny_encoder(tmp_path, "modernbert")
    assert cache_specs(read_model_config(tmp_path, runner="pooling"), cpu_context()) == ()


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("bert", "position_embedding_type", "relative_key"),
        ("bert", "is_decoder", True),
        ("bert", "hidden_act", "relu"),
        ("xlm-roberta", "add_cross_attention", True),
        ("modernbert", "hidden_activation", "silu"),
        ("modernbert", "classifier_pooling", "max"),
    ],
)
def test_what_is_not_built_is_refused_by_name(tmp_path, family, key, value):
    write_tiny_encoder(tmp_path, family)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UnsupportedError, match=key):
        read_model_config(tmp_path, runner="pooling")


def test_a_checkpoint_under_other_names_is_read(tmp_path):
    """Prefixes of task models, gamma and beta of old files, tensors that embeddings do not need."""
    write_tiny_encoder(tmp_path, "bert")
    expected = hidden_states(load_tiny(tmp_path), texts_of((9,)))[0]
    path = tmp_path / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {"bert.embeddings.position_ids": torch.arange(200)[None], "cls.predictions.bias": torch.zeros(503)}
    for name, tensor in load_file(path).items():
        for new, former in old.items():
            name = name.replace(new, former)
        tensors[f"bert.{name}"] = tensor
    save_file(tensors, path)
    assert torch.equal(hidden_states(load_tiny(tmp_path), texts_of((9,)))[0], expected)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"prompts": {"query": "query: ", "none": ""}, "default_prompt_name": "none"}, None),
        ({"prompts": {"query": "query: "}, "default_prompt_name": None, "similarity_fn_name": "cosine"}, None),
        ({"similarity_fn_name": "dot"}, None),
        ({"prompts": {"query": "query: "}, "default_prompt_name": "query"}, "default_prompt_name='query'"),
        ({"similarity_fn_name": "euclidean"}, "similarity_fn_name='euclidean'"),
    ],
)
def test_a_prompt_or_a_similarity_of_the_folder_is_not_left_out(tmp_path, values, fault):
    write_tiny_encoder(tmp_path, "bert")
    write_modules(tmp_path, pooling="mean", normalizes=True)
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(values))
    with pytest.raises(UnsupportedError, match=fault) if fault else nullcontext():
        read_model_config(tmp_path, runner="auto")
