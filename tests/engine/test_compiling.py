"""Compiling grammars: bounded work, once for all who ask, in bounded memory, and beside the engine's loop."""

import json
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, RequestError, SamplingParams, StructuredOutputsParams
from outrider.core.outputs import OutputDelta
from outrider.engine import grammar
from outrider.engine.admission import Admission
from outrider.engine.channel import Channel
from outrider.engine.engine import Engine
from outrider.engine.grammar import Grammars
from outrider.engine.languages.json_schema import read_schema
from outrider.engine.messages import Abort, Add, Refused, Turn
from outrider.engine.process import _Session
from outrider.engine.tokenizer import Tokenizer

from .text_model import write_text_model

WHOLE = {"type": "integer"}

TOO_LARGE: dict[str, dict[str, Any]] = {
    "a multiple": WHOLE | {"multipleOf": 300_007},
    "a decimal": {"type": "number", "multipleOf": 1.00003},
    "all of them": {"allOf": [WHOLE | {"multipleOf": value} for value in (97, 89, 83)]},
    "one of them": {"anyOf": [WHOLE | {"multipleOf": 9000 + value} for value in range(50)]},
    "by properties": {"properties": {f"p{value}": WHOLE | {"multipleOf": 9000 + value} for value in range(50)}},
    "behind references": {
        "$ref": "#/$defs/a",
        "multipleOf": 9973,
        "$defs": {"a": {"$ref": "#/$defs/b", "multipleOf": 7}, "b": WHOLE | {"multipleOf": 11}},
    },
    "patterns of names": {"patternProperties": {f"^a{number}[a-z]*$": {} for number in range(400)}},
    "patterns in parts": {
        "properties": {f"p{number}": {"patternProperties": {f"^a{number}": {}}} for number in range(100)}
    },
    "options": {"oneOf": [{"const": number} for number in range(257)]},
    "names": {"properties": {f"p{number}": {} for number in range(2049)}},
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_schema_that_would_compile_for_seconds_is_refused_by_name(name: str) -> None:
    with pytest.raises(
        RequestError, match=r"multipleOf=.*at most 10000|more than (64|2048) names in p|has 257 options"
    ):
        read_schema(TOO_LARGE[name])


@pytest.mark.parametrize("values", [(10_000,), (1_000_000,), (0.01, 5, 250), (60, 24, 7, 100), (9973,), (0.0001, 0.5)])
def test_multiples_that_people_ask_for_are_taken(values: tuple[float, ...]) -> None:
    read_schema({"allOf": [{"type": "number", "multipleOf": value} for value in values]})


@pytest.fixture
def grammars(tmp_path: Path) -> Grammars:
    return Grammars(Tokenizer(write_text_model(tmp_path)), vocab_size=448, eos_token_ids=(0,))


def test_threads_that_ask_for_one_grammar_compile_it_once(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, compile_one, may_end = [], grammars._compile, threading.Event()

    def slow(asked: StructuredOutputsParams, text: str | None) -> Any:
        compiled.append(asked)
        assert may_end.wait(30)
        return compile_one(asked, text)

    monkeypatch.setattr(grammars, "_compile", slow)
    good, bad = StructuredOutputsParams(regex="a+"), StructuredOutputsParams(regex="(")
    with ThreadPoolExecutor(8) as threads:
        both = [(threads.submit(grammars._matcher, good), threads.submit(grammars._matcher, bad)) for _ in range(4)]
        may_end.set()
        assert len({id(first.result()) for first, _ in both}) == 1
        for _, second in both:
            with pytest.raises(RequestError):
                second.result()
    assert compiled.count(good) == compiled.count(bad) == 1, "a refusal is kept, too"
    with pytest.raises(RequestError):
        grammars._matcher(bad)
    assert not grammars._compiling


def test_front_and_engine_do_not_do_the_same_work(
    grammars: Grammars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's front reads a grammar, once for all prompts of a call, and its engine compiles it."""
    front = Grammars(Tokenizer(tmp_path), vocab_size=448, eos_token_ids=(0,))
    read, compile_one = [], grammar.compile_language

    def count(*given: Any) -> str:
        read.append(given)
        return compile_one(*given)

    monkeypatch.setattr(grammar, "compile_language", count)
    admission = Admission(
        tokenizer=front._tokenizer,
        vocab_size=448,
        max_model_len=64,
        eos_token_ids=(0,),
        seed=0,
        grammars=front,
        compiles_grammars=False,
    )
    params = SamplingParams(max_tokens=3, structured_outputs=StructuredOutputsParams(json=json.dumps(WHOLE)))
    first, second = [admission.request("ab", params, request_id=str(index)) for index in range(2)]
    assert first.grammar and first.grammar == second.grammar and not front._compiled
    assert grammars.prepare(first) is not None
    assert len(read) == 1, "the engine reads it again"


def test_kept_grammars_are_bounded_by_bytes(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "_MAX_KEPT_BYTES", 1 << 21)
    for number in range(40):
        small = StructuredOutputsParams(regex=f"a{{{number}}}b")
        grammars._matcher(small)
        assert small in grammars._compiled and grammars.num_kept_bytes <= 1 << 21
    assert 8 < len(grammars._compiled) < 40 and set(grammars._compiled) == set(grammars._sizes)
    large = StructuredOutputsParams(choice=[f"{number:05d}" for number in range(1000)])
    grammars._matcher(large)
    assert len(grammars._compiled) == len(grammars._sizes) == 0 == grammars.num_kept_bytes, "it is larger than all"
    multiples = StructuredOutputsParams(json=json.dumps(WHOLE | {"multipleOf": 7}))
    monkeypatch.setattr(grammar, "_MAX_KEPT_BYTES", 1 << 28)
    grammars._matcher(multiples)
    assert grammars.num_kept_bytes > 4 << 20


class _Compiling:
    """A client and its engine, which runs until the client closes; no grammar is compiled before `may_end`."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, more: Sequence[str] = ()) -> None:
        """more: ids of further requests, each with a grammar of its own."""
        self.engine: Engine = LLM(str(directory), max_num_seqs=4).engine
        self.may_end, self.threads, self.compiled = threading.Event(), set[str](), set[str | None]()
        compile_one = self.engine._grammars._compile

        def slow(asked: StructuredOutputsParams, text: str | None) -> Any:
            self.threads.add(threading.current_thread().name)
            self.compiled.add(asked.regex)
            assert self.may_end.wait(30)
            return compile_one(asked, text)

        plain = SamplingParams(max_tokens=4, ignore_eos=True, seed=1)
        constrained = SamplingParams(
            max_tokens=3, n=2, seed=1, structured_outputs=StructuredOutputsParams(regex="[ab]{9}")
        )
        self.requests = [
            self.engine.new_request("ab", constrained, request_id="grammar"),
            self.engine.new_request("ab", plain, request_id="plain"),
        ]
        for name in more:
            params = SamplingParams(max_tokens=3, structured_outputs=StructuredOutputsParams(regex=f"[ab]{{9}}|{name}"))
            self.requests.append(self.engine.new_request("ab", params, request_id=name))
        self.engine._grammars._compiled.clear()  # the process has not seen it
        monkeypatch.setattr(self.engine._grammars, "_compile", slow)
        ours, theirs = socket.socketpair()
        self.client, self.other_end = Channel(ours), Channel(theirs)
        self.session = _Session(self.other_end, self.engine)
        self.answers: list[Any] = []
        self.deltas: list[OutputDelta] = []

    def run(self, after_turn: Any) -> None:
        def turn() -> None:
            self.session.after_turn()
            for message in self.client.receive():
                assert isinstance(message, Turn)
                self.answers += message.answers
                self.deltas += message.deltas
            after_turn()

        for request in self.requests:
            self.client.send(Add(request))
        self.session.loop.run(self.session, after_turn=turn)
        self.other_end.close()
        assert self.session.loop.failed is None
        assert all(name.startswith("grammars") for name in self.threads), "the loop compiled"

    @property
    def ended(self) -> list[str]:
        return [delta.request_id for delta in self.deltas if delta.output is not None]


def test_others_run_and_end_while_a_grammar_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _Compiling(write_text_model(tmp_path), monkeypatch)

    def after_turn() -> None:
        if case.ended == ["plain"]:
            case.may_end.set()
        elif len(case.ended) == 2:
            case.client.close()

    case.run(after_turn)
    assert case.ended == ["plain", "grammar"] and len(case.threads) == 1
    (output,) = [delta.output for delta in case.deltas if delta.request_id == "grammar" and delta.output is not None]
    assert [len(completion.token_ids) for completion in output.outputs] == [3, 3]
    assert set("".join(completion.text for completion in output.outputs)) <= {"a", "b"}


def test_a_request_that_is_aborted_while_its_grammar_is_compiled_ends_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _Compiling(write_text_model(tmp_path), monkeypatch)

    def after_turn() -> None:
        if case.ended == ["plain"] and not case.may_end.is_set():
            case.client.send(Abort("grammar"))
            threading.Timer(0.05, case.may_end.set).start()
        elif len(case.ended) == 2:
            case.client.close()

    case.run(after_turn)
    last = case.deltas[-1]
    assert last.request_id == "grammar" and last.finish_reason == "abort" and not last.token_ids
    assert not case.engine.has_work and not case.session._preparing


def test_nothing_is_compiled_for_a_caller_who_left_before_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first two take the threads, and "late" waits for one
    case = _Compiling(write_text_model(tmp_path), monkeypatch, more=("second", "late"))
    is_aborted = False

    def after_turn() -> None:
        nonlocal is_aborted
        if not is_aborted:
            case.client.send(Abort("late"))
            is_aborted = True
        elif case.session._preparing.get("late"):
            case.may_end.set()
        if len(case.ended) == 4:
            case.client.close()

    case.run(after_turn)
    assert case.compiled == {"[ab]{9}", "[ab]{9}|second"}
    (last,) = [delta for delta in case.deltas if delta.request_id == "late"]
    assert last.finish_reason == "abort" and not last.token_ids and last.output is not None
    assert not case.engine.has_work and not case.session._preparing


def test_a_grammar_that_cannot_be_compiled_refuses_its_request_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _Compiling(write_text_model(tmp_path), monkeypatch)
    case.may_end.set()

    def fails(asked: StructuredOutputsParams, text: str | None) -> Any:
        raise RequestError("structured_outputs: no")

    monkeypatch.setattr(case.engine._grammars, "_compile", fails)

    def after_turn() -> None:
        if case.ended == ["plain"] and any(isinstance(answer, Refused) for answer in case.answers):
            case.client.close()

    case.run(after_turn)
    assert [answer for answer in case.answers if isinstance(answer, Refused)] == [
        Refused("grammar", "structured_outputs: no")
    ]


@pytest.mark.parametrize("has_waited", [False, True])
def test_a_wait_ends_when_it_is_woken(has_waited: bool) -> None:
    """Also one that begins later, and on a channel that has waited before it had a waker."""
    ours, theirs = socket.socketpair()
    client, engine = Channel(ours), Channel(theirs)
    if has_waited:
        client.send("first")
        engine.wait()
        assert engine.receive() == ["first"]
    wake = engine.make_waker()
    wake()
    engine.wait()
    threading.Timer(0.02, wake).start()
    engine.wait()
    assert engine.receive() == []
    client.close()
    engine.close()
    wake()  # there is no wait any more
