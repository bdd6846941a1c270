"""The n completions of a prompt: separate requests that share nothing that changes, and cross the socket whole."""

import pickle
from dataclasses import fields

from outrider.core.kv_groups import BlockGroup
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.group import completion_requests
from outrider.engine.messages import Add
from outrider.engine.request_times import RequestTimes
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler

ASKED = Request(
    request_id="a", prompt_token_ids=(1, 2, 3), params=SamplingParams(n=3, prompt_logprobs=2, stop_token_ids=[5]),
    seed=7, eos_token_ids=(0,), max_total_tokens=20, prompt="abc", bad_words=((4, 5),),
)  # fmt: skip


def contents(request: Request) -> dict[str, object]:
    return {entry.name: getattr(request, entry.name) for entry in fields(request)}


def test_completions_differ_in_id_and_index_and_the_first_alone_scores_the_prompt() -> None:
    first, *others = completion_requests(ASKED)
    assert first is ASKED
    assert [(other.request_id, other.completion_index) for other in others] == [("a#1", 1), ("a#2", 2)]
    assert all(other.params.prompt_logprobs is None for other in others)
    for other in others:
        kept = contents(ASKED).keys() - {"request_id", "completion_index", "params"}
        assert all(contents(other)[name] == contents(ASKED)[name] for name in kept)


def test_states_of_completions_share_nothing_that_changes() -> None:
    scheduler = Scheduler(
        groups=(BlockGroup(block_size=16),), num_blocks=(8,), max_num_seqs=3, max_num_batched_tokens=64,
        num_drafts=2, num_lookahead=0, enable_prefix_caching=True, stop_rule=None,
    )  # fmt: skip
    states = [scheduler.add(request) for request in completion_requests(ASKED)]
    owners: dict[int, str] = {}
    for state in states:
        for entry in fields(RequestState):
            value = getattr(state, entry.name)
            if isinstance(value, list) or entry.name == "speculation":
                assert owners.setdefault(id(value), state.request_id) == state.request_id, f"{entry.name} is shared"


def test_a_request_crosses_the_socket_whole() -> None:
    received = pickle.loads(pickle.dumps(Add(ASKED))).request
    assert contents(received) == contents(ASKED)


def test_times_of_a_request_are_those_between_its_events() -> None:
    timing = RequestTimes(queued=1.0, planned=3.0, first_token=7.0).timing(12.0)
    assert (timing.queue, timing.prefill, timing.decode) == (2.0, 4.0, 5.0)
    never_planned = RequestTimes(queued=1.0).timing(4.0)
    assert (never_planned.queue, never_planned.prefill, never_planned.decode) == (3.0, None, None)
