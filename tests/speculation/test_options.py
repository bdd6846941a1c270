"""Every drafter takes its own options and refuses all others by name, before any weight is loaded."""

import json
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from outrider import LLM, ConfigError, cli
from outrider.core import plugins
from outrider.core.config import SpeculativeConfig
from outrider.runtime import worker
from outrider.speculation import drafters
from outrider.speculation.drafter import find_drafter
from outrider.speculation.options import NoOptions, read_options
from tests.support import drafters as test_drafters

VALUES: dict[str, Any] = {
    "model": "/a/directory",
    "aux_hidden_state_layer_ids": [1, 2],
    "norm_output": "logits",
    "prompt_lookup_min": 3,
    "prompt_lookup_max": 3,
    "answers": [[1, 2]],
    "probability": 0.5,
}
"""A right value of each option that a drafter has."""

FROZEN: dict[str, Any] = VALUES | {"aux_hidden_state_layer_ids": (1, 2), "answers": ((1, 2),)}
"""The values as a drafter gets them."""

MODULES = {name: plugins.find(drafters, name, what="drafter") for name in plugins.names(drafters)}
MODULES |= {
    f"tests.support.drafters.{name}": plugins.find(test_drafters, name, what="drafter")
    for name in plugins.names(test_drafters)
}
SHARED = ", ".join(SpeculativeConfig.shared_options())


def options_of(module: ModuleType) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(getattr(module, "Options", NoOptions)))


def required(method: str) -> dict[str, Any]:
    entries = fields(getattr(MODULES[method], "Options", NoOptions))
    return {
        entry.name: VALUES[entry.name]
        for entry in entries
        if entry.default is MISSING and entry.default_factory is MISSING
    }


def options(method: str, **values: Any) -> Any:
    return find_drafter(SpeculativeConfig.from_dict({"method": method, **values})).options


def refusal(method: str, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        options(method, **values)
    return str(caught.value)


OTHERS = [
    (method, name)
    for method, module in MODULES.items()
    for name in sorted({option for other in MODULES.values() for option in options_of(other)})
    if name not in options_of(module)
]


def test_every_option_of_a_drafter_has_a_value_here() -> None:
    assert {name for module in MODULES.values() for name in options_of(module)} == VALUES.keys()
    assert len(OTHERS) >= 2 * len(MODULES)


@pytest.mark.parametrize("method", MODULES)
def test_a_drafter_takes_its_own_options(method: str) -> None:
    names = options_of(MODULES[method])
    taken = options(method, **{name: VALUES[name] for name in names})
    assert {name: getattr(taken, name) for name in names} == {name: FROZEN[name] for name in names}


@pytest.mark.parametrize(("method", "name"), OTHERS)
def test_an_option_of_another_drafter_is_refused_by_name(method: str, name: str) -> None:
    message = refusal(method, **required(method), **{name: VALUES[name]})
    own = ", ".join(options_of(MODULES[method])) or "no options of its own"
    assert message == (
        f"speculative_config: method {method!r} does not take {name}={VALUES[name]!r}. It takes {own}; every method"
        f" takes {SHARED}. Remove the others."
    )


@pytest.mark.parametrize("method", MODULES)
@pytest.mark.parametrize("name", ["tokens", "num_speculative_token", "draft_tensor_parallel_size"])
def test_an_unknown_option_is_refused_by_name(method: str, name: str) -> None:
    assert f"method {method!r} does not take {name}=1. It takes " in refusal(method, **required(method), **{name: 1})


def test_all_wrong_options_are_named_at_once() -> None:
    message = refusal("ngram", model="/nope", aux_hidden_state_layer_ids=[1])
    assert "method 'ngram' does not take model='/nope', aux_hidden_state_layer_ids=[1]. It takes prompt_look" in message


@pytest.mark.parametrize("method", [method for method in MODULES if required(method)])
def test_an_option_that_is_needed_is_named(method: str) -> None:
    for name in required(method):
        others = {key: value for key, value in required(method).items() if key != name}
        assert refusal(method, **others) == (
            f"speculative_config: method {method!r} needs {name!r}. Add it: {{'method': {method!r}, {name!r}: …}}."
        )


@pytest.mark.parametrize("method", ["draft_model", "eagle", "eagle3", "mtp"])
@pytest.mark.parametrize("value", [3, {"path": "head"}, True])
def test_a_directory_must_be_a_string(method: str, value: Any) -> None:
    assert refusal(method, model=value) == (
        f"speculative_config['model']={value!r} must be a string: the path of a directory."
    )


@pytest.mark.parametrize("name", ["prompt_lookup_min", "prompt_lookup_max"])
@pytest.mark.parametrize("value", [0, 65, 2.0, float("nan"), "2", True, None])
def test_lookup_sizes_are_integers_from_1_to_64(name: str, value: Any) -> None:
    assert f"speculative_config[{name!r}]={value!r} is out of range: it takes an integer from 1 to 64. " in refusal(
        "ngram", **{name: value}
    )


def test_lookup_sizes_in_the_wrong_order_are_refused() -> None:
    assert refusal("ngram", prompt_lookup_min=5, prompt_lookup_max=4) == (
        "prompt_lookup_min=5 is above prompt_lookup_max=4. Lower prompt_lookup_min."
    )


@pytest.mark.parametrize("layers", [3, "1,2", [1, "2"], [1.5], [-1], [True], []])
def test_target_layers_are_a_list_of_numbers(layers: Any) -> None:
    message = refusal("eagle3", model="head", aux_hidden_state_layer_ids=layers)
    assert f"speculative_config['aux_hidden_state_layer_ids']={layers!r} must be a list of layer numbers" in message


def test_long_values_are_shortened_in_the_error() -> None:
    assert len(refusal("ngram", answers=[[1, 2, 3] * 1000] * 100)) < 500


@pytest.mark.parametrize("kind", [5, dict, type("Options", (), {})])
def test_options_that_are_not_a_dataclass_are_refused(kind: Any) -> None:
    module = ModuleType("a_drafter")
    module.Options = kind  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="its Options is not a dataclass"):
        read_options(module, SpeculativeConfig(method="a_drafter"))


ZOO = Path(__file__).parents[2] / "zoo"
WRONG = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "prompt_lookup_max": 9}
MESSAGE = (
    "speculative_config: method 'eagle3' does not take prompt_lookup_max=9. It takes model, aux_hidden_state_layer_ids,"
    " norm_output;"
    f" every method takes {SHARED}. Remove the others."
)


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading anything fails the test."""

    def load(*arguments: object, **options: object) -> None:
        pytest.fail("weights are loaded before the options are checked")

    monkeypatch.setattr(worker, "load_model", load)


@pytest.mark.usefixtures("without_weights")
def test_an_engine_refuses_before_it_loads_weights() -> None:
    with pytest.raises(ConfigError) as caught:
        LLM(str(ZOO / "tiny"), speculative_config=WRONG)
    assert str(caught.value) == MESSAGE


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("command", ["info", "generate"])
def test_the_command_line_says_the_same(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [] if command == "info" else ["--prompt", "a prompt"]
    monkeypatch.setattr(sys, "argv", ["outrider", command, *prompts, "--speculative-config", json.dumps(WRONG)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert " ".join(capsys.readouterr().err.split()) == f"outrider: {MESSAGE}"


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        options("ngram").prompt_lookup_min = 3
