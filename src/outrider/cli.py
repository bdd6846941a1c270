"""The command line: `outrider generate | serve | info | demo | bench | gate`. Parses, calls, prints."""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from outrider import show
from outrider.bench.cli import app as bench
from outrider.core.config import engine_config
from outrider.core.errors import ConfigError, OutriderError
from outrider.core.outputs import RequestOutput
from outrider.core.sampling_params import SamplingParams
from outrider.gate.commands import app as gate
from outrider.llm import LLM

app = typer.Typer(
    help="Exact speculative decoding for large language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench", no_args_is_help=True)
app.add_typer(gate, name="gate", no_args_is_help=True)
console = Console(highlight=False)

ZOO = Path(__file__).resolve().parents[2] / "zoo"
"""The small models beside the source. A checkout of the repository has them, the installed package does not."""

Model = Annotated[
    str | None, typer.Option(help="Model directory in Hugging Face form; unset: zoo/tiny of the repository's checkout.")
]
SpeculativeConfig = Annotated[
    str | None,
    typer.Option(
        help="JSON, e.g. '{\"method\": \"ngram\"}'. Unset: the zoo's EAGLE-3 for the zoo's target, else none."
    ),
]
Device = Annotated[str, typer.Option(help="auto or cpu.")]
AttentionBackend = Annotated[str, typer.Option(help="auto, or a backend's name.")]
MaxModelLen = Annotated[int | None, typer.Option(help="Most tokens of one request.")]


def _shipped(name: str) -> str:
    """Directory of the zoo's model `name`. Raises ConfigError where there is no zoo, as in an installed package."""
    directory = ZOO / name
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"the model zoo/{name} was not found at {directory}: the installed package does not contain the zoo. Pass a"
            " model directory (generate, info, serve), or run from a checkout of the repository."
        )
    return str(directory)


def _speculative(model: str, given: str | None) -> dict[str, Any] | None:
    if given is not None:
        try:
            return json.loads(given)
        except json.JSONDecodeError as error:
            remedy = """Example: '{"method": "ngram"}'"""
            raise typer.BadParameter(f"--speculative-config is not JSON: {error}. {remedy}") from error
    if Path(model).resolve() == (ZOO / "tiny").resolve():
        return {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
    return None


@app.command()
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; read from standard input if none.")] = None,
    model: Model = None,
    speculative_config: SpeculativeConfig = None,
    compare: Annotated[
        bool, typer.Option(help="With and without speculation, side by side, and check equality.")
    ] = False,
    chat: Annotated[bool, typer.Option(help="Each prompt is a user message under the chat template.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Most output tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Mass to keep.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Tokens to keep; 0 keeps all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Share of the best token's probability to keep.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the output; may be repeated.")] = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Complete prompts; tokens are coloured by where they came from."""
    model = model or _shipped("tiny")
    texts = prompts or [sys.stdin.read()]
    params = SamplingParams(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed, stop=stop
    )
    options: dict[str, Any] = {
        "device": device,
        "attention_backend": attention_backend,
        "max_model_len": max_model_len,
        "logits_digest": compare,
    }
    speculative = _speculative(model, speculative_config)
    if compare and speculative is None:
        raise typer.BadParameter("--compare needs --speculative-config for this model.")
    llm = LLM(model, speculative_config=speculative, **options)
    outputs = _complete(llm, texts, params, chat=chat)
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    if not compare:
        for index, output in enumerate(outputs):
            console.print(show.panel(output, tokenizer, title=str(index)))
        if speculative is not None:
            console.print(show.legend())
            console.print(show.speculation_table(outputs, title="Speculation"))
        return
    plain = _complete(LLM(model, **options), texts, _with_seeds(params, outputs), chat=chat)
    show.side_by_side(console, list(zip(outputs, plain, strict=True)), tokenizer)
    console.print(show.legend())
    console.print(show.speculation_table(outputs, title="Speculation"))
    _print_verdict(outputs, plain)


def _complete(
    llm: LLM, texts: list[str], params: SamplingParams | list[SamplingParams], *, chat: bool
) -> list[RequestOutput]:
    if chat:
        return llm.chat([[{"role": "user", "content": text}] for text in texts], params, use_tqdm=True)
    return llm.generate(texts, params, use_tqdm=True)


def _with_seeds(params: SamplingParams, outputs: list[RequestOutput]) -> list[SamplingParams]:
    """The same parameters with the seeds that the first run reported."""
    fields = {name: getattr(params, name) for name in SamplingParams.__dataclass_fields__}
    return [SamplingParams(**{**fields, "seed": output.seed}) for output in outputs]


def _print_verdict(outputs: list[RequestOutput], plain: list[RequestOutput]) -> None:
    console.print(show.verdict(outputs, plain))
    if show.differences(outputs, plain):
        raise typer.Exit(1)


@app.command()
def info(
    model: Model = None,
    speculative_config: SpeculativeConfig = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """What would run here, and why: platform, kernels, attention backend, drafter, and whether all is exact."""
    model = model or _shipped("tiny")
    llm = LLM(
        model,
        speculative_config=_speculative(model, speculative_config),
        device=device,
        attention_backend=attention_backend,
        max_model_len=max_model_len,
        skip_tokenizer_init=True,
    )
    table = Table(show_header=False)
    for name, value in llm.engine.worker.describe():
        table.add_row(name, value)
    console.print(table)


@app.command()
def serve(
    model: Annotated[str | None, typer.Argument(help="Model directory in Hugging Face form; none: the zoo's.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name that requests ask for; may be repeated.")
    ] = None,
    speculative_config: SpeculativeConfig = None,
    api_key: Annotated[list[str] | None, typer.Option(help="Callers must show it; may be repeated.")] = None,
    allowed_origins: Annotated[
        list[str] | None, typer.Option(help="Origin whose web pages may call (CORS), or *; may be repeated.")
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(help="Longest body of a request.")] = 4 << 20,
    max_queued_requests: Annotated[
        int, typer.Option(help="Completions that may wait beyond --max-num-seqs; more get 429.")
    ] = 256,
    drain_seconds: Annotated[float, typer.Option(help="What running requests get after SIGTERM.")] = 30.0,
    max_engine_restarts: Annotated[int, typer.Option(help="How often an engine that died is started again.")] = 0,
    chat_template: Annotated[
        Path | None, typer.Option(help="File of a Jinja template in place of the model's own.")
    ] = None,
    trust_request_chat_template: Annotated[
        bool, typer.Option("--trust-request-chat-template", help="Requests may bring templates.")
    ] = False,
    tool_call_parser: Annotated[
        str | None, typer.Option(help="How the model writes tool calls; unset: it cannot choose tools itself.")
    ] = None,
    ssl_keyfile: Annotated[str | None, typer.Option(help="TLS: the key.")] = None,
    ssl_certfile: Annotated[str | None, typer.Option(help="TLS: the certificate.")] = None,
    ssl_keyfile_password: Annotated[str | None, typer.Option(help="TLS: what opens the key.")] = None,
    ssl_ca_certs: Annotated[str | None, typer.Option(help="TLS: who signs the callers' certificates.")] = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the seeds drawn for requests that have none.")] = 0,
    attention_backend: AttentionBackend = "auto",
    load_format: Annotated[str, typer.Option(help="auto reads weights, dummy makes random ones.")] = "auto",
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Most completions that run at once.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Most tokens in one step.")] = None,
    block_size: Annotated[int, typer.Option(help="Tokens in a KV block: 16, 32 or 64.")] = 16,
    num_gpu_blocks_override: Annotated[int | None, typer.Option(help="KV blocks; unset: what memory holds.")] = None,
    gpu_memory_utilization: Annotated[float, typer.Option(help="Share of the device's memory to use.")] = 0.9,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="Never capture graphs.")] = False,
    enable_prefix_caching: Annotated[bool, typer.Option(help="Reuse KV blocks of equal prefixes.")] = True,
    logits_digest: Annotated[
        bool, typer.Option("--logits-digest", help="Choices carry a hash of all their logits.")
    ] = False,
) -> None:
    """Serve a model over HTTP, as OpenAI's clients and those of vLLM expect; without MODEL the zoo's."""
    if find_spec("uvicorn") is None:
        raise ConfigError("serving needs uvicorn, starlette and pydantic. Install them: pip install 'outrider[server]'")
    from outrider.server.options import ServerOptions
    from outrider.server.serve import serve

    names = tuple(served_model_name or ((model or "zoo/tiny"),))
    model = model or _shipped("tiny")
    config = engine_config(
        model,
        speculative_config=_speculative(model, speculative_config),
        device=device,
        dtype=dtype,
        seed=seed,
        attention_backend=attention_backend,
        load_format=load_format,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        block_size=block_size,
        num_gpu_blocks_override=num_gpu_blocks_override,
        gpu_memory_utilization=gpu_memory_utilization,
        enforce_eager=enforce_eager,
        enable_prefix_caching=enable_prefix_caching,
        logits_digest=logits_digest,
    )
    options = ServerOptions(
        host=host,
        port=port,
        served_model_names=names,
        api_keys=tuple(api_key or ()),
        allowed_origins=tuple(allowed_origins or ()),
        max_body_bytes=max_body_bytes,
        max_queued_requests=max_queued_requests,
        drain_seconds=drain_seconds,
        max_engine_restarts=max_engine_restarts,
        chat_template=chat_template.read_text() if chat_template is not None else None,
        trusts_request_chat_template=trust_request_chat_template,
        tool_call_parser=tool_call_parser,
        ssl_keyfile=ssl_keyfile,
        ssl_certfile=ssl_certfile,
        ssl_keyfile_password=ssl_keyfile_password,
        ssl_ca_certs=ssl_ca_certs,
    )
    serve(config, options, console)


DEMO_PROMPTS = (
    """import torch
from torch import nn


class MLP(nn.Module):
    \"\"\"A small feed-forward network.\"\"\"

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, output_size)

    def forward(self, x):
""",
    """import os
import json


def load_config(path):
    \"\"\"Read a JSON file and return its content as a dict.\"\"\"
    with open(path) as f:
        return json.load(f)


def save_config(path, config):
    \"\"\"Write the config to a JSON file.\"\"\"
""",
    "Question: Anna has 14 apples and buys 9 more. She gives 5 to a friend. How many apples does she have?\nAnswer:",
)


@app.command()
def demo() -> None:
    """Complete a few prompts with the shipped models and show what speculation did."""
    started = time.monotonic()
    model = _shipped("tiny")
    speculative = _speculative(model, None)
    params = [SamplingParams(temperature=0.0, max_tokens=96)] * len(DEMO_PROMPTS)
    prompts = [*DEMO_PROMPTS, DEMO_PROMPTS[1]]
    params.append(SamplingParams(temperature=0.8, seed=7, max_tokens=96))
    llm = LLM(model, speculative_config=speculative, logits_digest=True)
    outputs = llm.generate(prompts, params, use_tqdm=True)
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    for output, entry in zip(outputs, params, strict=True):
        title = "greedy" if entry.is_greedy else f"temperature {entry.temperature}, seed {output.seed}"
        console.print(show.panel(output, tokenizer, title=title))
    console.print(show.legend())
    console.print(show.speculation_table(outputs, title="What speculation did (EAGLE-3, 3 drafts a step)"))
    plain = LLM(model, logits_digest=True).generate(prompts, params, use_tqdm=True)
    _print_verdict(outputs, plain)
    console.print(f"{time.monotonic() - started:.1f} s in all, both runs and loading included.", style="dim")


def main() -> None:
    """Entry point: an error of the user's is one line, not a traceback."""
    try:
        app()
    except OutriderError as error:
        Console(stderr=True, highlight=False).print(f"outrider: {error}", style="red", markup=False)
        raise SystemExit(2) from None
