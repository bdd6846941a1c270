"""ColBERT: a vector for each token, and pairs compared by the best match of each token of the query."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider import LLM, CheckpointError, PoolingParams, RequestError
from tests.support.pooling_models import change_config
from tests.support.tiny_encoders import write_encoder_tokenizer, write_tiny_encoder

SIZE, QUERY = 24, "what is the capital of france"
DOCUMENTS = ("the capital of france is paris", "a river runs through it " * 3, "xylophone")


@pytest.fixture
def colbert(tmp_path: Path):
    """The directory of a model in ColBERT's layout, transformers' body, the linear layer, and the tokenizer."""
    body = write_tiny_encoder(tmp_path, "bert")
    linear = torch.randn(SIZE, body.config.hidden_size)
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors | {"linear.weight": linear}, tmp_path / "model.safetensors")
    change_config(tmp_path, architectures=["HF_ColBERT"])
    return tmp_path, body, linear, write_encoder_tokenizer(tmp_path, "bert")


def vectors(colbert, text: str) -> torch.Tensor:
    _, body, linear, tokenizer = colbert
    with torch.no_grad():
        hidden = body(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden @ linear.t(), dim=1)


def test_a_score_is_the_sum_of_the_best_matches(colbert) -> None:
    directory, *_, tokenizer = colbert
    llm = LLM(str(directory), device="cpu")
    (found,) = llm.encode(QUERY, use_tqdm=False)
    expected = vectors(colbert, QUERY)
    torch.testing.assert_close(torch.tensor(found.outputs.data), expected, rtol=1e-4, atol=1e-5)
    scores = llm.score(QUERY, list(DOCUMENTS), use_tqdm=False)
    for document, score in zip(DOCUMENTS, scores, strict=True):
        best = (expected @ vectors(colbert, document).t()).max(dim=1).values.sum()
        assert abs(score.outputs.score - float(best)) < 1e-4
        assert len(score.prompt_token_ids) == len(tokenizer(QUERY).input_ids) + len(tokenizer(document).input_ids)
    (alone,) = llm.score(QUERY, DOCUMENTS[1], use_tqdm=False)
    assert alone.outputs.score == scores[1].outputs.score, "the same bits alone"
    with pytest.raises(RequestError, match="task='embed' is not one of this model"):
        llm.encode(QUERY, PoolingParams(task="embed"), use_tqdm=False)


def test_a_checkpoint_without_the_linear_layer_is_refused(colbert) -> None:
    directory = colbert[0]
    tensors = load_file(directory / "model.safetensors")
    del tensors["linear.weight"]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no matrix 'linear.weight', which makes the vectors of tokens"):
        LLM(str(directory), device="cpu")
