"""The engine's counts against the deltas that its callers got, token by token and request by request."""

from pathlib import Path

import pytest

from outrider import LLM, OutputDelta, RequestOutput, SamplingParams
from outrider.core.outputs import FinishReason
from outrider.engine.stats import TURN_TOKENS, EngineStats

from .text_model import write_text_model

NGRAM = {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 2, "num_speculative_tokens": 3}
PROMPTS = ["def add(a, b):\n" * 3, "a b a b a b a", "xyz", "for for for for", "1 2 3 1 2 3 1 2"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("stats-model"))


class Watched:
    """An engine that runs requests, and an account of every delta."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.engine = LLM(str(directory), **({"speculative_config": NGRAM, "max_model_len": 256} | options)).engine
        self.deltas: list[OutputDelta] = []
        self.outputs: dict[str, RequestOutput] = {}
        self.seen: list[EngineStats] = []

    def add(self, prompt: str, **params: object) -> str:
        request = self.engine.new_request(prompt, SamplingParams(**({"max_tokens": 30, "seed": 1} | params)))
        self.engine.add(request, on_delta=self.deltas.append)
        return request.request_id

    def step(self) -> None:
        for output in self.engine.step():
            self.outputs[output.request_id] = output
        self.check()

    def drain(self) -> EngineStats:
        while self.engine.has_work:
            self.step()
        return self.engine.stats()

    def check(self) -> None:
        stats = self.engine.stats()
        assert stats.num_generation_tokens == sum(len(delta.token_ids) for delta in self.deltas)
        pool = self.engine.scheduler.pool
        assert (stats.num_used_blocks, stats.num_blocks) == (pool.num_usable - pool.num_free, pool.num_usable)
        if self.seen:
            for now, before in zip(counters(stats), counters(self.seen[-1]), strict=True):
                assert now >= before, "a counter fell"
        self.seen.append(stats)


def counters(stats: EngineStats) -> tuple[int, ...]:
    counts = stats.speculation
    return (
        stats.num_steps, stats.num_preemptions, stats.num_prompt_tokens, stats.num_cached_prompt_tokens,
        stats.num_generation_tokens, stats.num_prefix_queried_tokens, stats.num_prefix_hit_tokens, counts.num_drafts,
        counts.num_draft_tokens, counts.num_accepted_tokens, *counts.num_accepted_tokens_per_pos,
        *stats.finished.values(), *stats.turn_counts, stats.turn_tokens,
    )  # fmt: skip


def check_against(stats: EngineStats, outputs: list[RequestOutput]) -> None:
    """Everything that follows from finished outputs."""
    completions = [completion for output in outputs for completion in output.outputs]
    assert stats.num_generation_tokens == sum(len(completion.token_ids) for completion in completions)
    for reason in FinishReason:
        assert stats.finished[reason.value] == sum(entry.finish_reason == reason.value for entry in completions)
    counts = stats.speculation
    assert counts.num_accepted_tokens == sum(sum(completion.is_draft) for completion in completions)
    assert counts.num_accepted_tokens == sum(counts.num_accepted_tokens_per_pos)
    assert counts.num_drafts == sum(output.speculation.num_drafts for output in outputs)
    assert counts.num_draft_tokens == sum(output.speculation.num_draft_tokens for output in outputs)
    assert counts.max_drafts == 3 and not counts.is_synthetic
    assert stats.num_running == stats.num_waiting == stats.num_used_blocks == 0


def test_counts_are_what_callers_were_told(directory: Path) -> None:
    """Stop strings, n completions, an abort while running and one in the queue; few rows, so that some wait."""
    watched = Watched(directory, max_num_seqs=3)
    for index, prompt in enumerate(PROMPTS):
        watched.add(prompt, n=1 + index % 2, temperature=0.7 * (index % 3))
    watched.add(PROMPTS[0], temperature=0.0, stop=["e"])
    early = watched.add(PROMPTS[1], max_tokens=100, ignore_eos=True, priority=-1)
    late = watched.add(PROMPTS[2], priority=9)
    for _ in range(12):
        watched.step()
    assert watched.seen[-1].num_running == 3 and watched.seen[-1].num_waiting > 0
    for request_id in (early, late):
        output = watched.engine.abort(request_id)
        assert output is not None
        watched.outputs[request_id] = output
    stats = watched.drain()
    outputs = list(watched.outputs.values())
    check_against(stats, outputs)
    assert stats.finished["abort"] == 2 and stats.finished["length"] > 0
    prompts = [
        len(output.prompt_token_ids) for output in outputs for entry in output.outputs if entry.token_ids
    ]  # fmt: skip
    assert stats.num_prompt_tokens == sum(prompts), "a completion that emitted nothing has no prompt counted"
    assert stats.speculation.num_drafts > 0 and stats.speculation.num_accepted_tokens > 0
    assert stats.is_exact


def test_tokens_behind_a_stop_are_not_counted(directory: Path) -> None:
    """All drafts are right, so the prompt's step gives one token and each later one four; stops fall on every place."""
    free = Watched(directory)
    free.add(PROMPTS[1], temperature=0.0, max_tokens=60, ignore_eos=True)
    free.drain()
    (whole,) = free.outputs.values()
    token_ids = whole.outputs[0].token_ids
    places = [index for index in range(1, 55) if token_ids.index(token_ids[index]) == index]
    assert {place % 4 for place in places} == {0, 1, 2, 3}, "choose another prompt: stops must fall on every place"
    answers = {"answers": [[*whole.prompt_token_ids, *token_ids]], "probability": 1.0}
    replay = {"method": "tests.support.drafters.replay", "num_speculative_tokens": 3, **answers}
    stopped = Watched(directory, speculative_config=replay)
    for place in places:
        stopped.add(PROMPTS[1], temperature=0.0, max_tokens=60, ignore_eos=True, stop_token_ids=[token_ids[place]])
    stats = stopped.drain()
    check_against(stats, list(stopped.outputs.values()))
    assert stats.finished["stop"] == len(places)
    assert stats.num_generation_tokens == sum(place + 1 for place in places)
    counts = stats.speculation
    assert counts.num_drafts == sum(-(-place // 4) for place in places)
    assert counts.num_draft_tokens == 3 * counts.num_drafts
    assert counts.num_accepted_tokens == sum(place - place // 4 for place in places)


def test_preemption_counts_prompts_and_tokens_once(directory: Path) -> None:
    watched = Watched(directory, num_gpu_blocks_override=12, enable_prefix_caching=False)
    for index, prompt in enumerate(PROMPTS):
        watched.add(prompt, max_tokens=70, ignore_eos=True, temperature=0.5 * (index % 2))
    stats = watched.drain()
    outputs = list(watched.outputs.values())
    assert stats.num_preemptions == sum(output.num_preemptions for output in outputs) > 0
    check_against(stats, outputs)
    assert stats.num_prompt_tokens == sum(len(output.prompt_token_ids) for output in outputs)
    assert stats.num_cached_prompt_tokens == stats.num_prefix_hit_tokens == 0
    assert stats.turn_tokens > stats.num_prompt_tokens + stats.num_generation_tokens, "replays are work of a turn"


def test_cached_prompts_and_sizes_of_turns(directory: Path) -> None:
    watched = Watched(directory)
    for _ in range(2):
        watched.add(PROMPTS[0] * 3, max_tokens=5, ignore_eos=True)
        watched.drain()
    stats = watched.engine.stats()
    outputs = list(watched.outputs.values())
    cached = sum(output.num_cached_tokens for output in outputs)
    assert stats.num_cached_prompt_tokens == stats.num_prefix_hit_tokens == cached > 0
    assert stats.num_prefix_queried_tokens == stats.num_prompt_tokens == 2 * len(outputs[0].prompt_token_ids)
    assert stats.turn_tokens == stats.num_prompt_tokens - cached + stats.num_generation_tokens
    assert len(stats.turn_counts) == len(TURN_TOKENS) + 1 and 0 < sum(stats.turn_counts) <= stats.num_steps * 2


def test_times_of_a_request_lie_behind_each_other(directory: Path) -> None:
    watched = Watched(directory, max_num_seqs=1)
    first, second, never = watched.add(PROMPTS[0]), watched.add(PROMPTS[1], n=2), watched.add(PROMPTS[2])
    aborted = watched.engine.abort(never)
    watched.drain()
    assert aborted is not None and aborted.timing is not None
    assert aborted.timing.prefill is None and aborted.timing.decode is None and aborted.timing.queue >= 0
    early, late = watched.outputs[first].timing, watched.outputs[second].timing
    assert early is not None and late is not None
    for timing in (early, late):
        assert timing.prefill is not None and timing.decode is not None
        assert min(timing.queue, timing.prefill, timing.decode) >= 0
    assert early.prefill is not None and early.decode is not None
    assert late.queue > early.prefill + early.decode, "the second waited for the first one's row"
