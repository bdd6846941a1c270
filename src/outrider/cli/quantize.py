"""The command `outrider quantize`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from outrider.arguments import DownloadDir, HfToken, Revision
from outrider.loading.hub_model import HubModel
from outrider.loading.model_source import local_path
from outrider.quantizing.target import find_target
from outrider.quantizing.write import quantize as write


def quantize(
    model: Annotated[str, typer.Argument(help="Directory or id of a plain model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New directory for the quantised model.")],
    form: Annotated[
        str, typer.Option("--format", help="fp8-dynamic, fp8-block, or w4a16 (4 bits in groups of 128).")
    ] = "fp8-dynamic",
    revision: Revision = None,
    hf_token: HfToken = None,
    download_dir: DownloadDir = None,
) -> None:
    """Write a quantised copy of a model in the form of compressed-tensors: weights rounded to nearest, without data."""
    target = find_target(form)
    source = local_path(HubModel(name=model, revision=revision, token=hf_token, cache=download_dir))
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("files")
        write(source, target, output, done=lambda count, total: progress.update(task, completed=count, total=total))
    console.print(output, markup=False, soft_wrap=True)
