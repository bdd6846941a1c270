"""The command `outrider pull`."""

from typing import Annotated

import typer
from rich.console import Console

from outrider.arguments import DownloadDir, HfToken, Revision
from outrider.loading.hub_model import HubModel
from outrider.loading.model_source import local_path


def pull(
    models: Annotated[list[str], typer.Argument(help="Ids of models or drafters on the hub (org/name).")],
    revision: Revision = None,
    hf_token: HfToken = None,
    download_dir: DownloadDir = None,
) -> None:
    """Download models or drafters of a hub into its cache, and print where they are."""
    console = Console(highlight=False)
    for name in models:
        model = HubModel(name=name, revision=revision, token=hf_token, cache=download_dir)
        console.print(local_path(model, is_drafter=True), markup=False, soft_wrap=True)
