"""Terminal output: tokens coloured by origin, acceptance of drafts, and whether two runs are equal.

Knows outputs and a tokenizer; runs nothing.
"""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from outrider.core.outputs import RequestOutput, SpeculationStats
from outrider.engine.tokenizer import Tokenizer

DRAFT_STYLE = "bold green"
TARGET_STYLE = "yellow"


def legend(*, with_prompt: bool = True) -> Text:
    """One line that explains the colours."""
    prompt: list[str | tuple[str, str]] = ["   ", ("prompt", "dim")] if with_prompt else []
    return Text.assemble(("accepted draft", DRAFT_STYLE), "   ", ("the target's own token", TARGET_STYLE), *prompt)


def coloured(output: RequestOutput, tokenizer: Tokenizer) -> Text:
    """Prompt and completion, each token in the colour of its origin."""
    text = Text()
    text.append(output.prompt if output.prompt is not None else tokenizer.decode(output.prompt_token_ids), "dim")
    completion = output.outputs[0]
    stream = tokenizer.stream()
    left = len(completion.text)
    for token_id, is_draft in zip(completion.token_ids, completion.is_draft, strict=True):
        piece = stream.push(token_id)[:left]
        left -= len(piece)
        text.append(piece, DRAFT_STYLE if is_draft else TARGET_STYLE)
    text.append(completion.text[len(completion.text) - left :] if left else "", TARGET_STYLE)
    return text


def panel(output: RequestOutput, tokenizer: Tokenizer, *, title: str) -> Panel:
    """One completion in a frame, with its figures at the bottom."""
    return Panel(
        coloured(output, tokenizer),
        title=title,
        title_align="left",
        subtitle=_figures(output),
        subtitle_align="right",
    )


_ENDINGS = {"stop": "ended", "length": "cut off"}
"""Finish reasons in the words of a person; short, because two panels share 80 columns."""


def _figures(output: RequestOutput) -> str:
    stats, count = output.speculation, len(output.outputs[0].token_ids)
    reason = output.outputs[0].finish_reason or ""
    figures = f"{count} tokens in {stats.num_steps} steps, {_ENDINGS.get(reason, reason)}"
    return f"{figures}, synthetic acceptance: NOT EXACT" if stats.is_synthetic else figures


def total(outputs: Sequence[RequestOutput]) -> SpeculationStats:
    """Sums the counts of all outputs."""
    stats = SpeculationStats()
    for output in outputs:
        stats.add(output.speculation)
    return stats


def speculation_table(outputs: Sequence[RequestOutput], *, title: str) -> Table:
    """Acceptance length, acceptance rate per position and steps saved, over all outputs."""
    stats = total(outputs)
    num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    table = Table(title=title, title_justify="left", show_header=False)
    per_step = num_tokens / stats.num_steps if stats.num_steps else 0.0
    saved = num_tokens - stats.num_steps
    share = saved / num_tokens if num_tokens else 0.0
    table.add_row("target steps", f"{stats.num_steps} for {num_tokens} tokens: {saved} saved ({share:.0%})")
    table.add_row("tokens per step", f"{per_step:.2f}, over all steps")
    length = f"{stats.mean_acceptance_length:.2f} of at most {1 + stats.max_drafts}, over the {stats.num_drafts} steps"
    table.add_row("mean acceptance length", f"{length} that had drafts (a prompt's step has none)")
    for position, rate in enumerate(stats.acceptance_rate_per_pos, start=1):
        table.add_row(f"draft {position} accepted", f"{rate:6.1%}  {'█' * round(rate * 30)}")
    return table


def cost(*, seconds: float, plain_seconds: float) -> Text:
    """One line that says whether drafts saved time; both without loading."""
    figures = f"{seconds:.1f} s with drafts, {plain_seconds:.1f} s without"
    if seconds > plain_seconds:
        slower = f"{seconds / plain_seconds:.2f} times as long"
        return Text(f"Slower: {figures}, {slower}. Here drafts cost more time than they save.", "bold yellow")
    return Text(f"Faster: {figures}, {plain_seconds / seconds:.2f} times as fast.", "bold green")


def differences(ours: Sequence[RequestOutput], plain: Sequence[RequestOutput]) -> list[str]:
    """Describes each difference between two runs of the same prompts: tokens, text, finish reason, logits digest."""
    found = []
    for index, (left, right) in enumerate(zip(ours, plain, strict=True)):
        a, b = left.outputs[0], right.outputs[0]
        if a.token_ids != b.token_ids:
            place = next(
                (i for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=False)) if x != y),
                min(len(a.token_ids), len(b.token_ids)),
            )
            found.append(f"prompt {index}: tokens differ from output token {place} on")
        elif a.logits_digest != b.logits_digest:
            found.append(f"prompt {index}: same tokens, logits digests {a.logits_digest} and {b.logits_digest}")
        elif (a.text, a.finish_reason, a.stop_reason) != (b.text, b.finish_reason, b.stop_reason):
            found.append(f"prompt {index}: same tokens, but text or finish reason differ")
    return found


def _prompts(count: int) -> str:
    return "the prompt" if count == 1 else f"the {count} prompts"


def verdict(ours: Sequence[RequestOutput], plain: Sequence[RequestOutput]) -> Text:
    """One line that says whether speculation changed anything."""
    wrong = differences(ours, plain)
    if wrong:
        return Text("NOT EXACT: " + "; ".join(wrong), "bold red")
    num_tokens = sum(len(output.outputs[0].token_ids) for output in ours)
    same = f"run again without speculation, {_prompts(len(ours))} gave the same {num_tokens} tokens"
    if any(output.outputs[0].logits_digest is None for output in (*ours, *plain)):
        return Text(
            f"Same tokens: {same}. Their logits were not compared: the engine ran without logits_digest.", "bold green"
        )
    return Text(f"Exact: {same} and the same logits digests, bit for bit.", "bold green")


def side_by_side(console: Console, pairs: Sequence[tuple[RequestOutput, RequestOutput]], tokenizer: Tokenizer) -> None:
    """Prints each prompt twice: with speculation on the left, without on the right."""
    for number, (ours, plain) in enumerate(pairs, start=1):
        prefix = f"prompt {number}, " if len(pairs) > 1 else ""
        table = Table.grid(expand=True)
        table.add_column(ratio=1)
        table.add_column(ratio=1)
        table.add_row(
            panel(ours, tokenizer, title=f"{prefix}with speculation"),
            panel(plain, tokenizer, title=f"{prefix}without"),
        )
        console.print(Group(table))
