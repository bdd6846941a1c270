"""The command `outrider serve`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from outrider.arguments import (
    AttentionBackend,
    Device,
    DownloadDir,
    HfToken,
    MaxModelLen,
    Model,
    Revision,
    Speculative,
    drafter_of,
    model_or_shipped,
)
from outrider.config_file import ConfigFile
from outrider.core import log
from outrider.core.config import engine_config
from outrider.core.errors import ConfigError
from outrider.server.api_keys import api_keys

PANELS = {
    "Most used": (
        "host", "port", "served_model_name", "api_key", "speculative_config", "max_model_len", "max_num_seqs",
        "gpu_memory_utilization", "log_requests", "config",
    ),
    "Model": (
        "runner", "revision", "hf_token", "download_dir", "dtype", "load_format", "generation_config", "quantization",
        "seed",
    ),
    "Chats": (
        "tool_call_parser", "reasoning_parser", "chat_template", "chat_template_content_format",
        "trust_request_chat_template",
    ),
    "Engine": (
        "device", "attention_backend", "max_num_batched_tokens", "block_size", "num_gpu_blocks_override",
        "enable_prefix_caching", "enforce_eager", "logits_digest",
    ),
    "Limits of requests and connections": (
        "max_queued_requests", "max_body_bytes", "max_header_bytes", "max_header_count", "limit_concurrency",
        "timeout_header", "timeout_body", "timeout_keep_alive", "scheduling_policy",

    ),
    "Access": ("api_key_file", "api_key_for_all_paths", "allowed_origins", "allowed_hosts"),
    "TLS": ("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    "Running": ("log_level", "drain_seconds", "max_engine_restarts"),
}  # fmt: skip
"""Groups of options in `outrider serve --help`, in their order."""


class GroupedCommand(TyperCommand):
    """A command whose help lists its options in the groups of `PANELS`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        order = [name for names in PANELS.values() for name in names]
        panel_of = {name: panel for panel, names in PANELS.items() for name in names}
        for parameter in self.params:
            if parameter.name in panel_of:
                parameter.rich_help_panel = panel_of[parameter.name]  # type: ignore[attr-defined]
        self.params.sort(key=lambda parameter: order.index(parameter.name) if parameter.name in panel_of else -1)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help. The second name of a switch is in its text: two columns of names leave none for the text."""
        second = {parameter.name: parameter.secondary_opts for parameter in self.params}
        try:
            for parameter in self.params:
                parameter.secondary_opts = []
            super().format_help(ctx, formatter)
        finally:
            for parameter in self.params:
                parameter.secondary_opts = second[parameter.name]


def serve(
    model: Model = None,
    config: ConfigFile = None,
    revision: Revision = None,
    hf_token: HfToken = None,
    download_dir: DownloadDir = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 listens on all interfaces.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 chooses a free one.")] = 8000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name that requests use for the model. May be repeated.")
    ] = None,
    speculative_config: Speculative = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="Key that callers must send. May be repeated. Other users see it: ps.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with a key in each line. Or set OUTRIDER_API_KEY.")
    ] = None,
    api_key_for_all_paths: Annotated[
        bool, typer.Option("--api-key-for-all-paths", help="Ask for a key at every path but /health.")
    ] = False,
    allowed_origins: Annotated[
        list[str] | None, typer.Option(help="Origin whose web pages may call (CORS), or *. May be repeated.")
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None, typer.Option(help="Further name of the server (Host header), or *. May be repeated.")
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(help="Maximum size of a request body.")] = 4 << 20,
    max_queued_requests: Annotated[
        int, typer.Option(help="Maximum number of waiting completions; more get 429.")
    ] = 256,
    scheduling_policy: Annotated[
        str, typer.Option(help="fcfs, or priority, which lets callers set the priority of their requests.")
    ] = "fcfs",
    limit_concurrency: Annotated[
        int | None, typer.Option(help="Maximum number of connections. Default: what the limit on open files allows.")
    ] = None,
    max_header_bytes: Annotated[int, typer.Option(help="Maximum size of a request's headers.")] = 1 << 16,
    max_header_count: Annotated[int, typer.Option(help="Maximum number of a request's headers.")] = 256,
    timeout_header: Annotated[float, typer.Option(help="Seconds in which a request's headers must arrive.")] = 10.0,
    timeout_body: Annotated[float, typer.Option(help="Seconds in which a request's body must arrive.")] = 60.0,
    timeout_keep_alive: Annotated[int, typer.Option(help="Seconds that an idle connection stays open.")] = 75,
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
    ssl_keyfile_password: Annotated[
        str | None, typer.Option(help="Password of the TLS key.", envvar="OUTRIDER_SSL_KEYFILE_PASSWORD")
    ] = None,
    ssl_ca_certs: Annotated[str | None, typer.Option(help="CA bundle for client certificates.")] = None,
    runner: Annotated[
        str, typer.Option(help="generate, pooling (vectors and scores), or auto: what the model is made for.")
    ] = "auto",
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="Type of weights and activations: auto, float32 or bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seeds the generator for requests without a seed.")] = 0,
    attention_backend: AttentionBackend = "auto",
    load_format: Annotated[str, typer.Option(help="auto reads the weights, dummy makes random ones.")] = "auto",
    quantization: Annotated[
        str | None, typer.Option(help="fp8: round plain weights to FP8 while loading. Quantised files need no option.")
    ] = None,
    generation_config: Annotated[
        str, typer.Option(help="auto: the model's generation_config.json gives sampling defaults; none: it does not.")
    ] = "auto",
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(help="Maximum number of completions at once. Default: 256 on a GPU, 64 on a CPU.")
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Maximum number of tokens in a step. Default: chosen by the engine.")
    ] = None,
    block_size: Annotated[int, typer.Option(help="Tokens per KV block: 16, 32 or 64.")] = 16,
    num_gpu_blocks_override: Annotated[
        int | None, typer.Option(help="Number of KV blocks. Default: what memory holds.")
    ] = None,
    gpu_memory_utilization: Annotated[float, typer.Option(help="Fraction of the device's memory to use.")] = 0.9,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="Do not capture CUDA graphs.")] = False,
    enable_prefix_caching: Annotated[
        bool,
        typer.Option(help="Reuse KV blocks of equal prefixes, or not: --no-enable-prefix-caching.", show_default=False),
    ] = True,
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
    from outrider.server.serve import serve as run_server

    names = tuple(served_model_name or (model or "zoo/tiny",))
    model = model_or_shipped(model)
    engine_options = engine_config(
        model,
        runner=runner,
        revision=revision,
        hf_token=hf_token,
        download_dir=download_dir,
        speculative_config=drafter_of(model, speculative_config),
        device=device,
        dtype=dtype,
        seed=seed,
        attention_backend=attention_backend,
        load_format=load_format,
        quantization=quantization,
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
        api_keys=api_keys(api_key or (), api_key_file),
        guards_all_paths=api_key_for_all_paths,
        allowed_origins=tuple(allowed_origins or ()),
        allowed_hosts=tuple(allowed_hosts or ()),
        max_body_bytes=max_body_bytes,
        max_queued_requests=max_queued_requests,
        scheduling_policy=scheduling_policy,
        limit_concurrency=limit_concurrency,
        max_header_bytes=max_header_bytes,
        max_header_count=max_header_count,
        timeout_header=timeout_header,
        timeout_body=timeout_body,
        timeout_keep_alive=timeout_keep_alive,
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
    run_server(engine_options, options, Console(highlight=False))
