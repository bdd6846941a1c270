"""A baseline file: the settings of one gate and the results of each platform. TOML, so that people can review it.

Handles files and counts only; runs no model and gives no verdict.
"""

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from outrider.gate.errors import GateError
from outrider.gate.sample import Measurement, Sample, total
from outrider.gate.toml_writer import write_toml

FORMAT = 1

COMMENT = """Acceptance baseline of `outrider gate`, written by `outrider gate record`.
In [gate], by hand: tolerance (relative), alarm_level, excluded_backends, required_memory_gib, marks.
A [[platform]] may have a tolerance of its own; the one with default = true serves platforms without an entry."""

_STEP_LETTERS = "0123456789abcdefg"
"""Number of accepted drafts of a step as one character; g is 16, the maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the run and of the verdict."""

    model: str
    speculative_config: dict[str, Any]
    num_speculative_tokens: int
    """k, pinned: rates for another k cannot be compared."""
    prompts: str
    prompts_digest: str
    all_turns: bool = False
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    tolerance: float = 0.01
    """Relative fall that is tolerated across platforms, even if it is more than noise."""
    alarm_level: float = 0.01
    """Probability that a check alarms although nothing changed, over all its tests."""
    excluded_backends: dict[str, str] = field(default_factory=dict)
    """Attention backends on which this gate does not run, each with the reason."""
    required_memory_gib: float = 0.0
    marks: list[str] = field(default_factory=list)
    """Free-form labels by which a lane selects baselines."""

    def __post_init__(self) -> None:
        if not 0.0 < self.alarm_level <= 0.01:
            raise GateError(f"alarm_level={self.alarm_level!r} is out of range: above 0, at most 0.01.")
        if not 0.0 <= self.tolerance < 1.0:
            raise GateError(f"tolerance={self.tolerance!r} is out of range: from 0 to below 1. 0.01 is the default.")


RUN = ("num_speculative_tokens", "prompts_digest", "all_turns", "max_tokens", "temperature", "seed")
"""Names of the settings that all platforms of a file share and that a check must repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformEntry:
    """Results of one platform."""

    key: dict[str, str]
    versions: dict[str, str]
    samples: tuple[Sample, ...]
    is_default: bool
    recorded: datetime.date
    tolerance: float | None = None
    """Overrides the gate's tolerance."""

    @property
    def name(self) -> str:
        """Short form of the key, for display."""
        names = ("endpoint", "device", "capability", "torch", "attention_backend")
        return " ".join(self.key[name] for name in names if name in self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The content of one baseline file."""

    settings: Settings
    entries: tuple[PlatformEntry, ...]

    def choose(self, key: Mapping[str, str]) -> tuple[PlatformEntry, str]:
        """Returns the entry to compare with, and the reason if it is not this platform's own.

        Order: the entry with this key, the same hardware with other versions, the default entry.
        """
        for entry in self.entries:
            if entry.key == key:
                return entry, ""
        same_hardware = [entry for entry in self.entries if _hardware(entry.key) == _hardware(key)]
        default = next(entry for entry in self.entries if entry.is_default)
        chosen = same_hardware[-1] if same_hardware else default
        names = [*key, *(name for name in chosen.key if name not in key)]
        differing = ", ".join(
            f"{name} {key.get(name, 'absent')} instead of {chosen.key.get(name, 'absent')}"
            for name in names
            if key.get(name) != chosen.key.get(name)
        )
        which = "one of the same hardware" if same_hardware else "the default entry"
        return chosen, f"this platform has no entry of its own; compared with {which} ({chosen.name}): {differing}"

    def with_entry(self, measurement: Measurement) -> "Baseline":
        """Returns a copy with this platform's entry added, or replaced if its key exists."""
        replaced = next((entry for entry in self.entries if entry.key == measurement.key), None)
        new = PlatformEntry(
            key=measurement.key,
            versions=measurement.versions,
            samples=measurement.samples,
            is_default=replaced.is_default if replaced else not self.entries,
            recorded=datetime.date.today(),
            tolerance=replaced.tolerance if replaced else None,
        )
        if replaced is None:
            return replace(self, entries=(*self.entries, new))
        return replace(self, entries=tuple(new if entry is replaced else entry for entry in self.entries))


def _hardware(key: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(key.get(name) for name in ("endpoint", "device", "machine", "capability", "dtype"))


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Replace the file."""
    settings = {entry.name: getattr(baseline.settings, entry.name) for entry in fields(Settings)}
    document = {
        "format": FORMAT,
        "gate": settings,
        "platform": [_entry_values(entry) for entry in baseline.entries],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_toml(document, comment=COMMENT))


def _entry_values(entry: PlatformEntry) -> dict[str, Any]:
    stats = total(entry.samples)
    values: dict[str, Any] = {"default": entry.is_default, "recorded": entry.recorded}
    if entry.tolerance is not None:
        values["tolerance"] = entry.tolerance
    return values | {
        "mean_acceptance_length": round(stats.mean_acceptance_length, 6),
        "acceptance_rate_per_pos": [round(rate, 6) for rate in stats.acceptance_rate_per_pos],
        "num_drafts": stats.num_drafts,
        "num_accepted_tokens": stats.num_accepted_tokens,
        "key": entry.key,
        "versions": entry.versions,
        "request": [_sample_values(sample) for sample in entry.samples],
    }


_PLAIN = (
    "prompt",
    "turn",
    "category",
    "seed",
    "prompt_digest",
    "logits_digest",
    "text_digest",
    "num_tokens",
    "num_steps",
    "num_drafts",
    "num_draft_tokens",
    "num_accepted_tokens",
)
"""Fields of `Sample` that are written unchanged."""


def _sample_values(sample: Sample) -> dict[str, Any]:
    values = {name: getattr(sample, name) for name in _PLAIN if getattr(sample, name) != ""}
    values["tokens_digest"] = sample.tokens_digest
    values["num_accepted_tokens_per_pos"] = list(sample.num_accepted_tokens_per_pos)
    values["accepted_by_step"] = "".join(_STEP_LETTERS[count] for count in sample.accepted_by_step)
    values["token_ids"] = list(sample.token_ids)
    return values


def read_baseline(path: Path) -> Baseline:
    """Reads a file and checks its consistency. Raises GateError that names the file and the key."""
    if not path.is_file():
        raise GateError(f"--baseline {path} is not a file. Make it with `outrider gate record`.")
    try:
        document = tomllib.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise GateError(f"{path}: format={document.get('format')!r} is not {FORMAT}. Record it again.")
        known = {entry.name for entry in fields(Settings)}
        unknown = set(document["gate"]) - known
        if unknown:
            raise GateError(f"{path}: [gate] has {sorted(unknown)}, which is not known. Known: {sorted(known)}.")
        settings = Settings(**document["gate"])
        entries = tuple(_entry(values) for values in document["platform"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, GateError):
            raise
        raise GateError(f"{path} cannot be read as a baseline: {error!r}. Record it again.") from error
    if sum(entry.is_default for entry in entries) != 1:
        raise GateError(f"{path}: {sum(e.is_default for e in entries)} entries have default = true. Mark one.")
    for entry in entries:
        _check(entry, path)
    return Baseline(settings=settings, entries=entries)


def _entry(values: dict[str, Any]) -> PlatformEntry:
    return PlatformEntry(
        key=values["key"],
        versions=values["versions"],
        samples=tuple(_sample(request) for request in values["request"]),
        is_default=values["default"],
        recorded=values["recorded"],
        tolerance=values.get("tolerance"),
    )


def _sample(values: dict[str, Any]) -> Sample:
    sample = Sample(
        num_accepted_tokens_per_pos=tuple(values["num_accepted_tokens_per_pos"]),
        accepted_by_step=tuple(_STEP_LETTERS.index(letter) for letter in values["accepted_by_step"]),
        token_ids=tuple(values["token_ids"]),
        **{name: values[name] for name in _PLAIN if name in values},
    )
    if values["tokens_digest"] != sample.tokens_digest:
        raise GateError(f"prompt {sample.prompt}: tokens_digest does not belong to token_ids. Record again.")
    return sample


def _check(entry: PlatformEntry, path: Path) -> None:
    """Checks that redundant counts agree, so that a hand-edited count is found."""
    for sample in entry.samples:
        per_pos = sample.num_accepted_tokens_per_pos
        steps = sample.accepted_by_step
        disagree = (
            (per_pos and sum(per_pos) != sample.num_accepted_tokens)
            or (steps and sum(steps) != sample.num_accepted_tokens)
            or (steps and len(steps) != sample.num_steps)
            or (sample.token_ids and len(sample.token_ids) != sample.num_tokens)
        )
        if disagree:
            raise GateError(f"{path}: the counts of prompt {sample.prompt} contradict each other. Record it again.")
