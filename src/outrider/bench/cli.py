"""The commands `outrider bench latency | throughput | host | serve | compare`. Option names are vLLM's."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from outrider.arguments import AttentionBackend, Device, MaxModelLen, Model, Speculative, drafter_of, model_or_shipped
from outrider.bench.host import NUM_ROWS, measure_host
from outrider.bench.measure import Figures, measure_latency, measure_throughput
from outrider.bench.report import figures_dict, figures_table, host_table, write_json
from outrider.bench.serve.command import serve
from outrider.bench.serve.comparison import compare as compare_results
from outrider.bench.workload import Workload, dataset_prompts, random_prompts
from outrider.config_file import ConfigFile
from outrider.core.errors import ConfigError
from outrider.core.sampling_params import SamplingParams
from outrider.engine.tokenizer import Tokenizer
from outrider.llm import LLM
from outrider.loading.hub_model import HubModel
from outrider.loading.model_source import local_path
from outrider.progress import working
from outrider.runtime.describe import describe

app = typer.Typer(
    help="Measure the speed of one batch, of a stream of requests, of the host alone, or of a running server.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(serve)
console = Console(highlight=False)

_DRAFTS = 3
"""Drafts per step of the second half of `bench host`; the first half has none."""

LoadFormat = Annotated[
    str, typer.Option(help="auto reads the weights, dummy makes random ones: config.json is enough.")
]
MaxNumBatchedTokens = Annotated[
    int | None, typer.Option(help="Maximum number of tokens in a step; longer prompts are cut into chunks.")
]
InputLen = Annotated[int, typer.Option(min=1, help="Number of tokens of each random prompt.")]
OutputLen = Annotated[int, typer.Option(min=1, help="Maximum number of output tokens of a request.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Keep the most likely tokens up to this total probability.")]
Seed = Annotated[int, typer.Option(help="Seed of random prompts, sampling noise and dummy weights.")]


def _in_a_folder(path: Path | None) -> Path | None:
    """`path`, in a folder that exists: checked before minutes are spent. Raises ConfigError."""
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f"--output-json {path}: the folder {path.parent} does not exist. Make it, or choose another.")
    return path


OutputJson = Annotated[Path | None, typer.Option(callback=_in_a_folder, help="JSON file to write all figures to.")]
ReadBandwidth = Annotated[
    float | None, typer.Option(help="Read bandwidth of the device in TB/s. Default: as measured on such a device.")
]


@app.command()
def latency(
    model: Model = None,
    config: ConfigFile = None,
    load_format: LoadFormat = "auto",
    speculative_config: Speculative = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
    max_num_batched_tokens: MaxNumBatchedTokens = None,
    input_len: InputLen = 32,
    output_len: OutputLen = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of requests, all submitted at once.")] = 8,
    num_iters: Annotated[int, typer.Option(min=1, help="Number of timed runs.")] = 3,
    num_iters_warmup: Annotated[int, typer.Option(min=0, help="Number of untimed runs before them.")] = 1,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    read_bandwidth: ReadBandwidth = None,
    output_json: OutputJson = None,
) -> None:
    """Measure one batch of random prompts: time to first token, decoding speed, share of the memory-bandwidth limit."""
    llm = _engine(
        model,
        load_format=load_format,
        speculative_config=speculative_config,
        device=device,
        attention_backend=attention_backend,
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=batch_size,
        seed=seed,
        skip_tokenizer_init=True,
    )
    prompts = random_prompts(batch_size, length=input_len, vocab_size=_vocab_size(llm), seed=seed)
    params = [
        SamplingParams(temperature=temperature, top_p=top_p, max_tokens=output_len, ignore_eos=True, seed=seed + index)
        for index in range(batch_size)
    ]
    with working("Measuring"):
        figures = measure_latency(
            llm.engine,
            Workload(prompts=prompts, params=params, max_concurrency=batch_size),
            num_iters=num_iters,
            num_iters_warmup=num_iters_warmup,
            read_bandwidth=read_bandwidth * 1e12 if read_bandwidth is not None else None,
        )
    _report("latency", figures, llm, output_json)


@app.command()
def throughput(
    model: Model = None,
    config: ConfigFile = None,
    load_format: LoadFormat = "auto",
    speculative_config: Speculative = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
    max_num_batched_tokens: MaxNumBatchedTokens = None,
    dataset_path: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Spec-Bench .jsonl, ShareGPT .json or .txt lines. Default: random."
        ),
    ] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 16,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Maximum number of requests at a time.")] = 8,
    input_len: InputLen = 32,
    output_len: OutputLen = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    output_json: OutputJson = None,
) -> None:
    """Measure a stream of requests, a new one whenever one ends: tokens/s, time to first token and between tokens."""
    llm = _engine(
        model,
        load_format=load_format,
        speculative_config=speculative_config,
        device=device,
        attention_backend=attention_backend,
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_concurrency,
        seed=seed,
        skip_tokenizer_init=dataset_path is None,
    )
    if dataset_path is not None:
        assert llm.engine.tokenizer is not None
        prompts = dataset_prompts(dataset_path, count=num_prompts, tokenizer=llm.engine.tokenizer)
    else:
        prompts = random_prompts(num_prompts, length=input_len, vocab_size=_vocab_size(llm), seed=seed)
    params = [
        SamplingParams(
            temperature=temperature,
            top_p=top_p,
            max_tokens=output_len,
            ignore_eos=dataset_path is None,
            seed=seed + index,
        )
        for index in range(len(prompts))
    ]
    workload = Workload(prompts=prompts, params=params, max_concurrency=max_concurrency)
    with working("Measuring"):
        figures = measure_throughput(llm.engine, workload)
    _report("throughput", figures, llm, output_json)


@app.command()
def host(
    model: Annotated[
        str | None, typer.Argument(help="Directory of the tokenizer.json that detokenizes. Default: zoo/tiny.")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Concurrent requests. May be repeated. Default: 1, 8, 64, 256.")
    ] = None,
    num_iters: Annotated[int, typer.Option(min=1, help="Number of windows of 16 steps; the best counts.")] = 24,
    output_json: OutputJson = None,
) -> None:
    """Measure the host alone, with a device that takes no time: microseconds per request and step."""
    tokenizer = Tokenizer(Path(local_path(HubModel(name=model_or_shipped(model)), has_weights=False)))
    with working("Measuring"):
        rows = [
            measure_host(tokenizer, num_rows=num_rows, num_drafts=num_drafts, num_windows=num_iters)
            for num_rows in batch_size or NUM_ROWS
            for num_drafts in (0, _DRAFTS)
        ]
    console.print(host_table(rows))
    if output_json is not None:
        write_json(output_json, {"benchmark": "host", "rows": [figures.to_dict() for figures in rows]})


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="JSON file of `bench serve --save-result`: one run, or a sweep.")],
    second: Annotated[Path, typer.Argument(help="Another one; ratios are its figures divided by those of the first.")],
    may_differ: Annotated[
        list[str] | None, typer.Option(help="Setting that need not be equal, e.g. model_id. May be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the comparison, as .md or .json.")] = None,
) -> None:
    """Compare two saved results of `bench serve`; refuses results whose settings differ, by the names of these."""
    comparison = compare_results(first, second, may_differ=may_differ or ())
    lines = Console(highlight=False, markup=False, soft_wrap=True)
    for line in comparison.markdown():
        lines.print(line)
    if output is not None:
        comparison.write(output)
        lines.print(f"written: {output}")


def _engine(model: str | None, *, speculative_config: str | None, skip_tokenizer_init: bool, **options: Any) -> LLM:
    model = model_or_shipped(model)
    with working(f"Loading {model}"):
        return LLM(
            model,
            speculative_config=drafter_of(model, speculative_config),
            skip_tokenizer_init=skip_tokenizer_init,
            enable_prefix_caching=False,
            **options,
        )


def _vocab_size(llm: LLM) -> int:
    return llm.engine.worker.model_config.vocab_size


def _report(name: str, figures: Figures, llm: LLM, output_json: Path | None) -> None:
    described = dict(describe(llm.engine.worker))
    title = f"bench {name}: {described['model']}"
    console.print(figures_table(figures, title=title, exactness=described["exact"]))
    if output_json is not None:
        is_exact = llm.engine.worker.is_exact
        content = {"benchmark": name, "is_exact": is_exact, "engine": described, **figures_dict(figures)}
        write_json(output_json, content)
