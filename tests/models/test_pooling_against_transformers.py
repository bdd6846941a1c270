"""Decoders that pool: vectors, classes, scores and rewards equal those of transformers, in the layouts of releases."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from outrider import LLM, CheckpointError, PairOptions, PoolingParams, UnsupportedError
from outrider.models.qwen3 import RERANKER
from tests.support.pooling_models import (
    END,
    change_config,
    write_classifier,
    write_embedder,
    write_modules,
    write_reranker,
    write_reward,
    write_token_classifier,
)
from tests.support.tiny_models import write_tiny_model

IDS = list(range(5, 60, 3))
PROMPT = {"prompt_token_ids": IDS}


def pooling(directory: Path, **options: Any) -> LLM:
    options = {"runner": "auto", "skip_tokenizer_init": True} | options
    return LLM(str(directory), device="cpu", **options)


def close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-5, atol=1e-5)


def hidden_of(model: Any, ids: list[int] = IDS) -> Tensor:
    """[num_tokens, hidden_size], after the final norm."""
    with torch.no_grad():
        last: Tensor = model.model(torch.tensor([ids])).last_hidden_state[0]
    return last


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("llama", "qwen2", "mistral", "gemma3", "qwen3_5")]


@pytest.mark.parametrize("family", ["qwen3", *SLOW])
def test_classes_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model = write_classifier(tmp_path, family, num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"})
    llm = pooling(tmp_path)
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0]
    (found,) = llm.classify(PROMPT)
    close(found.outputs.probs, logits.softmax(0))
    assert found.labels == ("bad", "fair", "good")
    (raw,) = llm.classify(PROMPT, pooling_params=PoolingParams(use_activation=False))
    close(raw.outputs.probs, logits)


@pytest.mark.parametrize(
    ("keys", "activation"),
    [
        ({}, torch.sigmoid),
        ({"problem_type": "regression"}, lambda logits: logits),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, lambda logits: logits),
        ({"problem_type": "multi_label_classification"}, torch.sigmoid),
    ],
)
def test_one_label_is_a_score_with_the_activation_that_the_config_names(
    keys: dict[str, Any], activation: Any, tmp_path: Path
) -> None:
    model = write_classifier(tmp_path, "llama", num_labels=1)
    change_config(tmp_path, **keys)
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0]
    (found,) = pooling(tmp_path).classify(PROMPT)
    close(found.outputs.probs, activation(logits))


def test_a_token_classifier_gives_each_token_its_classes(tmp_path: Path) -> None:
    model = write_token_classifier(tmp_path, "qwen3", num_labels=4)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].softmax(1)
    (found,) = pooling(tmp_path, max_num_batched_tokens=8).encode(PROMPT)
    assert found.outputs.shape == (len(IDS), 4)
    close(found.outputs.data, expected)


def test_a_reward_is_a_number_for_each_token_and_the_last_that_of_the_text(tmp_path: Path) -> None:
    model, head = write_reward(tmp_path, architecture="Qwen2ForRewardModel", num_labels=1)
    with torch.no_grad():
        expected = head(hidden_of(model))
    llm = pooling(tmp_path)
    close(llm.encode(PROMPT)[0].outputs.data, expected)
    close(llm.classify(PROMPT)[0].outputs.probs, expected[-1])


def test_step_rewards_come_at_the_tag_of_a_step(tmp_path: Path) -> None:
    model, head = write_reward(tmp_path, architecture="Qwen2ForProcessRewardModel", num_labels=2)
    ids = [5, 6, 99, 7, 99, 8, 9, 99]
    with torch.no_grad():
        expected = head(hidden_of(model, ids)).softmax(1)[[2, 4, 7]]
    llm = pooling(tmp_path, max_num_batched_tokens=3)
    (found,) = llm.encode({"prompt_token_ids": ids}, PoolingParams(step_tag_id=99))
    close(found.outputs.data, expected)
    (column,) = llm.encode({"prompt_token_ids": ids}, PoolingParams(step_tag_id=99, returned_token_ids=[1]))
    close(column.outputs.data, expected[:, 1:])
    (none,) = llm.encode({"prompt_token_ids": ids}, PoolingParams(step_tag_id=98))
    assert none.outputs.shape == (0, 0) and none.outputs.data == []


@pytest.mark.parametrize("pooling_mode", ["lasttoken", "mean", "cls"])
def test_vectors_are_pooled_and_normalised_as_the_folder_says(pooling_mode: str, tmp_path: Path) -> None:
    normalizes = pooling_mode != "mean"
    model = write_embedder(tmp_path, pooling=pooling_mode, normalizes=normalizes)
    llm = pooling(tmp_path, skip_tokenizer_init=False, max_num_batched_tokens=8)
    text = "the quick brown fox jumps over the lazy dog"
    (found,) = llm.embed(text)
    assert found.prompt_token_ids[-1] == END and len(found.prompt_token_ids) > 8
    hidden = hidden_of(model, found.prompt_token_ids)
    expected = {"lasttoken": hidden[-1], "mean": hidden.mean(0), "cls": hidden[0]}[pooling_mode]
    close(found.outputs.embedding, expected / expected.norm() if normalizes else expected)


def test_fewer_dimensions_are_cut_and_then_normalised(tmp_path: Path) -> None:
    model = write_embedder(tmp_path)
    change_config(tmp_path, matryoshka_dimensions=[16, 24])
    llm = pooling(tmp_path)
    expected = hidden_of(model)[-1][:24]
    (found,) = llm.embed(PROMPT, pooling_params=PoolingParams(dimensions=24))
    close(found.outputs.embedding, expected / expected.norm())
    (raw,) = llm.embed(PROMPT, pooling_params=PoolingParams(dimensions=24, normalize=False))
    close(raw.outputs.embedding, expected)
    with pytest.raises(ValueError, match="dimensions=20 is not offered by this model: use one of 16, 24"):
        llm.embed(PROMPT, pooling_params=PoolingParams(dimensions=20))


def test_dimensions_need_a_model_that_was_trained_for_them(tmp_path: Path) -> None:
    write_embedder(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"dimensions=24: this model's vectors have 64 numbers.*is_matryoshka"):
        pooling(tmp_path / "plain").embed(PROMPT, pooling_params=PoolingParams(dimensions=24))
    write_embedder(tmp_path / "Qwen3-Embedding-tiny")
    llm = pooling(tmp_path / "Qwen3-Embedding-tiny")
    assert len(llm.embed(PROMPT, pooling_params=PoolingParams(dimensions=24))[0].outputs.embedding) == 24


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_an_original_reranker_is_known_and_scores_by_its_answers(tie_word_embeddings: bool, tmp_path: Path) -> None:
    directory = tmp_path / "Qwen3-Reranker-tiny"
    model = write_reranker(directory, tie_word_embeddings=tie_word_embeddings)
    llm = pooling(directory, runner="pooling", skip_tokenizer_init=False)
    template, tokenizer = RERANKER.template, llm.engine.tokenizer
    assert tokenizer is not None
    for instruction in (None, "find the fox"):
        middle = f"<Instruct>: {instruction or template.instruction}\n<Query>: who jumps?\n<Document>: the fox"
        parts = (template.before, middle, template.after)
        ids = [token_id for part in parts for token_id in tokenizer.encode(part, add_special_tokens=False)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        no, yes = tokenizer.encode("no"), tokenizer.encode("yes")
        expected = torch.stack([logits[no[0]], logits[yes[0]]]).softmax(0)[1]
        options = PairOptions(instruction=instruction)
        (found,) = llm.score("who jumps?", "the fox", pair_options=options)
        close(found.outputs.score, expected)
        assert found.prompt_token_ids == ids


def test_a_converted_reranker_has_the_template_too(tmp_path: Path) -> None:
    directory = tmp_path / "Qwen3-Reranker-tiny-seq-cls"
    model = write_reranker(directory, tie_word_embeddings=True)
    converted = write_classifier(
        directory, "qwen3", num_labels=1, vocab_size=model.config.vocab_size, max_position_embeddings=512
    )
    llm = pooling(directory, skip_tokenizer_init=False)
    (found,) = llm.score("who jumps?", "the fox")
    assert len(found.prompt_token_ids) > 100, "the prompt has no template"
    with torch.no_grad():
        logits = converted(torch.tensor([found.prompt_token_ids])).logits[0, 0]
    close(found.outputs.score, torch.sigmoid(logits))


def test_auto_pools_with_folders_and_architectures_that_are_made_for_it(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "plain", "llama")
    assert pooling(tmp_path / "plain").engine.pooling is None
    forced = pooling(tmp_path / "plain", runner="pooling").engine.pooling
    assert forced is not None and forced.abilities.tasks == ("embed", "token_embed")
    write_classifier(tmp_path / "classes", "llama", num_labels=2)
    with pytest.raises(UnsupportedError, match="'LlamaForSequenceClassification' pools, and cannot generate"):
        pooling(tmp_path / "classes", runner="generate")
    write_embedder(tmp_path / "vectors")
    assert pooling(tmp_path / "vectors").engine.pooling is not None
    assert pooling(tmp_path / "vectors", runner="generate").engine.pooling is None


def test_a_folder_with_parts_that_are_not_built_is_refused_by_name(tmp_path: Path) -> None:
    write_embedder(tmp_path, pooling="max")
    with pytest.raises(UnsupportedError, match=r"1_Pooling.*the pooling max is not supported"):
        pooling(tmp_path)
    write_modules(tmp_path, pooling="mean", normalizes=True)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[2] |= {"type": "sentence_transformers.models.WordWeights", "path": "2_WordWeights"}
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedError, match="Transformer, Pooling, WordWeights are not supported"):
        pooling(tmp_path)
    (tmp_path / "modules.json").write_text('{"idx": 0}')
    with pytest.raises(CheckpointError, match="is not a list of modules"):
        pooling(tmp_path)
