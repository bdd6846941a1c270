"""Turns tensor names in checkpoints into names of modules.

Pieces of fused layers are not named here: a layer that is stacked from several tensors says so itself (`pieces`).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that say who saved a checkpoint, not what a tensor is."""

_IGNORED = re.compile(r"(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$")
"""Buffers of older releases that follow from the config."""


def is_ignored(name: str) -> bool:
    """True for tensors that hold nothing to load."""
    return _IGNORED.search(name) is not None


def bare_name(name: str) -> str:
    """The name without the prefixes that say who saved it."""
    while wrapper := next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), None):
        name = name[len(wrapper) :]
    return name


def modules_in_files(names: Iterable[str], renames: Mapping[str, str]) -> Mapping[str, str]:
    """Name of a module -> its name in the files, for the modules of all tensors `names`."""
    return {module_name(name, renames).rpartition(".")[0]: name.rpartition(".")[0] for name in names}


def module_name(name: str, renames: Mapping[str, str]) -> str:
    """The name inside the module: wrappers stripped, then leading parts replaced by `renames`."""
    name = bare_name(name)
    for old, new in renames.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def is_named(directory: Path, marks: Iterable[str]) -> bool:
    """True if one of `marks`, in lower case, is part of the model's name: that of its directory, or of its folder in
    the cache of a hub."""
    for path in (directory.absolute(), directory.resolve()):
        name = path.parts[-3] if len(path.parts) > 2 and path.parts[-2] == "snapshots" else path.name
        if any(mark in name.lower() for mark in marks):
            return True
    return False
