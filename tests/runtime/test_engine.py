"""The engine around the step: overlap, aborts, refusals, seeds; whatever happens, other requests are not disturbed."""

import pytest
import torch

from outrider import ConfigError, RequestError, SamplingParams, UnsupportedError
from outrider.attention.backends import oracle
from outrider.core.outputs import RequestOutput
from outrider.platforms import cpu
from outrider.runtime.describe import describe
from outrider.server.metrics import Metrics
from tests.support import request_mix
from tests.support.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("engine")
    write_tiny_model(
        directory, "qwen3", vocab_size=request_mix.VOCAB, eos_token_id=request_mix.EOS, max_position_embeddings=512
    )
    return directory


@pytest.fixture(scope="module")
def some():
    return request_mix.make_cases()[1:6]


@pytest.fixture(scope="module")
def expected(target, some):
    return request_mix.truth(target, some)


def _drain(llm) -> dict[str, RequestOutput]:
    done = {}
    while llm.engine.has_work:
        for output in llm.engine.step():
            done[output.request_id] = output
    return done


def _submit(llm, case) -> str:
    request = llm.engine.new_request({"prompt_token_ids": list(case.prompt)}, case.params)
    llm.engine.add(request)
    return request.request_id


@pytest.mark.parametrize("depth", [0, 1])
def test_a_step_is_planned_while_one_is_in_flight(target, some, depth):
    llm = request_mix.make(target, overlap_depth=depth)
    events = []
    plan, settle = llm.engine.scheduler.plan, llm.engine.scheduler.settle

    def spy_plan():
        made = plan()
        if made is not None:
            events.append(("plan", made.step_id))
        return made

    def spy_settle(settled, result):
        events.append(("settle", settled.step_id))
        return settle(settled, result)

    llm.engine.scheduler.plan, llm.engine.scheduler.settle = spy_plan, spy_settle
    request_mix.run(llm, some)
    order = {event: place for place, event in enumerate(events)}
    last = max(step for kind, step in events if kind == "settle")
    overlapped = [order["plan", step + 1] < order["settle", step] for step in range(1, last - 1)]
    assert all(overlapped) if depth else not any(overlapped)


def test_aborts_leave_the_others_as_they_were(target, some, expected):
    llm = request_mix.make(target, speculative_config={"method": "ngram", "prompt_lookup_min": 1})
    ids = [_submit(llm, case) for case in some]
    waiting = _submit(llm, some[0])
    for _ in range(6):
        llm.engine.step()
    stopped = llm.engine.abort(ids[2])
    assert stopped is not None and stopped.outputs[0].finish_reason == "abort"
    so_far = tuple(stopped.outputs[0].token_ids)
    assert so_far and so_far == expected[2].token_ids[: len(so_far)]
    llm.engine.abort(waiting)
    assert llm.engine.abort("nobody") is None
    done = _drain(llm)
    kept = [0, 1, 3, 4]
    outputs = [done[ids[i]] for i in kept]
    assert request_mix.mismatches([some[i] for i in kept], outputs, [expected[i] for i in kept]) == []
    pool = llm.engine.scheduler.pool
    assert pool.num_free == pool.num_usable


def test_a_bad_prompt_is_refused_before_any_request_runs(target, some, expected):
    llm = request_mix.make(target)
    good = {"prompt_token_ids": list(some[0].prompt)}
    with pytest.raises(RequestError, match="prompt_token_ids holds 61, which is not a token id"):
        llm.generate([good, {"prompt_token_ids": [3, 61]}])
    assert not llm.engine.has_work
    assert request_mix.mismatches(some, request_mix.run(llm, some), expected) == []


def test_a_request_that_cannot_hold_its_blocks_is_refused_and_others_go_on(target, some, expected):
    llm = request_mix.make(target, num_gpu_blocks_override=8)
    with pytest.raises(RequestError, match=r"need 20 KV blocks of 16, and there are 7\. Lower max_tokens"):
        llm.generate({"prompt_token_ids": [3] * 100}, SamplingParams(max_tokens=None))
    assert request_mix.mismatches(some, request_mix.run(llm, some), expected) == []


def test_a_prompt_that_leaves_no_room_is_refused(target):
    llm = request_mix.make(target)
    with pytest.raises(RequestError, match=f"has {request_mix.MAX_MODEL_LEN} tokens and max_model_len"):
        llm.generate({"prompt_token_ids": [3] * request_mix.MAX_MODEL_LEN})


def test_outputs_stop_at_max_model_len(target):
    output = request_mix.make(target, max_model_len=40).generate(
        {"prompt_token_ids": [3] * 30}, SamplingParams(max_tokens=None, ignore_eos=True)
    )[0]
    assert len(output.outputs[0].token_ids) == 10
    assert output.outputs[0].finish_reason == "length"


def test_a_missing_seed_is_drawn_and_reported(target):
    prompt = {"prompt_token_ids": [5, 6, 7]}
    first, second = request_mix.make(target).generate([prompt, prompt], SamplingParams(ignore_eos=True))
    assert first.seed != second.seed
    again = request_mix.make(target).generate(prompt, SamplingParams(ignore_eos=True, seed=second.seed))[0]
    assert again.outputs[0].token_ids == second.outputs[0].token_ids


def test_prompt_and_output_resubmitted_with_the_seed_go_on_identically(target):
    llm = request_mix.make(target)
    params = {"seed": 9, "ignore_eos": True, "temperature": 0.9}
    whole = llm.generate({"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=30, **params))[0]
    head = [5, 6, 7, *whole.outputs[0].token_ids[:12]]
    rest = llm.generate({"prompt_token_ids": head}, SamplingParams(max_tokens=18, **params))[0]
    assert rest.outputs[0].token_ids == whole.outputs[0].token_ids[12:]


def test_dummy_weights_need_a_config_only(target, tmp_path):
    (tmp_path / "config.json").write_text((target / "config.json").read_text())
    prompt, params = {"prompt_token_ids": [5, 6, 7]}, SamplingParams(temperature=0.0)
    outputs = [
        request_mix.make(tmp_path, load_format="dummy", seed=seed).generate(prompt, params)[0] for seed in (1, 1, 2)
    ]
    ids = [output.outputs[0].token_ids for output in outputs]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_seqs": 3}, ConfigError, "option 'max_seqs' is not known. Known: attention_backend"),
        ({"tensor_parallel_size": 2}, UnsupportedError, "tensor_parallel_size=2 is not supported"),
        ({"device": "rocm"}, ConfigError, "device='rocm': this PyTorch .* not for ROCm. Install a build for ROCm"),
        ({"dtype": "bfloat16"}, ConfigError, "a CPU computes in float32"),
        (
            {"max_model_len": 4096},
            ConfigError,
            "max_model_len=4096 is above the model's max_position_embeddings=512",
        ),
        ({"attention_backend": "flash"}, ConfigError, "attention_backend 'flash' is not known. Known: oracle"),
        ({"block_size": 8}, ConfigError, "block_size=8 is out of range"),
        ({"overlap_depth": 2}, ConfigError, "overlap_depth=2 is out of range"),
        (
            {"max_num_batched_tokens": 3, "speculative_config": {"method": "ngram"}},
            ConfigError,
            "takes 4 tokens per step",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(target, options, error, message):
    with pytest.raises(error, match=message):
        request_mix.make(target, **options)


def test_describe_says_what_runs_and_that_it_is_exact(target):
    lines = dict(describe(request_mix.make(target, speculative_config={"method": "ngram"}).engine.worker))
    assert lines["exact"].startswith("yes")
    assert lines["attention backend"].startswith("oracle: first of cpu's backends")
    assert lines["drafter"] == "ngram, 3 drafts a step, row-invariant"


@pytest.mark.parametrize("owner", [cpu.Platform, oracle.Backend], ids=["platform", "attention backend"])
def test_nothing_is_called_exact_on_a_platform_or_backend_that_does_not_promise_it(target, owner, monkeypatch):
    monkeypatch.setattr(owner, "is_exact", False)
    engine = request_mix.make(target, device="cpu", attention_backend="oracle").engine
    assert not engine.worker.is_exact and not engine.stats().is_exact
    lines = dict(describe(engine.worker))
    assert lines["exact"] == "NO: this platform or attention backend does not promise it"
    metrics = Metrics("tiny")
    metrics.observe_snapshot(engine.stats())
    assert b'outrider:exact{engine="0",model_name="tiny"} 0.0' in metrics.render()[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_promise_holds_for_any_number_of_threads(target, some, threads):
    torch.set_num_threads(threads)
    try:
        expected = request_mix.truth(target, some[:2])
        outputs = request_mix.run(request_mix.make(target, max_num_batched_tokens=23), some[:2])
        assert request_mix.mismatches(some[:2], outputs, expected) == []
    finally:
        torch.set_num_threads(1)
