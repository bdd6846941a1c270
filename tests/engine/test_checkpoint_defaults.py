"""Facts that several files of a checkpoint state: where outputs end, and how a request without parameters samples."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError, SamplingParams, StructuredOutputsParams
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.server.chat import ChatRequest
from outrider.server.completions import CompletionRequest
from tests.support.log_lines import log_lines

from .text_model import END, write_text_model

OTHER = 7
"""Another id that ends outputs."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_text_model(tmp_path)


def change(directory: Path, file: str, **values: Any) -> None:
    """Set keys of a JSON file; None removes a key."""
    path = directory / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in (found | values).items() if value is not None}))


@pytest.mark.parametrize(
    ("in_config", "in_generation", "in_tokenizer", "ends"),
    [
        (None, None, "<|end|>", (END,)),
        (None, None, {"__type": "AddedToken", "content": "<|end|>", "special": True}, (END,)),
        (OTHER, None, "<|end|>", (OTHER, END)),
        (None, [OTHER, 9], "<|end|>", (OTHER, 9, END)),
        (9, OTHER, None, (OTHER, 9)),
        (END, [END], "<|end|>", (END,)),
        (None, None, None, ()),
    ],
)
def test_an_output_ends_where_any_file_says(
    directory: Path, in_config: Any, in_generation: Any, in_tokenizer: Any, ends: tuple[int, ...]
) -> None:
    change(directory, "config.json", eos_token_id=in_config)
    change(directory, "generation_config.json", eos_token_id=in_generation)
    change(directory, "tokenizer_config.json", eos_token=in_tokenizer)
    assert LLM(str(directory)).engine.eos_token_ids == ends


def test_the_tokenizers_end_stops_an_output_and_a_grammar(directory: Path) -> None:
    change(directory, "config.json", eos_token_id=None)
    (directory / "generation_config.json").unlink()
    llm = LLM(str(directory))
    (output,) = llm.generate("a", SamplingParams(temperature=0, max_tokens=9, logit_bias={END: 100.0}))
    assert output.outputs[0].finish_reason == "stop" and output.outputs[0].token_ids == [END]
    asked = StructuredOutputsParams(choice=["ab"])
    (output,) = llm.generate("a", SamplingParams(temperature=0, max_tokens=9, structured_outputs=asked))
    assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("ab", "stop")
    assert LLM(str(directory), skip_tokenizer_init=True).engine.eos_token_ids == ()


def test_recommended_parameters_apply_where_a_call_has_none(directory: Path) -> None:
    change(directory, "generation_config.json", temperature=2.0, top_k=1, max_new_tokens=5)
    with log_lines(logging.INFO) as lines:
        llm = LLM(str(directory))
    recommended = [line for line in lines if "recommends" in line]
    assert len(recommended) == 1 and "temperature 2, top_k 1, max_tokens 5" in recommended[0]
    assert llm.get_default_sampling_params() == SamplingParams(temperature=2.0, top_k=1, max_tokens=5)
    (found,) = llm.generate("abc")
    (greedy,) = llm.generate("abc", SamplingParams(temperature=0, max_tokens=5))
    assert found.outputs[0].token_ids == greedy.outputs[0].token_ids
    said = "temperature 2, top_k 1, max_tokens 5 (generation_config.json), where a request says nothing"
    assert ("sampling defaults", said) in llm.engine.describe()
    (hot,) = llm.generate("abc", SamplingParams(temperature=50.0, seed=1, max_tokens=5))
    assert hot.outputs[0].token_ids != greedy.outputs[0].token_ids, "given parameters apply as they are"


def test_recommended_parameters_can_be_ignored(directory: Path) -> None:
    change(directory, "generation_config.json", temperature=-1.0)
    with pytest.raises(ConfigError, match="generation_config='none'"):
        LLM(str(directory))
    llm = LLM(str(directory), generation_config="none")
    assert llm.get_default_sampling_params() == SamplingParams()
    assert ("sampling defaults", "none: generation_config is 'none'") in llm.engine.describe()
    with pytest.raises(ConfigError, match="generation_config='vllm' is not known; it takes 'auto' or 'none'"):
        LLM(str(directory), generation_config="vllm")


def test_fields_of_a_request_go_before_recommended_parameters() -> None:
    defaults = SamplingDefaults(temperature=0.6, top_k=20, top_p=0.9, min_p=0.1, repetition_penalty=1.2, max_tokens=99)
    rest: Any = {"logprobs": None, "defaults": defaults}
    silent = CompletionRequest(prompt="a", temperature=None).to_params(max_tokens=16, **rest)
    assert silent == SamplingParams(
        temperature=0.6, top_k=20, top_p=0.9, min_p=0.1, repetition_penalty=1.2, max_tokens=16
    )
    fields: Any = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    chat = ChatRequest(messages=[{"role": "user", "content": "a"}], **fields)
    assert chat.to_params(max_tokens=None, **rest) == SamplingParams(temperature=0.0, max_tokens=None)
