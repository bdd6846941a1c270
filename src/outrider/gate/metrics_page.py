"""Reads a server's /metrics page: the Prometheus text format, and the counter names of vLLM, SGLang and Outrider.

vLLM and Outrider count drafts, draft tokens and accepted tokens, in total and per position. SGLang counts verify calls
only: accepted tokens follow from its output tokens, and there are no rates per position.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from outrider.gate.errors import GateError

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\]|\\.)*)"')
_ESCAPES = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One sample line of a page."""

    name: str
    labels: Mapping[str, str]
    value: float


def parse_page(text: str) -> list[Series]:
    """Parses the samples of a page in Prometheus' text format; raises GateError at a line that is not a sample."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _SAMPLE.match(line.strip())
        if match is None:
            raise GateError(f"/metrics, line {number}, is not a sample: {line!r}. Is this a Prometheus page?")
        labels = {
            entry["name"]: _ESCAPES.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], entry["value"])
            for entry in _LABEL.finditer(match["labels"] or "")
        }
        found.append(Series(name=match["name"], labels=labels, value=float(match["value"])))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Counter names of one kind of server."""

    running: str
    waiting: str
    generation_tokens: str
    finished: str
    drafts: str
    draft_tokens: str | None
    accepted: str | None
    accepted_per_pos: str | None


def _like_vllm(prefix: str) -> Names:
    return Names(
        running=f"{prefix}:num_requests_running",
        waiting=f"{prefix}:num_requests_waiting",
        generation_tokens=f"{prefix}:generation_tokens_total",
        finished=f"{prefix}:request_success_total",
        drafts=f"{prefix}:spec_decode_num_drafts_total",
        draft_tokens=f"{prefix}:spec_decode_num_draft_tokens_total",
        accepted=f"{prefix}:spec_decode_num_accepted_tokens_total",
        accepted_per_pos=f"{prefix}:spec_decode_num_accepted_tokens_per_pos_total",
    )


NAMES = {
    "vllm": _like_vllm("vllm"),
    "outrider": _like_vllm("outrider"),
    "sglang": Names(
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        generation_tokens="sglang:generation_tokens_total",
        finished="sglang:num_requests_total",
        drafts="sglang:spec_verify_calls_total",
        draft_tokens=None,
        accepted=None,
        accepted_per_pos=None,
    ),
}
"""Counter names by their prefix, which also identifies the kind of server."""

POSITION = "position"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading of a server's counters, all since its start."""

    kind: str
    running: int
    waiting: int
    generation_tokens: int
    finished: int
    drafts: int
    draft_tokens: int | None
    accepted: int | None
    accepted_per_pos: tuple[int, ...]

    @property
    def is_idle(self) -> bool:
        return self.running == 0 and self.waiting == 0

    def counters(self) -> tuple[int, ...]:
        """The values that may only increase."""
        return (
            self.generation_tokens,
            self.finished,
            self.drafts,
            self.draft_tokens or 0,
            self.accepted or 0,
            *self.accepted_per_pos,
        )


def read_page(text: str, *, model: str) -> Reading:
    """Returns a page's counters for `model`, summed over its engines. Raises GateError if a counter is missing."""
    series = parse_page(text)
    kinds = [kind for kind in NAMES if any(entry.name.startswith(f"{kind}:") for entry in series)]
    if len(kinds) != 1:
        raise GateError(
            f"/metrics has names of {kinds or 'no known server'}; one of {', '.join(NAMES)} is needed. "
            "Start SGLang with --enable-metrics."
        )
    (kind,) = kinds
    names = NAMES[kind]
    ours = [entry for entry in series if _counts(entry, model)]

    def value(name: str) -> int:
        found = [entry.value for entry in ours if entry.name == name]
        if not found:
            raise GateError(
                f"/metrics has no {name} for model {model!r}: the server does not speculate, is too old to say, or "
                "serves another model."
            )
        return round(sum(found))

    per_pos: dict[int, int] = {}
    for entry in ours:
        if entry.name == names.accepted_per_pos:
            position = int(entry.labels[POSITION])
            per_pos[position] = per_pos.get(position, 0) + round(entry.value)
    if sorted(per_pos) != list(range(len(per_pos))):
        raise GateError(f"{names.accepted_per_pos} has the positions {sorted(per_pos)}: some are missing.")
    return Reading(
        kind=kind,
        running=value(names.running),
        waiting=value(names.waiting),
        generation_tokens=value(names.generation_tokens),
        finished=value(names.finished),
        drafts=value(names.drafts),
        draft_tokens=value(names.draft_tokens) if names.draft_tokens else None,
        accepted=value(names.accepted) if names.accepted else None,
        accepted_per_pos=tuple(per_pos[position] for position in range(len(per_pos))),
    )


def _counts(entry: Series, model: str) -> bool:
    """True for a sample of `model` to count: other tensor-parallel ranks repeat rank 0, data-parallel ranks do not."""
    is_ours = entry.labels.get("model_name", model) == model
    return is_ours and all(entry.labels.get(rank, "0") == "0" for rank in ("tp_rank", "pp_rank"))
