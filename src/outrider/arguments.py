"""Arguments that several commands share: the model, its drafter, the device; and their defaults.

Imports no part of the engine, so that help and errors in a command line are quick.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.core.errors import ConfigError
from outrider.core.zoo import shipped, zoo

Model = Annotated[
    str | None,
    typer.Argument(help="A directory, or an id on a hub (org/name). Default: zoo/tiny, with its EAGLE-3 head."),
]
Speculative = Annotated[
    str | None,
    typer.Option(
        help='Drafter as JSON, e.g. \'{"method": "ngram"}\', or none. Default: the head of zoo/tiny for it, else none.'
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub. Default: main.")]
HfToken = Annotated[
    str | None, typer.Option(help="Access token for the hub. Default: HF_TOKEN, or the one `hf auth login` stored.")
]
DownloadDir = Annotated[
    str | None, typer.Option(help="Cache folder for models of the hub. Default: the one that HF_HOME names.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cuda, rocm or cpu.")]
AttentionBackend = Annotated[str, typer.Option(help="auto, or the name of a backend.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="Maximum number of tokens of a request, prompt included. Default: the model's.")
]


def model_or_shipped(model: str | None) -> str:
    """The model of a command: `model`, else zoo/tiny. Raises ConfigError."""
    return shipped("tiny") if model is None else model


def drafter_of(model: str, given: str | None) -> dict[str, Any] | None:
    """The `speculative_config` of a command: `given`, JSON or "none", else the head of zoo/tiny for that model.

    Raises ConfigError.
    """
    if given is not None:
        return parsed_drafter(given)
    directory = zoo()
    if directory is None:
        return None
    is_tiny = model == "zoo/tiny" or Path(model).resolve() == (directory / "tiny").resolve()
    head = str(directory / "tiny-eagle3")
    return {"method": "eagle3", "model": head, "num_speculative_tokens": 3} if is_tiny else None


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


def unusable_file(error: OSError) -> str:
    """One line on a file of a command that cannot be read or written."""
    return f"{error.filename}: {error.strerror}. Give a path that can be used here."
