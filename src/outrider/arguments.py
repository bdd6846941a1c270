"""Arguments that several commands share: the model, its drafter, the device; and their defaults.

Imports no part of the engine, so that help and errors in a command line are quick.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.core.errors import ConfigError

ZOO = Path(__file__).resolve().parents[2] / "zoo"
"""The small models beside the source. A checkout of the repository has them, the installed package does not."""

Model = Annotated[
    str | None,
    typer.Argument(help="Model directory in Hugging Face form. Default: zoo/tiny, with its EAGLE-3 head as drafter."),
]
Speculative = Annotated[
    str | None,
    typer.Option(
        help='Drafter as JSON, e.g. \'{"method": "ngram"}\', or none. Default: the head of zoo/tiny for it, else none.'
    ),
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cuda, rocm or cpu.")]
AttentionBackend = Annotated[str, typer.Option(help="auto, or the name of a backend.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="Maximum number of tokens of a request, prompt included. Default: the model's.")
]


def shipped(name: str) -> str:
    """Directory of the zoo's model `name`. Raises ConfigError where there is no zoo, as in an installed package."""
    directory = ZOO / name
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"the model zoo/{name} was not found at {directory}: the installed package does not contain the zoo. Pass a"
            " model directory as MODEL, or run from a checkout of the repository."
        )
    return str(directory)


def model_or_shipped(model: str | None) -> str:
    """The model of a command: `model`, else zoo/tiny. Raises ConfigError."""
    return shipped("tiny") if model is None else model


def drafter_of(model: str, given: str | None) -> dict[str, Any] | None:
    """The `speculative_config` of a command: `given`, JSON or "none", else the head of zoo/tiny for that model.

    Raises ConfigError.
    """
    if given is not None:
        return parsed_drafter(given)
    if Path(model).resolve() == (ZOO / "tiny").resolve():
        return {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
    return None


def parsed_drafter(text: str) -> dict[str, Any] | None:
    """A `speculative_config` from JSON; None for "none". Raises ConfigError."""
    if text == "none":
        return None
    remedy = """Example: '{"method": "ngram"}', or none"""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--speculative-config {text!r} is not valid JSON: {error}. {remedy}.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"--speculative-config {text!r} is not a JSON object. {remedy}.")
    return config
