"""The command `outrider chat`."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from outrider import show
from outrider.arguments import AttentionBackend, Device, MaxModelLen, Model, Speculative, drafter_of, model_or_shipped
from outrider.chat.answer import Answerer, Settings
from outrider.chat.conversation import Conversation
from outrider.chat.engine_answers import EngineAnswers
from outrider.chat.interrupts import Interrupts
from outrider.chat.screen import Screen, load_history, save_history
from outrider.chat.server_answers import ServerAnswers
from outrider.config_file import ConfigFile
from outrider.core.errors import ConfigError
from outrider.llm import LLM
from outrider.progress import working


def chat(
    model: Model = None,
    config: ConfigFile = None,
    url: Annotated[
        str | None, typer.Option(help="Talk to this OpenAI-compatible server; MODEL is then a name that it serves.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Key for the server. Default: OPENAI_API_KEY, if it is set.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions before the conversation.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy. Default: the model's recommendation, else 0.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every answer. Default: drawn for each.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer. Default: what the context holds.")] = None,
    speculative_config: Speculative = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Talk with a model. Tokens have the colour of their origin, and /help lists what can be typed."""
    console = Console(highlight=False)
    is_interactive = sys.stdin.isatty()
    settings = Settings(temperature=temperature, seed=seed, max_tokens=max_tokens)
    answerer: Answerer
    if url is not None:
        if speculative_config is not None:
            raise ConfigError("--speculative-config has no effect with --url: the server has its own. Leave it out.")
        answerer = ServerAnswers(url, model, api_key=api_key or os.environ.get("OPENAI_API_KEY"))
    else:
        if api_key is not None:
            raise ConfigError("--api-key has no effect without --url. Leave it out.")
        directory = model_or_shipped(model)
        with working(f"Loading {directory}"):
            llm = LLM(
                directory,
                speculative_config=drafter_of(directory, speculative_config),
                device=device,
                attention_backend=attention_backend,
                max_model_len=max_model_len,
                max_num_seqs=1,
            )
        answerer = EngineAnswers(llm)
    interrupts = Interrupts()
    screen = Screen(console, is_interactive=is_interactive, interrupts=interrupts)
    conversation = Conversation(answerer, screen, settings, system=system, interrupts=interrupts)
    if is_interactive:
        load_history()
        screen.say(f"{answerer.description}. /help lists commands, Ctrl-D ends.")
        if answerer.has_drafter:
            console.print(show.legend(with_prompt=False))
    with interrupts.handled():
        while not conversation.is_over and (text := screen.read()) is not None:
            conversation.hear(text)
            if is_interactive:
                save_history()
