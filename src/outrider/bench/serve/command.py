"""The command `outrider bench serve`. Option names are vLLM's."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from outrider.bench.report import write_json
from outrider.bench.serve.figures import figures_of, parse_goodput, parse_metrics, parse_percents
from outrider.bench.serve.report import Setting, lines, result
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
        Path | None, typer.Option(help="ShareGPT .json or Spec-Bench .jsonl; the first turns are sent.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer directory, for random chat messages and to count ShareGPT's answers."),
    ] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 1000,
    input_len: Annotated[int | None, typer.Option(min=1, help="Tokens of a random prompt. Default: 1024.")] = None,
    output_len: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens of an answer. Default: 128 for random prompts, else 256.")
    ] = None,
    random_range_ratio: Annotated[
        float, typer.Option(help="Random lengths vary by up to this fraction around the requested length.")
    ] = 0.0,
    disable_shuffle: Annotated[bool, typer.Option("--disable-shuffle", help="Keep the dataset's order.")] = False,
    request_rate: Annotated[float, typer.Option(help="Requests per second; inf sends all at once.")] = float("inf"),
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
        list[str] | None, typer.Option(help="NAME:MILLISECONDS, a limit for a good request. May be repeated.")
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
        Path | None, typer.Option(help="Write a picture of the run, .png or .svg. Needs matplotlib.")
    ] = None,
) -> None:
    """Put load on a running OpenAI-compatible server, and report latencies and throughput as clients see them."""
    try:
        from outrider.bench.serve.client import Client
        from outrider.bench.serve.drive import drive
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench serve needs {error.name}. {_INSTALL}") from error
    metrics, percents = parse_metrics(percentile_metrics), parse_percents(metric_percentiles)
    limits = parse_goodput(goodput or [])
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
    asks = dataset.asks(num_prompts, seed=seed, is_chat=is_chat)
    every = {"stream": True, "stream_options": {"include_usage": True}, "temperature": temperature}
    every |= {"ignore_eos": True} if ignore_eos else {}
    every |= _object(extra_body)
    bodies = [
        {**ask.body(is_chat=is_chat), **({"seed": seed + index} if temperature > 0 else {}), **every}
        for index, ask in enumerate(asks)
    ]
    times = arrivals(num_prompts, rate=request_rate, burstiness=burstiness, seed=seed)
    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as progress:
        task = progress.add_task("requests", total=num_prompts)
        run = asyncio.run(
            drive(
                Client(base_url, headers=_headers(header or [])),
                endpoint=endpoint,
                model=model,
                bodies=bodies,
                times=times,
                max_concurrency=max_concurrency,
                num_warmups=num_warmups,
                on_answer=lambda: progress.advance(task),
            )
        )
    figures = figures_of(run.answers, seconds=run.seconds, percents=percents, goodput=limits)
    setting = Setting(
        model=run.model,
        base_url=base_url,
        endpoint=endpoint,
        dataset_name=dataset_name,
        num_prompts=num_prompts,
        request_rate=request_rate,
        burstiness=burstiness,
        max_concurrency=max_concurrency,
        seed=seed,
        date=datetime.now().strftime("%Y%m%d-%H%M%S"),
    )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines(setting, figures, run.counters, metrics=metrics):
        console.print(line)
    if save_result or save_detailed:
        path = result_dir / (result_filename or f"{setting.file_stem}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result(setting, figures, run.counters, run.answers, is_detailed=save_detailed))
        console.print(f"written: {path}")
    if plot is not None:
        _load_plot()(plot, run.answers, run.counters, title=f"{run.model}, {setting.load}")
        console.print(f"written: {plot}")
    if figures.completed == 0:
        raise typer.Exit(1)


def _load_plot() -> Callable[..., None]:
    try:
        from outrider.bench.serve.plot import plot
    except ModuleNotFoundError as error:
        raise ConfigError(f"--plot needs {error.name}. It is not installed: pip install matplotlib.") from error
    return plot


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
