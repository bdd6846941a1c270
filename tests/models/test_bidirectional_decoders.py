"""Decoders whose tokens see their whole text: EmbeddingGemma with its linear layers, GritLM, and keys of other configs.

The oracle is transformers; the same text has the same bytes alone and in any batch.
"""

import json
import random
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import processors
from torch import Tensor, nn
from transformers import (
    Gemma3TextModel,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from outrider import LLM, CheckpointError, PoolingParams, RequestError, SamplingParams, UnsupportedError
from outrider.loading.sentence_transformers import MODULES
from outrider.models import read_model_config
from tests.engine.tokenizers_made_here import save_byte_level
from tests.support.pooling_models import change_config, write_modules
from tests.support.tiny_models import tiny_config, write_tiny_model

SIZE, VOCAB = 64, 420


def pooling(directory: Path, **options: Any) -> LLM:
    return LLM(str(directory), device="cpu", **({"skip_tokenizer_init": True} | options))


def texts(count: int) -> list[list[int]]:
    dice = random.Random(5)
    return [[dice.randrange(3, 90) for _ in range(dice.choice((1, 2, 17, 40, 90)))] for _ in range(count)]


def embedded(llm: LLM, given: list[list[int]]) -> list[bytes]:
    outputs = llm.embed([{"prompt_token_ids": ids} for ids in given], use_tqdm=False)
    return [array("f", output.outputs.embedding).tobytes() for output in outputs]


def hidden_of(model: Any, ids: list[int]) -> Tensor:
    with torch.no_grad():
        last: Tensor = model(torch.tensor([ids])).last_hidden_state[0]
    return last


def write_gemma(directory: Path) -> tuple[PreTrainedModel, nn.Sequential]:
    """A model in the layout of EmbeddingGemma, and its linear layers."""
    torch.manual_seed(0)
    config = tiny_config("gemma3", use_bidirectional_attention=True, initializer_range=0.2)
    model = Gemma3TextModel(config).eval()
    model.save_pretrained(directory)
    write_modules(directory, pooling="mean", normalizes=True)
    add_dense(directory, [(SIZE, 96, False, "Identity"), (96, 32, True, "Tanh")])
    dense = nn.Sequential(nn.Linear(SIZE, 96, bias=False), nn.Linear(96, 32), nn.Tanh())
    for number, layer in ((2, dense[0]), (3, dense[1])):
        tensors = {f"linear.{name}": tensor for name, tensor in layer.state_dict().items()}
        save_file(tensors, directory / f"{number}_Dense" / "model.safetensors")
    return model, dense


def add_dense(directory: Path, layers: list[tuple[int, int, bool, str]]) -> None:
    """Put modules Dense behind the pooling, as sentence-transformers saves them."""
    path = directory / MODULES
    transformer, pooled, normalize = json.loads(path.read_text())
    dense = []
    for number, (in_features, out_features, bias, activation) in enumerate(layers, start=2):
        folder = f"{number}_Dense"
        (directory / folder).mkdir()
        values = {
            "in_features": in_features,
            "out_features": out_features,
            "bias": bias,
            "activation_function": f"torch.nn.modules.linear.{activation}",
        }
        (directory / folder / "config.json").write_text(json.dumps(values))
        dense.append({"idx": number, "name": str(number), "path": folder, "type": "sentence_transformers.models.Dense"})
    path.write_text(json.dumps([transformer, pooled, *dense, normalize]))


def test_embedding_gemma_is_that_of_transformers_and_the_same_in_any_batch(tmp_path: Path) -> None:
    model, dense = write_gemma(tmp_path)
    llm, given = pooling(tmp_path), texts(24)
    assert max(map(len, given)) > 2 * 24, "texts are longer than a window"
    for ids in given[:6]:
        (found,) = llm.embed({"prompt_token_ids": ids}, use_tqdm=False)
        expected = dense(hidden_of(model, ids).mean(0)).detach()
        torch.testing.assert_close(
            torch.tensor(found.outputs.embedding), expected / expected.norm(), rtol=1e-4, atol=1e-5
        )
    alone = [embedded(llm, [ids])[0] for ids in given]
    assert embedded(llm, given) == alone
    assert embedded(llm, given[::-1]) == alone[::-1]
    with pytest.raises(RequestError, match="task='token_embed' is not one of this model"):
        llm.encode({"prompt_token_ids": [5]}, PoolingParams(task="token_embed"))


def write_gritlm(directory: Path) -> MistralForCausalLM:
    """A language model in a directory whose name says that it makes vectors, too; its tokenizer begins with <|end|>."""
    directory.mkdir()
    model = write_tiny_model(directory, "mistral", vocab_size=VOCAB, sliding_window=16, max_position_embeddings=512)
    save_byte_level(directory)
    fast = PreTrainedTokenizerFast.from_pretrained(directory)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 0)]
    )
    fast.save_pretrained(directory)
    return model


MARK = "<|embed|>\n"
PROMPTS = {
    "<|user|>\nfind the fox\n" + MARK: "behind an instruction",
    MARK: "without one",
    "": "without a mark",
}


@pytest.mark.parametrize("before", PROMPTS, ids=PROMPTS.values())
def test_gritlm_pools_over_the_text_behind_its_mark(before: str, tmp_path: Path) -> None:
    model = write_gritlm(tmp_path / "GritLM-tiny")
    llm = pooling(tmp_path / "GritLM-tiny", runner="pooling", skip_tokenizer_init=False)
    text = "the quick brown fox jumps over the lazy dog, and again over the dog"
    (found,) = llm.embed(before + text, use_tqdm=False)
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    ids, own = found.prompt_token_ids, tokenizer.encode(text, add_special_tokens=False)
    assert ids[-len(own) :] == own and len(ids) > 20
    model.config.is_causal, model.config.sliding_window = False, None
    expected = hidden_of(model.model, ids)[-len(own) :].mean(0)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(torch.tensor(found.outputs.embedding), expected / expected.norm(), **close)
    others = [before + text[start:] for start in (4, 10, 20)]
    together = llm.embed([others[0], before + text, *others[1:]], use_tqdm=False)
    assert together[1].outputs.embedding == found.outputs.embedding
    if before:
        with pytest.raises(RequestError, match="has no text behind its instruction"):
            llm.embed(before, use_tqdm=False)


def test_gritlm_writes_text_from_the_same_checkpoint(tmp_path: Path) -> None:
    model = write_gritlm(tmp_path / "GritLM-tiny")
    ids = list(range(5, 60, 3))
    with torch.no_grad():
        expected = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    for architecture in ("MistralForCausalLM", "GritLM"):
        change_config(tmp_path / "GritLM-tiny", architectures=[architecture])
        llm = pooling(tmp_path / "GritLM-tiny")
        params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
        (output,) = llm.generate({"prompt_token_ids": ids}, params, use_tqdm=False)
        assert output.outputs[0].token_ids == expected[0, len(ids) :].tolist()


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_a_config_that_is_not_causal_pools_and_cannot_generate(family: str, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path, family)
    change_config(tmp_path, is_causal=False)
    ids = texts(4)[3]
    (found,) = pooling(tmp_path).embed({"prompt_token_ids": ids}, use_tqdm=False)
    model.config.is_causal = False
    expected = hidden_of(model.model, ids)[-1]
    torch.testing.assert_close(torch.tensor(found.outputs.embedding), expected / expected.norm(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"tokens see later tokens .*so the model cannot generate"):
        pooling(tmp_path, runner="generate")


@pytest.mark.parametrize("family", ["qwen3_5", "deepseek_v3", "gpt_oss"])
def test_layers_that_cannot_see_later_tokens_are_refused_by_name(family: str, tmp_path: Path) -> None:
    write_tiny_model(tmp_path, family)
    change_config(tmp_path, is_causal=False)
    with pytest.raises(UnsupportedError, match=r"is_causal"):
        pooling(tmp_path, runner="pooling")


def test_linear_layers_that_are_not_as_they_should_be_are_refused(tmp_path: Path) -> None:
    write_gemma(tmp_path)
    path = tmp_path / "2_Dense" / "config.json"
    good = json.loads(path.read_text())
    for change, kind, said in (
        ({"activation_function": "torch.nn.modules.activation.GELU"}, UnsupportedError, "Supported: Identity, Tanh"),
        ({"in_features": "64"}, CheckpointError, "in_features='64' and out_features=96 must be positive integers"),
        ({"in_features": 48}, CheckpointError, "text_head.0.weight"),
        ({"use_residual": True}, UnsupportedError, "use_residual=True is not supported"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(kind, match=said):
            pooling(tmp_path)
    path.write_text(json.dumps(good))
    modules = json.loads((tmp_path / MODULES).read_text())
    (tmp_path / MODULES).write_text(json.dumps([*modules[:2], modules[-1], *modules[2:-1]]))
    with pytest.raises(UnsupportedError, match="Transformer, Pooling, Normalize, Dense, Dense are not supported"):
        pooling(tmp_path)


def test_the_released_config_of_embedding_gemma_is_read(tmp_path: Path) -> None:
    """Half of sliding_window on each side, and a name of its own for the text model."""
    kinds = ["full_attention" if (index + 1) % 6 == 0 else "sliding_attention" for index in range(24)]
    config = {
        "_sliding_window_pattern": 6, "architectures": ["Gemma3TextModel"], "attention_bias": False,
        "attention_dropout": 0.0, "attn_logit_softcapping": None, "bos_token_id": 2, "dtype": "float32",
        "eos_token_id": 1, "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 1152, "layer_types": kinds,
        "max_position_embeddings": 2048, "model_type": "gemma3_text", "num_attention_heads": 3, "num_hidden_layers": 24,
        "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000.0, "rope_scaling": None, "rope_theta": 1000000.0, "sliding_window": 512,
        "use_bidirectional_attention": True, "use_cache": True, "vocab_size": 262144,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_model_config(tmp_path, runner="auto")
    assert found.pooler is not None and not found.is_causal
    assert [found.window(index) for index in (0, 4, 5, 6, 23)] == [513, 513, None, 513, None]
