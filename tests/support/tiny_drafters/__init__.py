"""Tiny weights for every drafter of the package: one file per drafter, found by its name.

A file exports `write(directory, target)`: it writes what the drafter needs to the empty directory `directory`, for the
target in directory `target`, and returns the drafter's own options of `speculative_config`. A drafter that needs a
target of its own kind also exports `write_target(directory)`.
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.core import plugins
from tests.support.request_mix import EOS, VOCAB
from tests.support.tiny_models import write_tiny_model


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyDrafter:
    """A drafter with a target, both of random weights."""

    target: Path
    config: dict[str, Any]
    """`speculative_config`: the method and its own options."""


def write(method: str, directory: Path) -> TinyDrafter:
    """Write target and drafter of `method` below `directory`. The target's vocabulary is `request_mix.VOCAB`."""
    module = _module_of(method)
    target, own = directory / "target", directory / "drafter"
    own.mkdir(parents=True)
    getattr(module, "write_target", write_target)(target)
    return TinyDrafter(target=target, config={"method": method, **module.write(own, target)})


def write_target(directory: Path) -> None:
    """A Qwen3 whose text is not degenerate."""
    write_tiny_model(
        directory, "qwen3", vocab_size=VOCAB, num_hidden_layers=5, eos_token_id=EOS, seed=3, max_position_embeddings=512
    )


def _module_of(method: str) -> Any:
    package = sys.modules[__name__]
    assert method in plugins.names(package), (
        f"drafter {method!r} has no tests/support/tiny_drafters/{method}.py: add one with a function"
        " write(directory, target) that writes tiny weights to `directory` and returns the drafter's own options;"
        " `return {}` is enough for a drafter without weights or required options"
    )
    return importlib.import_module(f"{__name__}.{method}")
