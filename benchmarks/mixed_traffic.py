"""Workload D: prompts and decoding mixed, as a server meets them, through every way to the engine; vLLM's too.

Llama 8B with random weights, prompts of 64 to 1024 random tokens and outputs of 32 to 480 (uniform), greedy,
ignore_eos, at most 128 requests at once, no prefix cache, max_model_len 8192. EAGLE-3 drafts 3 tokens that are accepted
at the rates 0.75 / 0.55 / 0.40, whatever they are. "384 at once" submits all requests together; "20 a second" sends
them as a Poisson process for about 12 s; "arriving" lets 32 requests of 512 tokens decode while four prompts of 4096
come in. Prompts and times come from fixed seeds, so every engine and way gets the same. With random weights the speed
of `--shape experts` depends on the tokens, which choose the experts: engines are comparable at equal routing only.

First token, time per output token (mean over requests, first token excluded) and whole request are as `outrider bench
serve` defines them. `replayed` is the share of the engine's steps that were replayed as graphs. Between tokens: time
between two deliveries of a running request, each of one step; `meanwhile` is from the arrival of the prompts to the
last one's first token.

Each way starts an engine for each drafter, warms it up with 128 requests, and runs all parts on it. `--via llm` is
`LLM.generate`, for requests at once only; `engine` the engine's process, `async` `AsyncLLM`, `http` a server with its
client in another process. A way that this machine lacks something for is named and left out.

    PYTHONPATH=src python3 -m benchmarks.mixed_traffic [--parts at-once,rate,arriving] [--rates 12,20]
        [--speculate none,eagle3] [--via llm,engine,async,http] [--shape llama-8b|experts|hybrid|long-prompts|zoo]
        [--engine outrider|vllm] [--max-num-batched-tokens 2048] [--save NAME]

`--engine vllm` needs an environment with vLLM 0.26 beside this repository's requirements (`pip install vllm==0.26.0`,
then `PYTHONPATH=src`). That part was written from vLLM's documentation and source and has not been run by this
repository's tests, which do not install vLLM.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Table, progress, save
from benchmarks.traffic import requests
from benchmarks.traffic.loads import Figures, Interruption, interrupt, run_offline, run_online
from benchmarks.traffic.shapes import DRAFTERS, PARTS, SHAPES, Shape
from benchmarks.traffic.vllm_ways import vllm_way
from benchmarks.traffic.ways import Offline, Online, Unavailable, outrider_way

WAYS = ("llm", "engine", "async", "http")
LOAD_COLUMNS = (
    "drafter", "via", "load", "output tokens/s", "first token p50 / p99 ms", "ms per output token",
    "whole request p50 / p99 ms", "replayed",
)  # fmt: skip
ARRIVING_COLUMNS = (
    "drafter", "via", "ms between tokens before", "meanwhile p50", "meanwhile p99", "last first token ms", "replayed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Parts to run, from the command line."""

    engine: str
    shape: Shape
    parts: tuple[str, ...]
    drafters: tuple[str, ...]
    ways: tuple[str, ...]
    options: dict[str, Any]
    """Further options of the engine."""


class Report:
    """The tables, and the ways that were left out."""

    def __init__(self, choice: Choice) -> None:
        title = f"{choice.shape.title}, {choice.engine}"
        has_load = {"at-once", "rate"} & {*choice.parts}
        self.loads = Table(title, LOAD_COLUMNS) if has_load else None
        self._arriving: Table | None = None
        self._title = (
            f"{title}: {choice.shape.num_arriving} prompts of {choice.shape.arriving_len} tokens arrive while "
            f"{choice.shape.num_running} requests decode"
        )
        self._interrupted: list[tuple[object, ...]] = []
        self.left_out: list[str] = []

    def add_load(self, drafter: str, via: str, load: str, figures: Figures) -> None:
        assert self.loads is not None
        self.loads.add(
            drafter,
            via,
            load,
            f"{figures.output_tokens_per_s:.0f}",
            _pair(figures.ttft),
            f"{figures.tpot:.2f}" if figures.tpot is not None else "–",
            _pair(figures.e2el),
            _percent(figures.replayed),
        )

    def add_interruption(self, drafter: str, via: str, found: Interruption) -> None:
        cells = (
            f"{found.before:.2f}",
            f"{found.meanwhile:.1f}",
            f"{found.meanwhile_p99:.1f}",
            f"{found.last_ttft:.0f}",
            _percent(found.replayed),
        )
        progress(f"arriving, {drafter}, {via}: {' '.join(cells)}")
        self._interrupted.append((drafter, via, *cells))

    def leave_out(self, drafter: str, via: str, reason: str) -> None:
        self.left_out.append(f"Left out: {via} with drafter {drafter}: {reason}.")
        progress(self.left_out[-1])

    def tables(self) -> list[Table]:
        """All tables; prints the last one."""
        tables = [self.loads] if self.loads is not None else []
        if self._interrupted:
            arriving = Table(self._title, ARRIVING_COLUMNS)
            for cells in self._interrupted:
                arriving.add(*cells)
            tables.append(arriving)
        return tables


def run(choice: Choice, directory: Path) -> Report:
    """All parts of all configurations."""
    report = Report(choice)
    model = choice.shape.write(directory)
    make = outrider_way if choice.engine == "outrider" else vllm_way
    for drafter in choice.drafters:
        options = choice.shape.options(model, drafter, **choice.options)
        for via in choice.ways:
            progress(f"{choice.engine}, drafter {drafter}, via {via}")
            try:
                way = make(via, model.target, options)
                if via == "llm":
                    _run_offline(way, choice, drafter, report)  # type: ignore[arg-type]
                else:
                    asyncio.run(_run_online(way, choice, drafter, via, report))  # type: ignore[arg-type]
            except Unavailable as reason:
                report.leave_out(drafter, via, str(reason))
    return report


def _run_offline(way: Offline, choice: Choice, drafter: str, report: Report) -> None:
    if "at-once" not in choice.parts:
        raise Unavailable("LLM.generate takes all requests at once; it has no part of those chosen")
    way.start()
    try:
        run_offline(way, requests.warm_up(choice.shape))
        figures = run_offline(way, requests.at_once(choice.shape))
        report.add_load(drafter, "llm", f"{figures.num_requests} at once", figures)
    finally:
        way.stop()


async def _run_online(way: Online, choice: Choice, drafter: str, via: str, report: Report) -> None:
    shape = choice.shape
    await way.start()
    try:
        await run_online(way, requests.warm_up(shape))
        if "at-once" in choice.parts:
            figures = await run_online(way, requests.at_once(shape))
            report.add_load(drafter, via, f"{figures.num_requests} at once", figures)
        if "rate" in choice.parts:
            for rate in shape.rates:
                figures = await run_online(way, *requests.at_rate(shape, rate))
                report.add_load(drafter, via, f"{rate:g} a second", figures)
        if "arriving" in choice.parts:
            for _ in range(2):  # the first is a warm-up for prompts of this length
                found = await interrupt(way, *requests.running_and_arriving(shape), num_watched=shape.num_watched)
            report.add_interruption(drafter, via, found)
    finally:
        await way.stop()


def choose(arguments: Sequence[str] | None = None) -> tuple[Choice, str | None]:
    """The choice of a command line, and the name to save under."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("outrider", "vllm"), default="outrider")
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--parts", type=_list_of(PARTS), help="default: all that the shape has")
    parser.add_argument("--rates", help="requests per second; default: those of the shape")
    parser.add_argument("--speculate", type=_list_of(DRAFTERS), help="default: every drafter of the shape")
    parser.add_argument("--via", type=_list_of(WAYS), default=WAYS)
    parser.add_argument("--max-num-batched-tokens", type=int, help="default: the engine's own choice")
    parser.add_argument("--save", help="also write benchmarks/results/NAME.md")
    found = parser.parse_args(arguments)
    shape = SHAPES[found.shape]
    if found.rates is not None:
        shape = replace(shape, rates=tuple(float(rate) for rate in found.rates.split(",")))
    for name, chosen, known in (("parts", found.parts, shape.parts), ("speculate", found.speculate, shape.drafters)):
        for entry in chosen or ():
            if entry not in known:
                parser.error(f"--{name} {entry}: --shape {found.shape} has {', '.join(known)}")
    if found.save is not None and not torch.cuda.is_available():
        parser.error(f"--save {found.save}: results are kept for a GPU only, and there is none here")
    tokens = found.max_num_batched_tokens
    choice = Choice(
        engine=found.engine,
        shape=shape,
        parts=found.parts or shape.parts,
        drafters=found.speculate or shape.drafters,
        ways=found.via,
        options={"max_num_batched_tokens": tokens} if tokens is not None else {},
    )
    return choice, found.save


def main(arguments: Sequence[str] | None = None) -> None:
    choice, name = choose(arguments)
    with tempfile.TemporaryDirectory() as directory:
        report = run(choice, Path(directory))
    tables = report.tables()
    print("\n".join(report.left_out))
    if name is not None:
        notes = [(__doc__ or "").split("\n\n")[1], *report.left_out]
        if choice.engine == "vllm":
            notes.append(f"vLLM {version('vllm')}.")
        command = " ".join(["python3 -m benchmarks.mixed_traffic", *(arguments or sys.argv[1:])])
        save(name, "Mixed traffic", tables, "\n\n".join(notes), command)


def _list_of(known: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        entries = tuple(text.split(","))
        for entry in entries:
            if entry not in known:
                raise argparse.ArgumentTypeError(f"{entry!r} is unknown: choose from {', '.join(known)}")
        return entries

    return parse


def _pair(values: tuple[float, float] | None) -> str:
    return f"{values[0]:.1f} / {values[1]:.1f}" if values is not None else "–"


def _percent(share: float | None) -> str:
    return f"{share:.1%}" if share is not None else "–"


if __name__ == "__main__":
    main()
