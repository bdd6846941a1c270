"""A grammar that fails on the way, whatever the reason, ends its own request and no other."""

from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, SamplingParams, StructuredOutputsParams
from outrider.core.request import Request
from outrider.engine.grammar import Grammars

from .text_model import write_text_model


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    directory: Path = write_text_model(tmp_path_factory.mktemp("failure"))
    return LLM(
        str(directory),
        max_model_len=128,
        speculative_config={"method": "tests.support.drafters.noise", "num_speculative_tokens": 2},
    )


class Broken:
    """A matcher whose `method` fails from the fourth call on."""

    def __init__(self, matcher: Any, method: str) -> None:
        self._matcher, self._method, self._count = matcher, method, 0

    def __getattr__(self, name: str) -> Any:
        self._count += name == self._method
        if name == self._method and self._count > 3:
            raise RuntimeError("panic")
        return getattr(self._matcher, name)


@pytest.mark.parametrize("method", ["compute_bitmask", "consume_token", "rollback"])
def test_a_grammar_that_fails_ends_its_request_only(llm: LLM, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = StructuredOutputsParams(regex="(.|\\n){30}")
    grammar = SamplingParams(max_tokens=24, seed=1, structured_outputs=asked)
    plain = SamplingParams(max_tokens=24, seed=1)
    (expected,) = llm.generate(["ab"], plain)
    begin = Grammars.begin

    def begin_broken(self: Grammars, request: Request) -> None:
        begin(self, request)
        if request.request_id in self._running:
            running = self._running[request.request_id]
            running.matcher = Broken(running.matcher, method)  # type: ignore[assignment]

    monkeypatch.setattr(Grammars, "begin", begin_broken)
    ended, other = llm.generate(["ab", "ab"], [grammar, plain])
    assert ended.outputs[0].finish_reason == "error" and "panic" in (ended.outputs[0].error or "")
    assert other.outputs[0].token_ids == expected.outputs[0].token_ids
    monkeypatch.undo()
    assert llm.generate(["ab"], grammar)[0].outputs[0].finish_reason != "error"
    assert not llm.engine.has_work
