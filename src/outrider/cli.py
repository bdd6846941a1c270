"""The command line: `outrider generate | serve | info | demo | bench | gate`. Parses options, calls, prints."""

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
from outrider.core import log
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
    str | None,
    typer.Option(help="Model directory in Hugging Face form. Default: zoo/tiny of the repository's checkout."),
]
SpeculativeConfig = Annotated[
    str | None,
    typer.Option(
        help='Drafter as JSON, e.g. \'{"method": "ngram"}\'. Default: the EAGLE-3 head for zoo/tiny, else none.'
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or rocm.")]
AttentionBackend = Annotated[str, typer.Option(help="auto, or the name of a backend.")]
MaxModelLen = Annotated[int | None, typer.Option(help="Maximum number of tokens of a request, prompt included.")]


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
            raise typer.BadParameter(f"--speculative-config is not valid JSON: {error}. {remedy}") from error
    if Path(model).resolve() == (ZOO / "tiny").resolve():
        return {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
    return None


@app.command()
def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts. Default: standard input, as one prompt.")
    ] = None,
    model: Model = None,
    speculative_config: SpeculativeConfig = None,
    compare: Annotated[
        bool, typer.Option(help="Run with and without speculation, show both side by side, check that they are equal.")
    ] = False,
    chat: Annotated[
        bool, typer.Option(help="Treat each prompt as a user message and apply the chat template.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(help="Maximum number of output tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Keep the most likely tokens up to this total probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep this many most likely tokens; 0 keeps all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Keep tokens with at least this share of the best probability.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling noise. Default: drawn.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the output. May be repeated.")] = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Complete prompts and colour each token by its origin: draft or target."""
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
    """Copies the parameters, with the seeds that the first run reported."""
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
    """Show what would run here and why: platform, kernels, attention backend, drafter, and whether it is exact."""
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
    for name, value in llm.engine.describe():
        table.add_row(name, value)
    console.print(table)


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Argument(help="Model directory in Hugging Face form. Default: zoo/tiny.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 listens on all interfaces.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 chooses a free one.")] = 8000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name that requests use for the model. May be repeated.")
    ] = None,
    speculative_config: SpeculativeConfig = None,
    api_key: Annotated[list[str] | None, typer.Option(help="Key that callers must send. May be repeated.")] = None,
    allowed_origins: Annotated[
        list[str] | None, typer.Option(help="Origin whose web pages may call (CORS), or *. May be repeated.")
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(help="Maximum size of a request body.")] = 4 << 20,
    max_queued_requests: Annotated[
        int, typer.Option(help="Maximum number of waiting completions; more get 429.")
    ] = 256,
    drain_seconds: Annotated[
        float, typer.Option(help="Time that running requests have to finish after SIGTERM.")
    ] = 30.0,
    max_engine_restarts: Annotated[
        int, typer.Option(help="Number of times that an engine process is restarted after it exits.")
    ] = 0,
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file that replaces the model's chat template.")
    ] = None,
    chat_template_content_format: Annotated[
        str, typer.Option(help="Contents for the template: string, openai (parts), or auto: what it shows.")
    ] = "auto",
    trust_request_chat_template: Annotated[
        bool, typer.Option("--trust-request-chat-template", help="Accept chat templates from requests.")
    ] = False,
    tool_call_parser: Annotated[
        str | None,
        typer.Option(help="Format of the model's tool calls. Default: none, which refuses tool_choice auto."),
    ] = None,
    reasoning_parser: Annotated[
        str | None,
        typer.Option(help="Format of the model's reasoning. Default: none, which leaves it in the content."),
    ] = None,
    ssl_keyfile: Annotated[str | None, typer.Option(help="TLS key file.")] = None,
    ssl_certfile: Annotated[str | None, typer.Option(help="TLS certificate file.")] = None,
    ssl_keyfile_password: Annotated[str | None, typer.Option(help="Password of the TLS key.")] = None,
    ssl_ca_certs: Annotated[str | None, typer.Option(help="CA bundle for client certificates.")] = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="Type of weights and activations: auto, float32 or bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seeds the generator for requests without a seed.")] = 0,
    attention_backend: AttentionBackend = "auto",
    load_format: Annotated[str, typer.Option(help="auto reads the weights, dummy makes random ones.")] = "auto",
    generation_config: Annotated[
        str, typer.Option(help="auto: the model's generation_config.json gives sampling defaults; none: it does not.")
    ] = "auto",
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Maximum number of completions that run at once.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Maximum number of tokens in a step.")] = None,
    block_size: Annotated[int, typer.Option(help="Tokens per KV block: 16, 32 or 64.")] = 16,
    num_gpu_blocks_override: Annotated[
        int | None, typer.Option(help="Number of KV blocks. Default: what memory holds.")
    ] = None,
    gpu_memory_utilization: Annotated[float, typer.Option(help="Fraction of the device's memory to use.")] = 0.9,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="Do not capture CUDA graphs.")] = False,
    enable_prefix_caching: Annotated[bool, typer.Option(help="Reuse KV blocks of equal prefixes.")] = True,
    logits_digest: Annotated[
        bool, typer.Option("--logits-digest", help="Add a hash of all logits to each choice.")
    ] = False,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. Default: OUTRIDER_LOG_LEVEL, else info.")
    ] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log each request in one line, without its text.")
    ] = False,
) -> None:
    """Serve a model over HTTP with OpenAI's endpoints and the fields that vLLM adds."""
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
        generation_config=generation_config,
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
        chat_template_content_format=chat_template_content_format,
        trusts_request_chat_template=trust_request_chat_template,
        tool_call_parser=tool_call_parser,
        reasoning_parser=reasoning_parser,
        log_level=log.resolve_level(log_level),
        logs_requests=log_requests,
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
    """Complete a few prompts with the models of the zoo, and show what speculation did."""
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
    console.print(f"{time.monotonic() - started:.1f} s in total, both runs and loading included.", style="dim")


def main() -> None:
    """Entry point. Prints an OutriderError in one line instead of a traceback, and exits with code 2."""
    try:
        app()
    except OutriderError as error:
        # not folded: a path must stay in one piece
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"outrider: {error}", style="red", markup=False)
        raise SystemExit(2) from None
