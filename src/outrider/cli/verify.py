"""The command `outrider verify`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from outrider.arguments import AttentionBackend, Device, MaxModelLen, Model, Speculative, drafter_of, model_or_shipped
from outrider.config_file import ConfigFile
from outrider.core.errors import ConfigError
from outrider.progress import working
from outrider.verify.run import verify as run


def verify(
    model: Model = None,
    config: ConfigFile = None,
    speculative_config: Speculative = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only a short form of the kernels' checks, in a few seconds.")
    ] = False,
    output_json: Annotated[Path | None, typer.Option(help="File to write all that was found to.")] = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Check that kernels and engine are exact on this device, at the shapes of a model. Exit code 1: they are not."""
    if output_json is not None and not output_json.parent.is_dir():
        raise ConfigError(
            f"--output-json {output_json}: the folder {output_json.parent} does not exist. Make it, or choose another."
        )
    model = model_or_shipped(model)
    with working(f"Checking {model}"):
        verdict = run(
            model,
            speculative_config=drafter_of(model, speculative_config),
            quick=quick,
            device=device,
            attention_backend=attention_backend,
            max_model_len=max_model_len,
        )
    Console(highlight=False).print(verdict.shown())
    if output_json is not None:
        output_json.write_text(json.dumps(verdict.as_dict(), indent=2) + "\n", encoding="utf-8")
    if not verdict.passes:
        raise typer.Exit(1)
