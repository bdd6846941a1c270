"""Sampling parameters that a checkpoint recommends; they apply where a request says nothing."""

import logging
from dataclasses import dataclass, fields
from typing import Any

from outrider.core.sampling_params import SamplingParams

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """Fields of `SamplingParams` by name; None: the checkpoint says nothing."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields that have a value."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def params(self) -> SamplingParams:
        """Parameters of a request that says nothing. Raises RequestError for values that cannot be."""
        return SamplingParams(**self.given)

    def announce(self) -> None:
        """Log that calls without parameters differ from those of a plain `SamplingParams()`, if they do."""
        if self.given:
            _log.info(
                "generation_config.json recommends %s: this applies to calls without SamplingParams; a SamplingParams "
                "applies as it is. generation_config='none' ignores it.",
                self,
            )

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self.given.items()) or "none"
