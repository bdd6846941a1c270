"""The comparison of two runs that `outrider demo` and `generate --compare` print."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from outrider import show
from outrider.core.outputs import CompletionOutput, RequestOutput, SpeculationStats


def output(**changes: Any) -> RequestOutput:
    """A finished output; `changes` are fields of its completion."""
    completion = CompletionOutput(
        index=0, text="abc", token_ids=[1, 2, 3], finish_reason="stop", stop_reason="c", logits_digest="12ab"
    )
    return RequestOutput(
        request_id="0", prompt="p", prompt_token_ids=[9], outputs=[replace(completion, **changes)], seed=0,
        num_cached_tokens=0, num_preemptions=0, speculation=SpeculationStats(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"token_ids": [1, 5, 3]}, "prompt 1: tokens differ from output token 1 on"),
        ({"token_ids": [1, 2]}, "prompt 1: tokens differ from output token 2 on"),
        ({"logits_digest": "12ac"}, "prompt 1: same tokens, logits digests 12ab and 12ac"),
        ({"logits_digest": None}, "prompt 1: same tokens, logits digests 12ab and None"),
        ({"text": "abd"}, "prompt 1: same tokens, but text or finish reason differ"),
        ({"finish_reason": "length"}, "prompt 1: same tokens, but text or finish reason differ"),
        ({"stop_reason": None}, "prompt 1: same tokens, but text or finish reason differ"),
    ],
)
def test_every_difference_is_named(changes: dict[str, Any], found: str) -> None:
    ours, plain = [output(), output()], [output(), output(**changes)]
    assert show.differences(ours, plain) == [found]
    assert show.verdict(ours, plain).plain == "NOT EXACT: " + found


def test_equal_bits_are_claimed_of_recorded_digests_only() -> None:
    both = [output(), output()]
    assert show.verdict(both, both).plain == (
        "Exact: run again without speculation, the 2 prompts gave the same 6 tokens and the same logits digests, bit "
        "for bit."
    )
    without = [output(), output(logits_digest=None)]
    said = show.verdict(without, without).plain
    assert said.startswith("Same tokens: run again without speculation, the 2 prompts gave the same 6 tokens.")
    assert "were not compared" in said and "xact" not in said and "bit for bit" not in said


def test_the_cost_of_drafts_is_said_either_way() -> None:
    assert show.cost(seconds=2.0, plain_seconds=3.0).plain == (
        "Faster: 2.0 s with drafts, 3.0 s without, 1.50 times as fast."
    )
    assert show.cost(seconds=3.1, plain_seconds=3.0).plain == (
        "Slower: 3.1 s with drafts, 3.0 s without, 1.03 times as long. Here drafts cost more time than they save."
    )


def test_two_panels_fit_80_columns() -> None:
    ours = output(finish_reason="length", token_ids=[1] * 128, is_draft=[False] * 128)
    ours.speculation.num_steps = 128
    console = Console(width=80, file=io.StringIO())
    show.side_by_side(console, [(ours, ours)] * 2, Words())  # type: ignore[arg-type]
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("128 tokens in 128 steps, cut off") == 4
    assert "prompt 1, with speculation" in shown and "prompt 2, without" in shown
    assert max(map(len, shown.splitlines())) <= 80


class Words:
    """A tokenizer in which every token is a word."""

    def stream(self) -> "Words":
        return self

    def push(self, token_id: int) -> str:
        return f"w{token_id} "
