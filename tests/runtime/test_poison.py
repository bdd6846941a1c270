"""A drafter that fails ends no request and changes no token."""

import pytest

from tests.support import request_mix
from tests.support.log_lines import log_lines
from tests.support.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("poison")
    write_tiny_model(
        directory, "qwen3", vocab_size=request_mix.VOCAB, eos_token_id=request_mix.EOS, max_position_embeddings=512
    )
    return directory


@pytest.fixture(scope="module")
def some():
    return request_mix.make_cases()[1:6]


@pytest.mark.parametrize("method", ["propose", "admit"])
def test_a_drafter_that_fails_drafts_no_more(target, some, method, monkeypatch):
    expected = request_mix.truth(target, some)
    llm = request_mix.make(
        target, speculative_config={"method": "tests.support.drafters.noise", "num_speculative_tokens": 3}
    )
    drafter = llm.engine.worker.drafter
    working, calls = getattr(drafter, method), []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            raise RuntimeError("broken")
        return working(*args, **kwargs)

    monkeypatch.setattr(drafter, method, failing)
    with log_lines() as lines:
        found = request_mix.run(llm, some) + request_mix.run(llm, some)
    (line,) = lines
    assert "the drafter failed and is switched off: RuntimeError" in line
    assert not request_mix.mismatches(some + some, found, expected + expected)
    assert len(calls) == 2
    assert found[-1].speculation.num_draft_tokens == 0


def test_a_drafter_that_fails_while_the_engine_is_built_is_an_error(target, monkeypatch):
    llm = request_mix.make(
        target, speculative_config={"method": "tests.support.drafters.noise", "num_speculative_tokens": 3}
    )
    step = llm.engine.worker.step_function
    step.drafting.is_serving = False
    monkeypatch.setattr(step.drafting.drafter, "propose", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        request_mix.run(llm, request_mix.make_cases()[1:2])
