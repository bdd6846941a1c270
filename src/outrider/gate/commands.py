"""`outrider gate record | check | compare | accuracy | lanes`. Parses, calls, prints.

Exit codes: 0 pass, 1 regression, 2 could not run. An unexpected error is 2 as well: a crash is not a verdict.
"""

import functools
import json
import string
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from outrider.arguments import AttentionBackend, Device, MaxModelLen, Speculative, model_or_shipped, unusable_file
from outrider.core.errors import OutriderError
from outrider.gate import accuracy as accuracy_gate
from outrider.gate import compare as comparing
from outrider.gate import compare_report, report
from outrider.gate import lanes as lane_files
from outrider.gate.baseline import Baseline, Settings, read_baseline, write_baseline
from outrider.gate.check import check as check_measurement
from outrider.gate.errors import GateError
from outrider.gate.grading import check_questions
from outrider.gate.html import html as html_document
from outrider.gate.junit import junit as junit_document
from outrider.gate.junit import junit_not_run
from outrider.gate.measure import open_engine
from outrider.gate.prompts import digest_of, read_prompts
from outrider.gate.source import (
    Source,
    check_k,
    check_same_run,
    drafter_to_gate,
    parse_speculative,
    prompts_for_check,
    settings_for_check,
)
from outrider.llm import LLM

PASS, REGRESSION, COULD_NOT_RUN = 0, 1, 2

app = typer.Typer(
    help="Check a drafter for regressions. Exit codes: 0 pass, 1 regression, 2 could not run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
if not console.is_terminal:  # a log: no reason to fold tables at 80 columns
    console.width = 112
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Model = Annotated[
    str | None,
    typer.Argument(
        help="Model directory, or the served name with --endpoint. Default: zoo/tiny, with its EAGLE-3 head as drafter."
    ),
]
Prompts = Annotated[
    Path, typer.Option(help="MT-Bench, Spec-Bench or GSM8K .jsonl, ShareGPT .json, .txt lines, or humaneval.")
]
BaselineFile = Annotated[Path, typer.Option(help="TOML file to add this platform's results to.")]
MaxTokens = Annotated[int, typer.Option(help="Maximum output tokens per request.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Seed = Annotated[int, typer.Option(help="Seed of the first prompt; each further prompt adds one.")]
AllTurns = Annotated[bool, typer.Option("--all-turns", help="Run all turns of a prompt, not only the first.")]
Endpoint = Annotated[str | None, typer.Option(help="Address of a running vLLM, SGLang or Outrider server.")]


def gated(command: Callable[..., bool]) -> Callable[..., None]:
    """Turns the outcome of a command into its exit code."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            passed = command(*args, **options)
        except OutriderError as error:
            errors.print(f"outrider gate: could not run: {error}", style="red", markup=False)
            raise typer.Exit(COULD_NOT_RUN) from None
        except OSError as error:
            if error.filename is None:
                raise
            errors.print(f"outrider gate: could not run: {unusable_file(error)}", style="red", markup=False)
            raise typer.Exit(COULD_NOT_RUN) from None
        except Exception:
            errors.print(traceback.format_exc(), markup=False)
            errors.print("outrider gate: could not run: an unexpected error, see above", style="red")
            raise typer.Exit(COULD_NOT_RUN) from None
        raise typer.Exit(PASS if passed else REGRESSION)

    return run


@app.command()
@gated
def record(
    prompts: Prompts,
    baseline: BaselineFile,
    model: Model = None,
    speculative_config: Speculative = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    all_turns: AllTurns = False,
    endpoint: Endpoint = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> bool:
    """Run the prompts and write the drafter's counts to the baseline file, as this platform's entry."""
    source = Source(endpoint=endpoint, device=device, attention_backend=attention_backend, max_model_len=max_model_len)
    if endpoint is None:
        model = model_or_shipped(model)
    elif model is None:
        raise GateError("record with --endpoint needs MODEL: the name by which the server serves it.")
    speculative = drafter_to_gate(model if endpoint is None else "", speculative_config)
    if endpoint is None and not speculative:
        raise GateError("record needs --speculative-config: without a drafter there is nothing to gate.")
    listed = read_prompts(prompts)
    settings = Settings(
        model=model,
        speculative_config=speculative,
        num_speculative_tokens=speculative.get("num_speculative_tokens", 0),
        prompts=str(prompts),
        prompts_digest=digest_of(listed),
        all_turns=all_turns,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    recorded = read_baseline(baseline) if baseline.exists() else None
    if recorded is not None:  # before minutes are spent; how many are drafted, the engine says
        drafted = recorded.settings.num_speculative_tokens
        check_same_run(replace(settings, num_speculative_tokens=drafted), recorded.settings, baseline)
    measurement = source.measure(settings, listed)
    settings = replace(settings, num_speculative_tokens=measurement.num_drafts)
    if recorded is not None:
        check_same_run(settings, recorded.settings, baseline)
    else:
        recorded = Baseline(settings=settings, entries=())
    if not measurement.stats.num_drafts:
        raise GateError("the drafter proposed nothing: there is nothing to gate. Check --speculative-config.")
    written = recorded.with_entry(measurement)
    write_baseline(written, baseline)
    stats = measurement.stats
    rates = " / ".join(f"{rate:.4f}" for rate in stats.acceptance_rate_per_pos) or "not told by the server"
    console.print(
        f"{baseline}: {len(measurement.samples)} requests, acceptance length {stats.mean_acceptance_length:.4f}, rates "
        f"{rates}; {len(written.entries)} platform entries",
        markup=False,
    )
    return True


@app.command()
@gated
def check(
    baseline: Annotated[Path, typer.Option(help="TOML file that `record` wrote.")],
    model: Annotated[str | None, typer.Argument(help="Model directory. Default: the baseline's.")] = None,
    speculative_config: Annotated[str | None, typer.Option(help="JSON. Default: the baseline's. k is pinned.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompt file. Default: the baseline's.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Must equal the baseline's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Must equal the baseline's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Must equal the baseline's.")] = None,
    all_turns: Annotated[bool | None, typer.Option(help="Must equal the baseline's.")] = None,
    endpoint: Endpoint = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML report with plots here.")] = None,
) -> bool:
    """Run the baseline's prompts again. On its platform all integers must be equal; elsewhere rates have bounds."""
    title = baseline.stem
    source = Source(endpoint=endpoint, device=device, attention_backend=attention_backend, max_model_len=max_model_len)
    try:
        recorded = read_baseline(baseline)
        settings = settings_for_check(
            recorded,
            model=model,
            speculative_config=None if speculative_config is None else parse_speculative(speculative_config),
            prompts=None if prompts is None else str(prompts),
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            all_turns=all_turns,
        )
        measurement = source.measure(settings, prompts_for_check(settings))
        check_k(measurement, settings)
        result = check_measurement(recorded, measurement, title=title)
    except OutriderError as error:
        _write(junit, junit_not_run(title, str(error)))
        raise
    console.print(report.screen(result))
    _write(junit, junit_document(result))
    _write(html, html_document(result))
    return result.verdict.passed


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@app.command()
@gated
def compare(
    prompts: Prompts,
    model: Model = None,
    speculative_config: Annotated[
        list[str] | None,
        typer.Option(help="Drafter as JSON; repeat it for each drafter. Default: for zoo/tiny its EAGLE-3 head."),
    ] = None,
    k: Annotated[str, typer.Option(help="Numbers of drafts to try, e.g. 1,2,3. Default: each drafter's own.")] = "",
    cost_ratio: Annotated[
        list[float] | None,
        typer.Option(help="Cost of a draft token relative to a target step; repeat once per drafter."),
    ] = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    all_turns: AllTurns = False,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> bool:
    """Score drafters, or numbers of drafts, on the same tokens, with confidence intervals."""
    source = Source(endpoint=None, device=device, attention_backend=attention_backend, max_model_len=max_model_len)
    model = model_or_shipped(model)
    given: list[str | None] = [*speculative_config] if speculative_config else [None]
    drafters = [drafter_to_gate(model, text) for text in given]
    if not all(drafters):
        raise GateError("compare needs --speculative-config, once for each drafter.")
    listed = read_prompts(prompts)
    ratios = cost_ratio or [0.0] * len(drafters)
    if len(drafters) > len(string.ascii_uppercase):
        raise GateError(f"{len(drafters)} drafters are too many: at most {len(string.ascii_uppercase)} have letters.")
    if len(ratios) != len(drafters):
        raise GateError(f"{len(ratios)} --cost-ratio for {len(drafters)} drafters. Give one for each.")
    try:
        numbers = [int(number) for number in k.split(",")] if k else [None]
    except ValueError as error:
        raise GateError(f"--k {k!r} is not a list of numbers. Example: --k 1,2,3.") from error
    candidates = []
    for letter, (drafter, ratio) in zip(string.ascii_uppercase, zip(drafters, ratios, strict=True), strict=False):
        console.print(f"{letter}: {json.dumps(drafter)}", markup=False)
        for number in numbers:
            config = drafter | ({} if number is None else {"num_speculative_tokens": number})
            settings = Settings(
                model=model,
                speculative_config=config,
                num_speculative_tokens=config.get("num_speculative_tokens", 0),
                prompts=str(prompts),
                prompts_digest=digest_of(listed),
                all_turns=all_turns,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
            )
            measurement = source.measure(settings, listed)
            name = f"{letter} k={measurement.num_drafts}"
            candidates.append(
                comparing.Candidate(
                    name=name, num_drafts=measurement.num_drafts, cost_ratio=ratio, measurement=measurement
                )
            )
    comparing.check_same_trajectory(candidates)
    console.print(compare_report.candidates_table(candidates))
    for other in candidates[1:]:
        comparison = comparing.compare(candidates[0], other, num_comparisons=len(candidates) - 1)
        console.print()
        console.print(compare_report.comparison_text(comparison))
    return True


@app.command()
@gated
def accuracy(
    questions: Annotated[Path, typer.Option(help="GSM8K .jsonl: question and answer; the answer ends in #### number.")],
    few_shot: Annotated[
        Path | None, typer.Option(help="Worked examples in the same form, prepended to each question.")
    ] = None,
    model: Model = None,
    speculative_config: Speculative = None,
    max_tokens: MaxTokens = 256,
    baseline: Annotated[Path | None, typer.Option(help="TOML file with the measured threshold.")] = None,
    record: Annotated[bool, typer.Option(help="Write the measured threshold to --baseline.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Minimum share of correct answers, instead of a file.")
    ] = None,
    device: Device = "auto",
    attention_backend: AttentionBackend = "auto",
    max_model_len: MaxModelLen = None,
) -> bool:
    """Answer questions with and without speculation. Outputs must be equal and the score must reach its threshold."""
    if (baseline is None) == (threshold is None):
        raise GateError("give either --baseline (a measured threshold) or --threshold (a share of correct answers).")
    if threshold is not None and not 0.0 < threshold <= 1.0:
        raise GateError(f"--threshold {threshold} gates nothing: it takes a share above 0, at most 1.")
    model = model_or_shipped(model)
    drafter = drafter_to_gate(model, speculative_config)
    if not drafter:
        raise GateError("accuracy needs --speculative-config: it compares answers with and without a drafter.")
    listed = read_prompts(questions)
    examples = read_prompts(few_shot) if few_shot else []
    check_questions([*listed, *examples])
    run: dict[str, Any] = {
        "questions_digest": digest_of([*examples, *listed]),
        "max_tokens": max_tokens,
        "num_shots": len(examples),
    }
    recorded = None
    if baseline is not None and not record:
        recorded = accuracy_gate.read_accuracy(baseline)
        for name, value in run.items():
            if getattr(recorded, name) != value:
                raise GateError(
                    f"{name} is {value!r} here and {getattr(recorded, name)!r} in {baseline}. Repeat that run, or "
                    "record again."
                )
    source = Source(endpoint=None, device=device, attention_backend=attention_backend, max_model_len=max_model_len)
    engines = [
        open_engine(model, drafter, **source.engine_options()),
        LLM(model, logits_digest=True, **source.engine_options()),
    ]
    outputs = [accuracy_gate.run_questions(llm, listed, examples, max_tokens=max_tokens) for llm in engines]
    result = accuracy_gate.grade(listed, *outputs)
    if record:
        assert baseline is not None, "checked above"
        recorded = accuracy_gate.accuracy_baseline(result, **run)
        accuracy_gate.write_accuracy(recorded, baseline)
    least = recorded.threshold if recorded is not None else threshold
    assert least is not None
    console.print(
        f"{result.num_right} of {result.num_questions} right ({result.score:.1%}), without speculation "
        f"{result.num_right_plain}; threshold {least:.1%}; answers that speculation changed: {len(result.differing)}"
    )
    for name in result.differing:
        console.print(f"question {name}: tokens, logits or text differ with speculation", markup=False)
    return result.passed(least)


@app.command()
@gated
def lanes(
    since: Annotated[str, typer.Option(help="Revision to compare the work tree with.")] = "HEAD",
    file: Annotated[Path, typer.Option(help="Lanes file; its folder's repository is compared.")] = Path("lanes.toml"),
    nightly: Annotated[bool, typer.Option(help="Print every lane, whatever changed.")] = False,
    form: Annotated[str, typer.Option("--format", help="text, github or buildkite.")] = "text",
) -> bool:
    """Print the gate entries and tests to run for the changes since a revision."""
    forms: dict[str, Callable[..., str]] = {
        "text": lambda _, chosen: lane_files.table(chosen),
        "github": lane_files.github_matrix,
        "buildkite": lane_files.buildkite_steps,
    }
    if form not in forms:
        raise GateError(f"--format {form!r} is not known. Known: {', '.join(forms)}.")
    listed = lane_files.read_lanes(file)
    changed = [] if nightly else lane_files.changed_files(since, root=file.resolve().parent)
    typer.echo(forms[form](listed, listed.due(changed, is_nightly=nightly)))
    return True
