"""The command `outrider bench serve`. Option names are vLLM's."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from outrider.bench.report import write_json
from outrider.bench.serve.figures import figures_of, parse_goodput, parse_metrics, parse_percents, parse_rates
from outrider.bench.serve.report import lines
from outrider.bench.serve.run import Run
from outrider.bench.serve.setting import Setting, fingerprint
from outrider.bench.serve.sweep import Measured, file_stem, saved, sweep_lines
from outrider.bench.serve.workload import Dataset, arrivals
from outrider.core.errors import ConfigError

_INSTALL = "It is not installed: pip install 'outrider[bench]'."


def serve(
    base_url: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    endpoint: Annotated[
        str, typer.Option(help="/v1/completions, or /v1/chat/completions with each prompt as a user message.")
    ] = "/v1/completions",
    model: Annotated[
        str | None, typer.Option(help="Name of the served model. Default: the first that the server lists.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, e.g. 'Authorization=Bearer …'. May be repeated.")
    ] = None,
    dataset_name: Annotated[str, typer.Option(help="random, sharegpt or spec_bench.")] = "random",
    dataset_path: Annotated[
        Path | None, typer.Option(help="ShareGPT .json, Spec-Bench .jsonl, or humaneval; the first turns are sent.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer directory, for random chat messages and to count ShareGPT's answers."),
    ] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Number of requests, of each rate of a sweep.")] = 1000,
    input_len: Annotated[int | None, typer.Option(min=1, help="Tokens of a random prompt. Default: 1024.")] = None,
    output_len: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens of an answer. Default: 128 for random prompts, else 256.")
    ] = None,
    random_range_ratio: Annotated[
        float, typer.Option(help="Random lengths vary by up to this fraction around the requested length.")
    ] = 0.0,
    disable_shuffle: Annotated[bool, typer.Option("--disable-shuffle", help="Keep the dataset's order.")] = False,
    request_rate: Annotated[
        str, typer.Option(help="Requests per second; inf sends all at once. Several, as 4,12,20, make a sweep.")
    ] = "inf",
    burstiness: Annotated[
        float, typer.Option(help="Shape of the arrivals: 1 is a Poisson process, less is burstier.")
    ] = 1.0,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of requests at a time. Default: none.")
    ] = None,
    num_warmups: Annotated[int, typer.Option(min=0, help="Number of unmeasured requests sent first.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above 0, request i is sent with seed + i.")] = 0.0,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Let every answer run to its maximum length.")
    ] = False,
    extra_body: Annotated[
        str | None, typer.Option(help="JSON object added to each request, e.g. '{\"top_p\": 0.9}'.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random prompts, arrivals and sampling noise.")] = 0,
    percentile_metrics: Annotated[
        str, typer.Option(help="Latencies to print: some of ttft, tpot, itl, e2el.")
    ] = "ttft,tpot,itl",
    metric_percentiles: Annotated[str, typer.Option(help="Percentiles to print, e.g. 50,99.")] = "99",
    goodput: Annotated[
        list[str] | None,
        typer.Option(help="NAME:MILLISECONDS, limits of a good request: ttft, tpot, e2el. May be repeated."),
    ] = None,
    save_result: Annotated[bool, typer.Option("--save-result", help="Write all figures to a JSON file.")] = False,
    save_detailed: Annotated[
        bool, typer.Option("--save-detailed", help="Also write the figures and text of every request.")
    ] = False,
    result_dir: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = Path(),
    result_filename: Annotated[
        str | None, typer.Option(help="Name of the JSON file. Default: made from the settings.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture of the run or of the sweep, .png or .svg. Needs matplotlib.")
    ] = None,
) -> None:
    """Put load on a running OpenAI-compatible server, and report latencies and throughput as clients see them."""
    metrics, percents = parse_metrics(percentile_metrics), parse_percents(metric_percentiles)
    limits, rates = parse_goodput(goodput or []), parse_rates(request_rate)
    if plot is not None:
        _load_plot()
    is_chat = endpoint.rstrip("/").endswith("/chat/completions")
    dataset = Dataset(
        name=dataset_name,
        path=dataset_path,
        tokenizer=tokenizer,
        input_len=input_len,
        output_len=output_len,
        range_ratio=random_range_ratio,
        disable_shuffle=disable_shuffle,
    )
    fields = {"temperature": temperature, **({"ignore_eos": True} if ignore_eos else {}), **_object(extra_body)}
    # each rate of a sweep gets prompts of its own, so that no run finds those of another in the server's prefix cache
    asks = dataset.asks(num_prompts * len(rates), seed=seed, is_chat=is_chat)
    bodies = [
        {
            **ask.body(is_chat=is_chat),
            **({"seed": seed + index} if temperature > 0 else {}),
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }
        for index, ask in enumerate(asks)
    ]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    date = datetime.now().strftime("%Y%m%d-%H%M%S")
    runs: list[Measured] = []
    for number, rate in enumerate(rates):
        own = bodies[number * num_prompts : (number + 1) * num_prompts]
        setting = Setting(
            model=model,
            base_url=base_url,
            date=date,
            endpoint=endpoint,
            dataset_name=dataset_name,
            num_prompts=num_prompts,
            num_warmups=num_warmups,
            request_rate=rate,
            burstiness=burstiness,
            max_concurrency=max_concurrency,
            seed=seed,
            goodput=limits,
            fields=fields,
            requests_sha256=fingerprint(own),
        )
        run = _run(setting, own, headers=_headers(header or []))
        setting = replace(setting, model=run.model)
        figures = figures_of(run.answers, seconds=run.seconds, percents=percents, goodput=limits)
        runs.append(Measured(setting=setting, figures=figures, run=run))
        for line in lines(setting, figures, run.counters, metrics=metrics):
            console.print(line)
    if len(runs) > 1:
        for line in sweep_lines(runs):
            console.print(line)
    if save_result or save_detailed:
        path = result_dir / (result_filename or f"{file_stem(runs)}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, saved(runs, is_detailed=save_detailed))
        console.print(f"written: {path}")
    if plot is not None:
        _load_plot()(plot, runs)
        console.print(f"written: {plot}")
    if any(measured.figures.completed == 0 for measured in runs):
        raise typer.Exit(1)


def _run(setting: Setting, bodies: Sequence[Mapping[str, Any]], *, headers: Mapping[str, str]) -> Run:
    """Sends the requests at their times, with a progress bar on a terminal."""
    try:
        from outrider.bench.serve.client import Client
        from outrider.bench.serve.drive import drive
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench serve needs {error.name}. {_INSTALL}") from error
    times = arrivals(len(bodies), rate=setting.request_rate, burstiness=setting.burstiness, seed=setting.seed)
    terminal = Console(stderr=True)
    with Progress(console=terminal, disable=not terminal.is_terminal) as progress:
        task = progress.add_task(f"{setting.request_rate:g} requests/s", total=len(bodies))
        return asyncio.run(
            drive(
                Client(setting.base_url, headers=headers),
                endpoint=setting.endpoint,
                model=setting.model,
                bodies=bodies,
                times=times,
                max_concurrency=setting.max_concurrency,
                num_warmups=setting.num_warmups,
                on_answer=lambda: progress.advance(task),
            )
        )


def _load_plot() -> Callable[[Path, Sequence[Measured]], None]:
    try:
        from outrider.bench.serve.plot import draw
    except ModuleNotFoundError as error:
        raise ConfigError(f"--plot needs {error.name}. It is not installed: pip install 'outrider[plot]'.") from error
    return draw


def _headers(parts: list[str]) -> dict[str, str]:
    headers = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--header {part!r} is not KEY=VALUE. Example: 'Authorization=Bearer abc'.")
        headers[name] = value
    return headers


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"""--extra-body is not valid JSON: {error}. Example: '{{"top_p": 0.9}}'""") from error
    if not isinstance(found, dict):
        raise ConfigError(f"""--extra-body={text!r} is not a JSON object. Example: '{{"top_p": 0.9}}'""")
    return found
