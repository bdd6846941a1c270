"""A caller who leaves, on the engine's side of the socket: how many steps later its blocks are free."""

import socket
from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
from outrider.engine.channel import Channel
from outrider.engine.messages import Abort, Add, Turn
from outrider.engine.process import _Session

from .text_model import write_text_model

NGRAM = {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 2}


@pytest.mark.parametrize("depth", [0, 1])
def test_blocks_are_free_within_two_steps(tmp_path: Path, depth: int) -> None:
    """Aborts a running request with n completions and a waiting one; the third goes on as if it were alone."""
    directory = write_text_model(tmp_path)
    engine = LLM(str(directory), speculative_config=NGRAM, max_num_seqs=4, overlap_depth=depth).engine
    params = SamplingParams(max_tokens=120, ignore_eos=True, seed=3)
    requests = {
        "stays": engine.new_request("a b a b", params, request_id="stays"),
        "leaves": engine.new_request("def f" * 9, SamplingParams(max_tokens=300, n=3), request_id="leaves"),
        "waits": engine.new_request("xyz", params, request_id="waits"),
    }
    ours, theirs = socket.socketpair()
    client, other_end = Channel(ours), Channel(theirs)
    session = _Session(other_end, engine)
    scheduler, pool = engine.scheduler, engine.scheduler.pool
    left_at, free_at = -1, -1
    texts: dict[str, str] = dict.fromkeys(requests, "")

    def after_turn() -> None:
        nonlocal left_at, free_at
        session.after_turn()
        for message in client.receive():
            assert isinstance(message, Turn)
            for delta in message.deltas:
                texts[delta.request_id] += delta.text if delta.index == 0 else ""
        held = {request.request_id for request in (*scheduler.running, *scheduler.waiting)}
        if left_at < 0 and scheduler.num_steps == 9:
            assert held == {"stays", "leaves", "leaves#1", "leaves#2", "waits"} and len(scheduler.waiting) == 1
            left_at = scheduler.num_steps
            client.send(Abort("leaves"))
            client.send(Abort("waits"))
        elif left_at >= 0 and free_at < 0 and held <= {"stays"}:
            free_at = scheduler.num_steps
            (stays,) = scheduler.running
            assert pool.num_usable - pool.num_free == len(stays.block_ids), "only the one that stays holds blocks"
        if not engine.has_work:
            client.close()

    for request in requests.values():
        client.send(Add(request))
    session.loop.run(session, after_turn=after_turn)
    other_end.close()
    assert session.loop.failed is None
    assert 0 <= free_at - left_at <= 2
    stats = engine.stats()
    assert stats.num_used_blocks == 0 and stats.finished["abort"] == 4 and stats.finished["length"] == 1
    assert texts["leaves"] and not texts["waits"]
    alone = LLM(str(directory), speculative_config=NGRAM, overlap_depth=depth).generate("a b a b", params)[0]
    assert texts["stays"] == alone.outputs[0].text
