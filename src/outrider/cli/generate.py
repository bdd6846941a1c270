"""The command `outrider generate`."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from outrider import show
from outrider.arguments import AttentionBackend, Device, MaxModelLen, Model, Speculative, drafter_of, model_or_shipped
from outrider.cli.verdict import print_verdict, timed
from outrider.config_file import ConfigFile
from outrider.core.errors import ConfigError
from outrider.core.outputs import RequestOutput
from outrider.core.sampling_params import SamplingParams
from outrider.llm import LLM
from outrider.progress import working

console = Console(highlight=False)


def generate(
    model: Model = None,
    config: ConfigFile = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Prompt. May be repeated. Default: standard input, as one prompt."),
    ] = None,
    speculative_config: Speculative = None,
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
    model = model_or_shipped(model)
    texts = prompt or [sys.stdin.read()]
    params = SamplingParams(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed, stop=stop
    )
    options: dict[str, Any] = {
        "device": device,
        "attention_backend": attention_backend,
        "max_model_len": max_model_len,
        "logits_digest": compare,
    }
    speculative = drafter_of(model, speculative_config)
    if compare and speculative is None:
        raise ConfigError("--compare needs --speculative-config for this model, to compare with and without a drafter.")
    with working(f"Loading {model}"):
        llm = LLM(model, speculative_config=speculative, **options)
    outputs, seconds = timed(lambda: _complete(llm, texts, params, chat=chat))
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    if not compare:
        for index, output in enumerate(outputs, start=1):
            console.print(show.panel(output, tokenizer, title=f"prompt {index}"))
        if speculative is not None:
            console.print(show.legend())
            console.print(show.speculation_table(outputs, title="Speculation"))
        return
    with working(f"Loading {model} without a drafter"):
        other = LLM(model, **options)
    plain, plain_seconds = timed(lambda: _complete(other, texts, _with_seeds(params, outputs), chat=chat))
    show.side_by_side(console, list(zip(outputs, plain, strict=True)), tokenizer)
    console.print(show.legend())
    console.print(show.speculation_table(outputs, title="Speculation"))
    console.print(show.cost(seconds=seconds, plain_seconds=plain_seconds))
    print_verdict(console, outputs, plain)


def _complete(
    llm: LLM, texts: list[str], params: SamplingParams | list[SamplingParams], *, chat: bool
) -> list[RequestOutput]:
    if chat:
        return llm.chat([[{"role": "user", "content": text}] for text in texts], params)
    return llm.generate(texts, params)


def _with_seeds(params: SamplingParams, outputs: list[RequestOutput]) -> list[SamplingParams]:
    """Copies the parameters, with the seeds that the first run reported."""
    fields = {name: getattr(params, name) for name in SamplingParams.__dataclass_fields__}
    return [SamplingParams(**{**fields, "seed": output.seed}) for output in outputs]
