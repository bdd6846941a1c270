"""Times of steps are learned from any order of steps, and bound what a step computes beside the rows of other calls."""

import random

import pytest

from outrider.scheduler.step_limit import LONGEST_RATIO, LONGEST_WAIT
from outrider.scheduler.work_times import Work, WorkTimes

from .hash_model import VOCAB_SIZE, Job, Setting, seconds_of
from .loop import Loop


class Steps:
    """Steps that take what `seconds` says, with the machine's pauses."""

    def __init__(self, seed: int) -> None:
        self.times = WorkTimes()
        self._rng = random.Random(seed)

    def run(self, work: Work) -> float:
        took = seconds_of(work)
        pause = 8.0 if self._rng.random() < 0.05 else 1.0
        self.times.observe(work, took * self._rng.lognormvariate(0, 0.15) * pause)
        return took


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_scored", [False, True])
def test_a_long_prompt_beside_a_stream_is_cut_to_the_limit(seed: int, is_scored: bool) -> None:
    """Also the first one that the engine sees, and the costly end of each."""
    steps = Steps(seed)
    for length in range(5, 65):
        steps.run(Work(rows=1, tokens=4, reads=length, logits=4))
    for prompt in range(3):
        done = count = 0
        while done < 2000:
            stream = Work(rows=1, tokens=4, reads=400, logits=4)
            limit = max(LONGEST_WAIT, LONGEST_RATIO * steps.times.seconds(stream))
            most = steps.times.most_tokens(stream, limit, context=done, is_scored=is_scored)
            chunk = min(max(most, 16), 2000 - done)
            done, count = done + chunk, count + 1
            logits = 4 + (chunk if is_scored else 1)
            took = steps.run(Work(rows=2, tokens=4 + chunk, reads=400 + -(-chunk // 16) * done, logits=logits))
            assert took < 0.095, (prompt, done, chunk)
        assert count < 130, "chunks are as large as the limit allows"


def test_unknown_work_is_tried_in_small_pieces() -> None:
    times = WorkTimes()
    stream = Work(rows=1, tokens=4, reads=10, logits=4)
    times.observe(stream, 0.02)
    assert 0 < times.most_tokens(stream, 0.04, context=0, is_scored=False) <= 64
    assert times.most_tokens(stream, 0.04, context=2000, is_scored=False) <= 16


def test_old_times_of_a_busy_machine_are_given_up() -> None:
    steps = Steps(1)
    for tokens in range(4, 400, 4):
        steps.times.observe(
            Work(rows=1, tokens=tokens, reads=tokens**2 // 16, logits=1),
            10 * seconds_of(Work(1, tokens, tokens**2 // 16, 1)),
        )
    work = Work(rows=1, tokens=100, reads=10_000, logits=1)
    for _ in range(3):
        for tokens in (4, 20, 50, 100, 200, 300):
            steps.times.observe(
                Work(rows=1, tokens=tokens, reads=tokens**2 // 16, logits=1),
                seconds_of(Work(1, tokens, tokens**2 // 16, 1)),
            )
    assert steps.times.seconds(work) == pytest.approx(seconds_of(work), rel=0.3)


def job(name: str, num_prompt_tokens: int, *, call_id: str, **fields: int) -> Job:
    """A prompt that shares nothing with one of another name."""
    rng = random.Random(name)
    prompt = tuple(rng.randrange(VOCAB_SIZE) for _ in range(num_prompt_tokens))
    return Job(request_id=name, prompt=prompt, call_id=call_id, **fields)


ROWS, PROMPTS, LONG = "rows", "prompts", "long"


def crowd(kind: str, call_id: str) -> list[Job]:
    """A call that asks for many completions, for many prompts, or with one long prompt."""
    if kind == LONG:
        return [job("long", 900, call_id=call_id, max_tokens=2)]
    size, count = (3, 40) if kind == ROWS else (40, 2)
    return [job(f"{kind}{index}", size, call_id=call_id, max_tokens=count) for index in range(30)]


SETTING = Setting(max_num_seqs=32, budget=576, num_blocks=400, num_drafts=3, depth=1, learns=True)


def beside(loop: Loop, kind: str, call_id: str) -> list[Work]:
    """The work of each step from the arrival of the crowd on, while a stream runs that is in every second step at
    least (one is in flight)."""
    loop.add(job("stream", 8, call_id="stream", max_tokens=400))
    for _ in range(20):
        loop.turn()
    first = len(loop.plans)
    for entry in crowd(kind, call_id):
        loop.add(entry)
    loop.run_until(lambda: len(loop.scheduler.running) + len(loop.scheduler.waiting) == 1)
    plans = loop.plans[first:]
    assert all("stream" in {row.request_id for row in plan.rows} for plan in plans)
    return [Work.of(plan.rows) for plan in plans]


@pytest.mark.parametrize("kind", [ROWS, PROMPTS, LONG])
def test_no_call_holds_up_a_stream_beside_it(kind: str) -> None:
    works = beside(Loop(SETTING), kind, "crowd")
    assert max(seconds_of(work) for work in works) < 0.09
    assert max(work.tokens for work in works) > 40, "what fits is used"


@pytest.mark.parametrize("kind", [ROWS, PROMPTS, LONG])
def test_a_call_alone_has_no_limit(kind: str) -> None:
    works = beside(Loop(SETTING), kind, "stream")
    assert max(seconds_of(work) for work in works) > 0.1


def test_calls_of_one_row_each_are_all_in_every_step() -> None:
    """None of them is another's crowd: each gets its next tokens as soon as it can."""
    loop = Loop(SETTING)
    for index in range(30):
        loop.add(job(f"r{index}", 3, call_id=f"r{index}", max_tokens=60))
    loop.run_until(lambda: min(state.num_output_tokens for state in loop.requests.values()) >= 20)
    assert {len(plan.rows) for plan in loop.plans[-6:]} == {30}
    loop.run()
