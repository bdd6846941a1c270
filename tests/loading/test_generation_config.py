"""generation_config.json: sampling parameters that a checkpoint recommends."""

import json
from pathlib import Path
from typing import Any

import pytest

from outrider.core.errors import ConfigError
from outrider.core.sampling_defaults import SamplingDefaults
from outrider.core.sampling_params import SamplingParams
from outrider.loading.generation_config import read_sampling_defaults

EVERY = {
    "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05, "max_new_tokens": 99,
}  # fmt: skip


def read(directory: Path, values: dict[str, Any]) -> SamplingDefaults:
    (directory / "generation_config.json").write_text(json.dumps(values))
    return read_sampling_defaults(directory)


def test_every_default_of_vllm_is_read_and_nothing_else(tmp_path: Path) -> None:
    found = read(
        tmp_path, EVERY | {"do_sample": True, "length_penalty": 2.0, "eos_token_id": 5, "transformers_version": "4"}
    )
    assert found.params() == SamplingParams(
        temperature=0.6, top_k=20, top_p=0.95, min_p=0.05, repetition_penalty=1.05, max_tokens=99
    )
    assert str(found) == "temperature 0.6, top_k 20, top_p 0.95, min_p 0.05, repetition_penalty 1.05, max_tokens 99"


def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path) -> None:
    assert read_sampling_defaults(tmp_path) == SamplingDefaults() and str(SamplingDefaults()) == "none"
    assert read(tmp_path, {"do_sample": False, "temperature": None}).params() == SamplingParams()
    assert read(tmp_path, {"temperature": 0.0}).params().is_greedy


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_p": 0}, {"top_k": "many"}, {"repetition_penalty": 0}, {"max_new_tokens": 0}]
)
def test_a_value_that_cannot_be_is_refused_with_the_file(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"generation_config.json: .* ignore it with generation_config='none'"):
        read(tmp_path, values)
