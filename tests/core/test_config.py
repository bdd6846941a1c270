"""The options of an engine and of speculation: unknown, unbuilt and impossible ones are refused by name."""

from collections.abc import Mapping
from inspect import signature
from typing import Any, get_type_hints

import pytest

from outrider import LLM, AsyncLLM
from outrider.core.config import MAX_DRAFTS, EngineConfig, SpeculativeConfig, engine_config
from outrider.core.engine_options import EngineOptions
from outrider.core.errors import ConfigError, OutriderError, UnsupportedError


def refusal(kind: type[ConfigError] = ConfigError, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        engine_config("model", **options)
    assert type(caught.value) is kind
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, OutriderError)
    return str(caught.value)


def speculative_refusal(kind: type[ConfigError] = ConfigError, **values: Any) -> str:
    return refusal(kind, speculative_config={"method": "ngram", **values})


@pytest.mark.parametrize("name", ["kv_cache_dtype", "max_num_sequences", "model_impl", "speculative"])
def test_unknown_option_is_refused_with_those_that_are_known(name: str) -> None:
    message = refusal(**{name: "x"})
    assert message.startswith(f"option {name!r} is not known. Known: attention_backend, block_size, device, ")
    assert "model," not in message, "the model is no option"


def test_an_editor_knows_every_option_with_its_type() -> None:
    hints = get_type_hints(EngineConfig)
    del hints["model"], hints["speculative"]
    not_supported = {
        "tensor_parallel_size": int,
        "data_parallel_size": int,
        "enable_expert_parallel": bool,
        "limit_mm_per_prompt": Mapping[str, Any] | None,
    }
    assert get_type_hints(EngineOptions) == hints | {"speculative_config": Mapping[str, Any] | None} | not_supported
    for face in (LLM, AsyncLLM):
        assert "EngineOptions" in str(signature(face).parameters["options"].annotation)


@pytest.mark.parametrize(
    ("name", "value", "neutral"),
    [
        ("tensor_parallel_size", 2, 1),
        ("data_parallel_size", 4, 1),
        ("enable_expert_parallel", True, False),
        ("limit_mm_per_prompt", {"image": 1}, None),
    ],
)
def test_option_that_is_not_supported_is_refused_by_name(name: str, value: Any, neutral: Any) -> None:
    assert refusal(UnsupportedError, **{name: value}) == (
        f"{name}={value!r} is not supported; leave it at {neutral!r}."
    )
    assert engine_config("model", **{name: neutral}) == EngineConfig(model="model")


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_model_len", 2, 2**31 - 1),
        ("max_num_seqs", 1, 4096),
        ("max_num_batched_tokens", 1, 2**20),
        ("num_gpu_blocks_override", 2, 2**31 - 1),
        ("overlap_depth", 0, 1),
        ("seed", -(2**63), 2**63 - 1),
    ],
)
def test_integer_option_out_of_range_is_refused(name: str, low: int, high: int) -> None:
    for value in (low - 1, high + 1, 2.0, float("nan"), "2", True):
        message = refusal(**{name: value})
        assert message.startswith(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. ")
        assert message.endswith(".")
    for value in (low, high):
        assert getattr(engine_config("model", **{name: value}), name) == value


@pytest.mark.parametrize("value", [0, 8, 17, 128, 16.0, "16", True, None])
def test_block_size_is_one_of_three(value: Any) -> None:
    message = refusal(block_size=value)
    assert message.startswith(f"block_size={value!r} is ")
    assert "16" in message.removeprefix(f"block_size={value!r}") and message.endswith(".")


@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, float("nan"), float("inf"), "0.9", None, True])
def test_memory_share_is_above_zero_and_at_most_one(value: Any) -> None:
    message = refusal(gpu_memory_utilization=value)
    assert message == f"gpu_memory_utilization={value!r} is out of range: a number above 0, at most 1."


@pytest.mark.parametrize("name", ["enforce_eager", "enable_prefix_caching", "logits_digest"])
@pytest.mark.parametrize("value", [1, None, "no"])
def test_switch_takes_true_or_false(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == f"{name}={value!r} must be True or False."


def test_names_that_are_not_known_are_refused_with_those_that_are() -> None:
    assert refusal(load_format="gguf") == "load_format='gguf' is not known; it takes 'auto' or 'dummy'."
    assert refusal(dtype="float16") == "dtype='float16' is not known; it takes 'auto', 'float32' or 'bfloat16'."


def test_one_request_must_fit_into_a_step_with_its_drafts() -> None:
    options = {"speculative_config": {"method": "ngram", "num_speculative_tokens": 5}}
    message = refusal(max_num_batched_tokens=5, **options)
    assert message.endswith("One request takes 6 tokens per step: its last token and its drafts.")
    assert engine_config("model", max_num_batched_tokens=6, **options).step_token_budget == 6


def sizes(**options: Any) -> tuple[int, int]:
    """Rows and tokens of a step on a platform of 64 rows, and 500 tokens of prompts beside them."""
    config = engine_config("model", **options).resolve(max_num_seqs=64, num_prompt_tokens=500)
    return config.num_rows, config.step_token_budget


def test_sizes_of_a_step_are_the_platforms_where_none_are_given() -> None:
    assert sizes() == (64, 564)
    assert sizes(max_num_seqs=3, max_num_batched_tokens=40) == (3, 40)


def test_step_budget_grows_with_the_drafts_of_all_rows() -> None:
    speculative = {"method": "ngram", "num_speculative_tokens": 7}
    assert sizes(max_num_seqs=100, speculative_config=speculative) == (100, 1300)
    assert sizes(max_num_batched_tokens=40, speculative_config=speculative) == (64, 40)


def test_without_speculation_there_are_no_drafts() -> None:
    assert engine_config("model").num_speculative_tokens == 0
    assert engine_config("model", speculative_config=None).speculative is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rejection_sample_method": "block"}, "rejection_sample_method='block' is not known"),
        ({"rejection_sample_method": "synthetic"}, "'synthetic' takes one of the two"),
        ({"synthetic_acceptance_length": 2.0}, "'standard' neither"),
        ({"synthetic_acceptance_rates": [0.5, 0.4, 0.3]}, "'standard' neither"),
    ],
)
def test_synthetic_acceptance_is_asked_for_as_a_whole(values: dict[str, Any], words: str) -> None:
    assert words in speculative_refusal(**values)


def test_adaptive_is_a_choice() -> None:
    assert speculative_refusal(adaptive=3) == "speculative_config['adaptive']=3 must be True or False."


@pytest.mark.parametrize("rates", [[], [0.5, 0.4], [0.5, 0.6, 0.4], [1.1, 0.5, 0.4], [0.5, 0.4, -0.1], ["a", "b", "c"]])
def test_synthetic_rates_fall_from_one_to_zero(rates: list[Any]) -> None:
    message = speculative_refusal(rejection_sample_method="synthetic", synthetic_acceptance_rates=rates)
    assert message.startswith(f"synthetic_acceptance_rates={rates!r} must be 3 numbers from 1 down to 0")


@pytest.mark.parametrize("length", [0.9, 4.1, "2", True, float("nan")])
def test_synthetic_length_is_one_to_all_tokens_of_a_step(length: Any) -> None:
    message = speculative_refusal(rejection_sample_method="synthetic", synthetic_acceptance_length=length)
    assert message == f"synthetic_acceptance_length={length!r} must be a number from 1 to 4."


@pytest.mark.parametrize(
    ("length", "rates"),
    [(1.0, (0.0, 0.0, 0.0)), (2.5, (1.0, 0.5, 0.0)), (3.0, (1.0, 1.0, 0.0)), (4, (1.0, 1.0, 1.0))],
)
def test_a_synthetic_length_is_spread_with_the_least_variance(length: float, rates: tuple[float, ...]) -> None:
    config = SpeculativeConfig(
        method="ngram", rejection_sample_method="synthetic", synthetic_acceptance_length=length
    )  # fmt: skip
    assert config.acceptance_rates == rates
    assert SpeculativeConfig(method="ngram").acceptance_rates is None


@pytest.mark.parametrize("method", [None, 3, ["ngram"]])
def test_method_that_is_not_a_string_is_refused(method: Any) -> None:
    assert speculative_refusal(method=method) == (
        f"speculative_config['method']={method!r} must be a string. Name a drafter, such as 'ngram'."
    )


def test_missing_method_is_refused() -> None:
    assert refusal(speculative_config={}) == "speculative_config has no 'method'. Name a drafter, such as 'ngram'."


@pytest.mark.parametrize("values", ["ngram", [], 3])
def test_speculative_config_that_is_not_a_dict_is_refused(values: Any) -> None:
    assert refusal(speculative_config=values) == (
        f"speculative_config={values!r} must be a dict. Example: {{'method': 'ngram'}}."
    )


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("num_speculative_tokens", 1, MAX_DRAFTS),
        ("max_model_len", 1, 2**31 - 1),
    ],
)
def test_speculative_number_out_of_range_is_refused(name: str, low: int, high: int) -> None:
    for value in (low - 1, high + 1, 2.0, float("nan"), "2", True):
        message = speculative_refusal(**{name: value})
        assert (
            f"speculative_config[{name!r}]={value!r} is out of range: it takes an integer from {low} to {high}. "
            in message
        )
        assert message.endswith(".")


def test_options_that_not_every_drafter_has_are_passed_on_unread() -> None:
    values = {"method": "eagle3", "num_speculative_tokens": 4, "model": "head", "aux_hidden_state_layer_ids": [1, 2]}
    assert SpeculativeConfig.from_dict(values) == SpeculativeConfig(
        method="eagle3", num_speculative_tokens=4, options={"model": "head", "aux_hidden_state_layer_ids": [1, 2]}
    )


@pytest.mark.parametrize("options", [{"prompt_lookup_max": 4}, [1], None])
def test_nested_options_are_refused_with_the_form_that_is_taken(options: Any) -> None:
    message = speculative_refusal(options=options)
    assert message.startswith("speculative_config['options'] is not an option: a drafter's own options go beside ")


def test_configs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        engine_config("model").seed = 3  # type: ignore[misc]
