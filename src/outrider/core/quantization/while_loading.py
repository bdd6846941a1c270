"""Schemes for weights that are plain in the files and quantised while they are loaded: the option `quantization`."""

import re

from outrider.core.errors import ConfigError
from outrider.core.quantization.scheme import Quantization, Rule, Scheme

METHODS = ("fp8",)
"""Values of the option."""

_FP8 = Quantization(
    method="fp8, rounded while loading",
    is_chosen_here=True,
    rules=(
        Rule(pattern=re.compile("lm_head"), scheme=None),
        Rule(pattern=re.compile(".*"), scheme=Scheme(format="fp8", options=(("is_encoded_here", True),))),
    ),
)
"""A scale per row of weights and per token, in all layers but the head."""


def quantised_while_loading(found: Quantization | None, method: str | None, *, where: str) -> Quantization | None:
    """The schemes of a checkpoint that has `found`, with the option `quantization` of value `method`.

    Raises ConfigError if it is quantised already.
    """
    if method is None:
        return found
    assert method in METHODS, f"{method} passed the check of options"
    if found is not None:
        raise ConfigError(
            f"quantization={method!r}: the weights of {where} are quantised already ({found.method}). Leave the option"
            " unset: the checkpoint says how it is read."
        )
    return _FP8
