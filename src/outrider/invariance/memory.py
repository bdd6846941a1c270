"""Verdicts that are kept in the user's cache folder, one file for each device, versions, kernels and model.

The folder is OUTRIDER_CACHE, else outrider/ in XDG_CACHE_HOME, else ~/.cache/outrider.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "OUTRIDER_CACHE"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelVerdict:
    """A check of the kernels on one device."""

    passes: bool
    is_quick: bool
    """Only the short form ran, and no engine check."""
    differences: tuple[str, ...] = ()


def read_verdict(key: Mapping[str, str]) -> KernelVerdict | None:
    """The verdict for exactly this key; None if there is none that can be read."""
    try:
        found = json.loads(verdict_path(key).read_text(encoding="utf-8"))
        if found["key"] != dict(key):
            return None
        differences = tuple(str(line) for line in found["differences"])
        return KernelVerdict(
            passes=found["passes"] is True, is_quick=found["quick"] is not False, differences=differences
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_verdict(key: Mapping[str, str], verdict: KernelVerdict) -> None:
    """Replace the verdict for this key. A folder that cannot be written is a warning: the next start checks again."""
    path = verdict_path(key)
    content = {
        "key": dict(key),
        "passes": verdict.passes,
        "quick": verdict.is_quick,
        "differences": list(verdict.differences),
    }
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        _log.warning("the verdict on this device's kernels is not kept: %s. Set %s to a folder.", error, FOLDER)


def verdict_path(key: Mapping[str, str]) -> Path:
    """The file for a key."""
    name = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]
    return _folder() / "verdicts" / f"{name}.json"


def _folder() -> Path:
    if chosen := os.environ.get(FOLDER):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "outrider"
