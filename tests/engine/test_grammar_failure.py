"""A grammar that fails on the way, whatever the reason, ends its own request and no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher

from outrider import LLM, SamplingParams, StructuredOutputsParams
from outrider.core.request import Request
from outrider.engine.grammar import Grammars, _LostError
from outrider.scheduler.request_state import RequestState

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

    def begin_broken(self: Grammars, request: Request, prepared: LLMatcher | None = None) -> None:
        begin(self, request, prepared)
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


class Lost:
    """A matcher that runs into a limit as soon as it takes one more token."""

    def __init__(self, matcher: Any) -> None:
        self._matcher, self._has_moved, self._is_lost = matcher, False, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matcher, name)

    def consume_token(self, token_id: int) -> bool:
        self._has_moved = True
        return bool(self._matcher.consume_token(token_id))

    def compute_bitmask(self) -> bytes:
        """Like llguidance after an error: nothing but eos."""
        if not self._has_moved:
            return bytes(self._matcher.compute_bitmask())
        self._is_lost = True
        return bytes([1]) + bytes(63)

    def is_error(self) -> bool:
        return self._is_lost

    def get_error(self) -> str:
        return "too many items\nand more" if self._is_lost else ""


def begun(llm: LLM, regex: str) -> tuple[Grammars, RequestState]:
    params = SamplingParams(structured_outputs=StructuredOutputsParams(regex=regex))
    request = llm.engine.new_request("ab", params)
    grammars = llm.engine._grammars
    grammars.begin(request)
    running = grammars._running[request.request_id]
    running.matcher = Lost(running.matcher)  # type: ignore[assignment]
    return grammars, RequestState(request=request)


def test_an_error_that_shows_while_a_mask_is_made_is_no_end(llm: LLM) -> None:
    grammars, state = begun(llm, "[a-z]{5}")
    (masks,) = grammars.masks([(state, [])])
    assert len(masks) == 1 and grammars.failure(state) is None
    assert grammars.accept(state, [70]) is None
    (masks,) = grammars.masks([(state, [])])
    assert len(masks) == 0
    assert grammars.failure(state) == "the grammar cannot be followed any further: too many items"


def test_an_error_behind_drafts_changes_nothing(llm: LLM) -> None:
    """A drafter may lead where the output never goes."""
    grammars, state = begun(llm, "[a-z]{5}")
    (before,) = grammars.masks([(state, [])])
    (masks,) = grammars.masks([(state, [70, 71, 72])])
    assert masks.tobytes() == before.tobytes()
    assert grammars.accept(state, [70]) is None
    state.token_ids.append(70)
    (masks,) = grammars.masks([(state, [71])])
    assert len(masks) == 2


def test_eos_is_in_no_mask_before_the_end(llm: LLM) -> None:
    """Not even where llguidance has nothing else to give."""
    grammars = llm.engine._grammars

    class OnlyEos(Lost):
        def is_error(self) -> bool:
            return False

        def is_accepting(self) -> bool:
            return False

    matcher = OnlyEos(grammars._matcher(StructuredOutputsParams(regex="ab")))
    matcher._has_moved = True
    with pytest.raises(_LostError, match="no token may come next"):
        grammars._mask(matcher, np.zeros(14, dtype=np.int32))  # type: ignore[arg-type]
