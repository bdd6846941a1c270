"""A model whose rope is stretched takes requests of factor times its original length, as its config says."""

import json
from pathlib import Path

import pytest

from outrider import LLM, ConfigError, SamplingParams
from tests.support.tiny_models import write_tiny_model

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attn_factor": 0.9}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = tmp_path_factory.mktemp("stretched")
    write_tiny_model(found, "llama", vocab_size=61, num_hidden_layers=2, max_position_embeddings=64)
    config = json.loads((found / "config.json").read_text())
    config.pop("rope_parameters", None)
    (found / "config.json").write_text(json.dumps(config | {"rope_scaling": YARN, "rope_theta": 10000.0}))
    return found


def test_a_request_may_be_longer_than_the_original_length(directory: Path) -> None:
    llm = LLM(str(directory), skip_tokenizer_init=True)
    assert llm.engine.worker.max_model_len == 256
    params = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    (output,) = llm.generate({"prompt_token_ids": [5, 6, 7] * 20}, params)
    assert len(output.outputs[0].token_ids) == 60


def test_a_longer_one_is_refused_with_the_reason(directory: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"max_model_len=257 is above the model's 256 tokens: its rope stretches 64 pos"
    ):
        LLM(str(directory), skip_tokenizer_init=True, max_model_len=257)
