"""The command `outrider info`."""

from rich.console import Console
from rich.table import Table

from outrider.arguments import AttentionBackend, Device, MaxModelLen, Model, Speculative, drafter_of, model_or_shipped
from outrider.config_file import ConfigFile
from outrider.llm import LLM
from outrider.progress import working


def info(
    model: Model = None,
    config: ConfigFile = None,
    speculative_config: Speculative = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Show what would run here and why: platform, kernels, attention backend, drafter, and whether it is exact."""
    model = model_or_shipped(model)
    with working(f"Loading {model}"):
        llm = LLM(
            model,
            speculative_config=drafter_of(model, speculative_config),
            device=device,
            attention_backend=attention_backend,
            max_model_len=max_model_len,
            skip_tokenizer_init=True,
        )
    table = Table(show_header=False)
    for name, value in llm.engine.describe():
        table.add_row(name, value)
    Console(highlight=False).print(table)
