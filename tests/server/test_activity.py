"""The line that the server logs every ten seconds in which something happened."""

from dataclasses import replace

from outrider.core.draft_cost import DraftCost
from outrider.core.outputs import SpeculationStats
from outrider.engine.stats import TURN_TOKENS, EngineStats
from outrider.server.activity import Activity, Reporter

STATS = EngineStats(
    is_exact=True,
    num_running=4,
    num_waiting=1,
    num_used_blocks=8,
    num_blocks=100,
    num_steps=50,
    num_replayed_steps=0,
    num_preemptions=0,
    num_prompt_tokens=1000,
    num_cached_prompt_tokens=0,
    num_generation_tokens=2500,
    num_prefix_queried_tokens=0,
    num_prefix_hit_tokens=0,
    speculation=SpeculationStats(max_drafts=3, num_drafts=100, num_accepted_tokens=150),
    finished={},
    turn_counts=(0,) * (len(TURN_TOKENS) + 1),
    turn_tokens=0,
)


def test_a_line_says_what_has_changed() -> None:
    activity = Activity()
    reporter = Reporter(activity)
    assert reporter.line(None, 10.0) is None
    for status in (200, 200, 429, 400, 500):
        activity.note(status)
    expected = (
        "last 10 s: 2 requests answered, 3 refused; 100 prompt and 250 output tokens/s; 4 running, 1 waiting; "
        "acceptance length 2.50"
    )
    assert reporter.line(STATS, 10.0) == expected
    assert reporter.line(STATS, 10.0) is None, "nothing has changed"
    activity.note(200)
    assert reporter.line(STATS, 10.0) == (
        "last 10 s: 1 request answered; 0 prompt and 0 output tokens/s; 4 running, 1 waiting"
    )


def test_a_restarted_engine_counts_from_zero() -> None:
    reporter = Reporter(Activity())
    reporter.line(STATS, 10.0)
    restarted = replace(STATS, num_prompt_tokens=20, num_generation_tokens=30, speculation=SpeculationStats())
    line = reporter.line(restarted, 10.0)
    assert line is not None and "2 prompt and 3 output tokens/s" in line


def test_a_line_says_so_if_drafts_cost_more_time_than_they_save() -> None:
    """The acceptance length of STATS is 2.5: below the ratio of every load, or not below that of one."""
    dear, cheap = DraftCost(num_drafts=3, ratios={1: 2.6, 8: 3.5}), DraftCost(num_drafts=3, ratios={1: 2.4, 8: 3.5})
    line = Reporter(Activity()).line(STATS, 10.0, draft_cost=dear)
    assert line is not None and line.endswith(
        "; acceptance length 2.50; drafts cost more time than they save: with 1 request a step with 3 drafts takes "
        "2.60 times as long as one without, with 8 requests 3.50 times"
    )
    line = Reporter(Activity()).line(STATS, 10.0, draft_cost=cheap)
    assert line is not None and line.endswith("; acceptance length 2.50")
