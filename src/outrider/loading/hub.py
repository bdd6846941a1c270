"""Models of a hub by id: files come from its cache, or are downloaded, through the huggingface_hub library.

The library's environment variables apply: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE,
HF_HUB_DISABLE_PROGRESS_BARS. Only files that can be read are taken: no pickles (but the single one of an old
drafter), no code, nothing in subfolders.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from outrider.core.errors import CheckpointError
from outrider.loading.gguf.file import SUFFIX
from outrider.loading.hub_model import HubModel

_SETTINGS = ("*.json", "*.jinja")
_WEIGHTS = "*.safetensors"
_SKIPPED = ("*/*", "consolidated*", "*.index.fp*.json")
"""Files in subfolders, and second copies of the weights in other forms."""
_PICKLE = "pytorch_model.bin"


def fetch(model: HubModel, *, has_weights: bool = True, is_drafter: bool = False) -> str:
    """Local path of the model's files, which are downloaded where the cache lacks them: a directory, or the GGUF file
    of an id with a quantization.

    has_weights: False takes the settings alone of a directory. is_drafter: the weights may be one pickle of tensors.
    Raises CheckpointError with the reason and the remedy.
    """
    if model.quantization:
        return _gguf_file(model)
    directory = Path(_snapshot(model, (*_SETTINGS, _WEIGHTS) if has_weights else _SETTINGS))
    if has_weights and not any(directory.glob(_WEIGHTS)):
        if is_drafter:
            directory = Path(_snapshot(model, (*_SETTINGS, _PICKLE)))
        if not (is_drafter and (directory / _PICKLE).is_file()):
            raise CheckpointError(f"{_shown(model)} has no {_WEIGHTS}. {_other_forms(model)}")
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{_shown(model)} has no config.json. {_other_forms(model)}")
    return str(directory)


def _gguf_file(model: HubModel) -> str:
    """Local path of the one file whose name ends with the quantization."""
    ends = {form(model.quantization) for form in (str, str.upper, str.lower)}
    patterns = tuple(sorted(f"*{end}{SUFFIX}" for end in ends))
    directory = Path(_snapshot(model, patterns))
    found = sorted(path for pattern in patterns for path in directory.glob(pattern))
    if len(found) == 1:
        return str(found[0])
    if found:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(
            f"{_shown(model)} is not one file but {names}. Give more of the name's end after the colon."
        )
    raise CheckpointError(
        f"{_shown(model)}: no file there ends with {model.quantization}{SUFFIX}. {_other_forms(model)}"
    )


def _snapshot(model: HubModel, patterns: tuple[str, ...]) -> str:
    """The directory of a snapshot with the files that match `patterns`."""
    try:
        return str(
            snapshot_download(
                model.repository,
                revision=model.revision,
                token=model.token,
                cache_dir=model.cache,
                allow_patterns=list(patterns),
                ignore_patterns=list(_SKIPPED),
            )
        )
    except Exception as error:
        raise CheckpointError(f"{_shown(model)} {_reason(model, error)}") from error


def _reason(model: HubModel, error: Exception) -> str:
    """The reason why a model is not available, and the remedy, as the end of a sentence."""
    hub, again = constants.ENDPOINT, _pull_command(model)
    if isinstance(error, GatedRepoError):
        return (
            f"is gated at {hub}: access must be granted first. Accept its conditions on its page, then give a token of"
            " that account: HF_TOKEN, hf_token, or `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"was found neither as a directory here nor as a model at {hub}. Check the spelling; a"
            " private model needs a token: HF_TOKEN, hf_token, or `hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {model.revision!r} at {hub}. Leave revision unset for the main branch."
    if isinstance(error, LocalEntryNotFoundError):
        is_partial = isinstance(error, IncompleteSnapshotError)
        missing = _missing_files(str(error)) if is_partial else ""
        found = f"is not complete in the cache{missing}" if is_partial else "is not in the cache"
        if constants.HF_HUB_OFFLINE:
            return (
                f"{found} {model.cache or constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set. Download it where there"
                f" is a network ({again}), or unset HF_HUB_OFFLINE."
            )
        return (
            f"{found} {model.cache or constants.HF_HUB_CACHE}, and {hub} cannot be reached. Try again with a network,"
            f" or copy the cache of a machine that has run `{again}` and set HF_HOME to it."
        )
    if isinstance(error, HFValidationError):
        return f"is not the id of a model: {error}. An id is org/name."
    if isinstance(error, HfHubHTTPError):
        return f"cannot be downloaded from {hub}: {_first_line(error)}. Try again with `{again}`."
    return f"cannot be downloaded from {hub}: {error!r}. Check network and disk, and try again with `{again}`."


def _missing_files(message: str) -> str:
    """The names of missing files, as the hub library's message lists them."""
    found = re.search(r"missing \((?P<names>.+?)\)\. ", message)
    return f" (missing: {found['names']})" if found else ""


def _other_forms(model: HubModel) -> str:
    """The remedy for a model without the files that were looked for."""
    try:
        names: list[str] = HfApi(token=model.token).list_repo_files(model.repository, revision=model.revision)
    except Exception:
        names = []
    files = [name for name in names if name.endswith(SUFFIX) and "/" not in name]
    if files:
        end = re.split(r"[-.](?=[^-.]*$)", files[0].removesuffix(SUFFIX))[-1]
        return f"It has {', '.join(files[:8])}. Name one by its end: {model.repository}:{end}"
    return "Give a model that has config.json and safetensors."


def _pull_command(model: HubModel) -> str:
    return f"outrider pull {model.name}" + (f" --revision {model.revision}" if model.revision else "")


def _shown(model: HubModel) -> str:
    return repr(model.name) + (f" (revision {model.revision!r})" if model.revision else "")


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
