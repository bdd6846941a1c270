"""The settings of a run: what decides the load on the server, and where and when it ran."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INFINITE = "inf"
"""The rate of requests that are all sent at once, in JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The options of a run. Two runs are comparable if they agree in everything but address and date."""

    model: str | None
    """None until the server has named its first model."""
    base_url: str
    date: str
    """YYYYMMDD-HHMMSS."""
    endpoint: str
    dataset_name: str
    num_prompts: int
    num_warmups: int
    request_rate: float
    """Requests per second; infinite if all are sent at once."""
    burstiness: float
    max_concurrency: int | None
    seed: int
    goodput: Mapping[str, float]
    """Limits for a good request in milliseconds, by the name of the latency."""
    fields: Mapping[str, Any]
    """Fields that every request has beside its prompt: temperature, ignore_eos and those of --extra-body."""
    requests_sha256: str
    """`fingerprint` of the requests: it also covers the dataset, the lengths and the tokenizer."""

    @property
    def load(self) -> str:
        """Rate and concurrency, in short."""
        concurrency = f"-concurrency{self.max_concurrency}" if self.max_concurrency is not None else ""
        return f"{self.request_rate:g}qps{concurrency}"

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON values, by the keys of `vllm bench serve` where it has them."""
        return {
            "date": self.date,
            "base_url": self.base_url,
            "endpoint": self.endpoint,
            "model_id": self.model,
            "dataset_name": self.dataset_name,
            "num_prompts": self.num_prompts,
            "num_warmups": self.num_warmups,
            "seed": self.seed,
            "request_rate": self.request_rate if self.request_rate != float("inf") else INFINITE,
            "burstiness": self.burstiness,
            "max_concurrency": self.max_concurrency,
            "goodput": dict(self.goodput),
            "request_fields": dict(self.fields),
            "requests_sha256": self.requests_sha256,
        }


DECISIVE = (
    "model_id",
    "endpoint",
    "dataset_name",
    "num_prompts",
    "num_warmups",
    "seed",
    "request_rate",
    "burstiness",
    "max_concurrency",
    "goodput",
    "request_fields",
    "requests_sha256",
)
"""Keys of `Setting.to_dict` in which two runs must agree to be compared."""


def fingerprint(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A hash of requests, in hex: equal for equal requests in the same order."""
    return hashlib.sha256(json.dumps(bodies, sort_keys=True).encode()).hexdigest()
