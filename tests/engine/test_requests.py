"""Options of a request through the whole engine with speculation on; deltas join to the whole output."""

import asyncio
import gc
import itertools
import random
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider import (
    LLM,
    AsyncLLM,
    OutputDelta,
    RequestError,
    RequestOutput,
    SamplingParams,
    StructuredOutputsParams,
)
from outrider.engine.text import OutputTexts
from outrider.scheduler.request_state import RequestState

from .text_model import END, write_text_model

PROMPT = "def add(a, b):"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
NGRAM = {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 2}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("text-model"))


@pytest.fixture(scope="module")
def llm(directory: Path) -> LLM:
    return LLM(str(directory), speculative_config=NGRAM, max_model_len=256)


@pytest.fixture(scope="module")
def oracle(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory).eval()


def one(llm: LLM, prompt: Any = PROMPT, **params: Any) -> RequestOutput:
    return llm.generate(prompt, SamplingParams(**({"seed": 3, "max_tokens": 40} | params)))[0]


def test_an_engine_is_freed_with_its_last_reference(directory: Path) -> None:
    """Without the collector of cycles, which runs late: an engine holds all of a device's memory."""
    gc.disable()
    try:
        llm = LLM(str(directory), speculative_config=NGRAM, max_model_len=256)
        one(llm)
        one(llm, structured_outputs=StructuredOutputsParams(regex="a{9}"))
        parts = [weakref.ref(part) for part in (llm, llm.engine, llm.engine.worker, llm.engine.worker.model)]
        del llm
        assert [part() is None for part in parts] == [True] * 4
    finally:
        gc.enable()


def test_the_first_of_n_completions_is_that_of_one(llm: LLM) -> None:
    alone, several = one(llm), one(llm, n=4)
    assert several.outputs[0] == alone.outputs[0]
    assert [entry.index for entry in several.outputs] == [0, 1, 2, 3]
    assert len({tuple(entry.token_ids) for entry in several.outputs}) == 4
    assert several.speculation.num_steps > alone.speculation.num_steps
    same = one(llm, n=2, temperature=0.0)
    assert same.outputs[0].token_ids == same.outputs[1].token_ids


def test_completions_are_aborted_together(llm: LLM) -> None:
    request = llm.engine.new_request(PROMPT, SamplingParams(n=3, max_tokens=100, ignore_eos=True))
    llm.engine.add(request)
    with pytest.raises(RequestError, match="is in use"):
        llm.engine.add(request)
    for _ in range(6):
        llm.engine.step()
    output = llm.engine.abort(request.request_id)
    assert output is not None and [entry.finish_reason for entry in output.outputs] == ["abort"] * 3
    while llm.engine.has_work:
        llm.engine.step()
    pool = llm.engine.scheduler.pool
    assert pool.num_free == pool.num_usable and not llm.engine._groups and not llm.engine._group_of


def test_allowed_tokens_and_bad_words_hold(llm: LLM) -> None:
    allowed = [70, 71, 72, 73]
    words: list[Any] = [[70, 71], [71, 72, 73], [73, 73]]
    params = {"allowed_token_ids": allowed, "max_tokens": 120}
    free = one(llm, **params).outputs[0].token_ids
    assert set(free) == set(allowed)
    assert [70, 71] in [list(pair) for pair in itertools.pairwise(free)]
    for temperature in (0.0, 1.0):
        token_ids = one(llm, bad_words=words, temperature=temperature, **params).outputs[0].token_ids
        assert set(token_ids) <= set(allowed)
        for word in words:
            assert word not in [token_ids[i : i + len(word)] for i in range(len(token_ids))]


def test_a_bad_word_of_text_does_not_occur(llm: LLM) -> None:
    text = one(llm, max_tokens=60).outputs[0].text
    word = next(character for character in text if character.isascii() and character.isalpha())
    assert word not in one(llm, max_tokens=1, bad_words=[word]).outputs[0].text
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    request = llm.engine.new_request(PROMPT, SamplingParams(bad_words=["the", " fox", [5, 6]]))
    assert tuple(tokenizer.encode("the")) in request.bad_words and (5, 6) in request.bad_words


@pytest.mark.parametrize("params", [{"allowed_token_ids": [5, 6], "bad_words": [[6, 5], [6]]}, {"bad_words": [[420]]}])
def test_lists_that_leave_nothing_or_do_not_fit_are_refused(llm: LLM, params: Any) -> None:
    with pytest.raises(RequestError, match=r"leave no token to choose|bad_words holds 420, which is not a token id"):
        one(llm, **params)


def logprobs_of(oracle: Any, token_ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return oracle(torch.tensor([token_ids])).logits[0].float().log_softmax(-1)


def test_prompt_logprobs_are_those_of_transformers(llm: LLM, oracle: Any) -> None:
    rng = random.Random(1)
    token_ids = [rng.randrange(2, 420) for _ in range(150)]
    for _ in range(2):  # the second time its blocks lie in the prefix cache
        output = one(llm, {"prompt_token_ids": token_ids}, prompt_logprobs=3)
        assert output.num_cached_tokens == 0
        wanted = logprobs_of(oracle, token_ids)
        entries = output.prompt_logprobs
        assert entries is not None and entries[0] is None and len(entries) == len(token_ids)
        for place, entry in enumerate(entries[1:]):
            assert entry is not None
            own = token_ids[place + 1]
            assert entry[own].logprob == pytest.approx(wanted[place, own].item(), abs=1e-4)
            ranked = sorted((found.rank, token_id) for token_id, found in entry.items() if found.rank <= 3)
            assert [token_id for _, token_id in ranked] == wanted[place].topk(3).indices.tolist()
    assert one(llm, {"prompt_token_ids": token_ids}).num_cached_tokens == 144


def test_log_probabilities_of_given_ids_are_those_of_transformers(llm: LLM, oracle: Any) -> None:
    output = one(llm, logprob_token_ids=[7, 300], logprobs=1, temperature=0.9)
    completion = output.outputs[0]
    wanted = logprobs_of(oracle, output.prompt_token_ids + completion.token_ids)
    assert completion.logprobs is not None
    for index, (token_id, entry) in enumerate(zip(completion.token_ids, completion.logprobs, strict=True)):
        row = wanted[len(output.prompt_token_ids) + index - 1]
        assert set(entry) == {token_id, 7, 300, int(row.argmax())}
        for asked in entry:
            assert entry[asked].logprob == pytest.approx(row[asked].item(), abs=1e-4)
            assert entry[asked].rank == 1 + int((row > row[asked]).sum())


def test_a_prompt_is_cut_to_its_last_tokens(llm: LLM) -> None:
    token_ids = [9] * 10 + [11, 12, 13, 14]
    cut = one(llm, {"prompt_token_ids": token_ids}, truncate_prompt_tokens=4)
    assert cut.prompt_token_ids == [11, 12, 13, 14]
    assert cut.outputs == one(llm, {"prompt_token_ids": [11, 12, 13, 14]}).outputs
    long = one(llm, {"prompt_token_ids": [9] * 400}, truncate_prompt_tokens=-1, max_tokens=30, ignore_eos=True)
    assert len(long.prompt_token_ids) == 256 - 30 and len(long.outputs[0].token_ids) == 30
    with pytest.raises(RequestError, match="has 400 tokens"):
        one(llm, {"prompt_token_ids": [9] * 400})


def test_special_tokens_are_shown_or_left_out(llm: LLM) -> None:
    end = {"logit_bias": {END: 3.0}, "ignore_eos": True}
    hidden, shown = one(llm, **end).outputs[0], one(llm, skip_special_tokens=False, **end).outputs[0]
    assert hidden.token_ids == shown.token_ids and END in shown.token_ids
    assert "<|end|>" in shown.text and "<|end|>" not in hidden.text
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    assert shown.text == tokenizer._tokenizer.decode(shown.token_ids, skip_special_tokens=False)


def test_without_text_the_tokens_are_the_same(llm: LLM) -> None:
    silent = one(llm, detokenize=False).outputs[0]
    assert silent.text == "" and silent.token_ids == one(llm).outputs[0].token_ids


def test_the_stop_is_kept_where_it_is_asked_for(llm: LLM) -> None:
    whole = one(llm, max_tokens=60).outputs[0].text
    stop = next(whole[i : i + 3] for i in range(9, len(whole)) if REPLACEMENT not in whole[i : i + 3])
    cut, kept = one(llm, stop=stop).outputs[0], one(llm, stop=stop, include_stop_str_in_output=True).outputs[0]
    assert cut.finish_reason == kept.finish_reason == "stop" and cut.token_ids == kept.token_ids
    assert kept.text == cut.text + stop and stop not in cut.text
    token_id = one(llm).outputs[0].token_ids[20]
    by_id = {"stop_token_ids": [token_id], "skip_special_tokens": False}
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    kept = one(llm, include_stop_str_in_output=True, **by_id).outputs[0]
    cut = one(llm, **by_id).outputs[0]
    assert kept.text == tokenizer.decode(kept.token_ids, skip_special_tokens=False)
    assert cut.text == tokenizer.decode(cut.token_ids[:-1], skip_special_tokens=False)


def test_echo_puts_the_prompt_in_front(llm: LLM) -> None:
    plain = one(llm).outputs[0]
    echoed = one(llm, echo=True).outputs[0]
    assert echoed.text == PROMPT + plain.text and echoed.token_ids == plain.token_ids
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    by_id = one(llm, {"prompt_token_ids": tokenizer.encode(PROMPT)}, echo=True, stop="a").outputs[0]
    assert by_id.text.startswith(PROMPT), "the prompt is not searched for stops"


def test_speculation_can_be_turned_down_for_one_request(llm: LLM) -> None:
    whole = one(llm, max_tokens=100, temperature=0.0)
    assert whole.speculation.num_draft_tokens > 2 * whole.speculation.num_drafts
    for most in (0, 1):
        fewer = one(llm, max_tokens=100, temperature=0.0, num_speculative_tokens=most)
        assert fewer.outputs[0].token_ids == whole.outputs[0].token_ids
        assert fewer.speculation.num_draft_tokens == most * fewer.speculation.num_drafts


def test_urgent_requests_start_first(directory: Path) -> None:
    llm = LLM(str(directory), max_num_seqs=1, max_model_len=64)
    order: list[str] = []
    for name, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 0), ("e", -1)):
        request = llm.engine.new_request(PROMPT, SamplingParams(max_tokens=3, priority=priority), request_id=name)
        llm.engine.add(request)
    while llm.engine.has_work:
        order += [output.request_id for output in llm.engine.step()]
    assert order == ["c", "e", "a", "d", "b"]


def random_params(rng: random.Random, text: str) -> SamplingParams:
    starts = [rng.randrange(len(text) - 8) for _ in range(3)]
    stops = [text[start : start + rng.randrange(1, 6)] + rng.choice(("", "", "~")) for start in starts]
    return SamplingParams(
        seed=3, max_tokens=60, n=rng.choice((1, 1, 2)), stop=stops if rng.random() < 0.7 else None,
        min_tokens=rng.choice((0, 0, 30)), include_stop_str_in_output=rng.random() < 0.4,
        skip_special_tokens=rng.random() < 0.5, echo=rng.random() < 0.3, detokenize=True, ignore_eos=True,
        logprobs=rng.choice((None, 1)), temperature=rng.choice((0.0, 1.0)),
    )  # fmt: skip


def check_deltas(deltas: list[OutputDelta], whole: RequestOutput) -> None:
    """Concatenated they are the whole, and nothing comes behind the end of a completion."""
    assert deltas[-1].output is not None and all(delta.output is None for delta in deltas[:-1])
    assert deltas[-1].output.outputs == whole.outputs
    for completion in whole.outputs:
        own = [delta for delta in deltas if delta.index == completion.index]
        assert "".join(delta.text for delta in own) == completion.text
        assert [token_id for delta in own for token_id in delta.token_ids] == completion.token_ids
        if completion.logprobs is not None:
            assert [entry for delta in own for entry in delta.logprobs or []] == completion.logprobs
        assert [delta.finish_reason for delta in own[:-1]] == [None] * (len(own) - 1)
        assert (own[-1].finish_reason, own[-1].stop_reason) == (completion.finish_reason, completion.stop_reason)


@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_deltas_make_the_whole(llm: LLM, seed: int) -> None:
    rng = random.Random(seed)
    text = one(llm, max_tokens=80).outputs[0].text
    cases = [random_params(rng, text) for _ in range(8)]
    expected = llm.generate([PROMPT] * len(cases), cases)
    found: list[list[OutputDelta]] = [[] for _ in cases]
    for delta in llm.stream([PROMPT] * len(cases), cases):
        found[delta.prompt_index].append(delta)
    num_given_early = 0
    for deltas, whole, params in zip(found, expected, cases, strict=True):
        check_deltas(deltas, whole)
        for delta in deltas:
            if delta.finish_reason is None and not params.echo:
                num_given_early += bool(delta.text)
    assert num_given_early > 40, "text is given as it comes, not at the end"


def test_what_may_begin_a_stop_string_is_held_back(llm: LLM) -> None:
    tokenizer = llm.engine.tokenizer
    assert tokenizer is not None
    request = llm.engine.new_request(PROMPT, SamplingParams(stop=["STOP", "OPT!"], max_tokens=200))
    texts, state = OutputTexts(tokenizer), RequestState(request=request)
    texts.begin(request)
    seen = []
    for word in ("a S", "T", "O", "P", "x"):
        _, stop = texts.check(state, tuple(tokenizer.encode(word)))
        if stop is not None:
            break
        seen.append(texts.take(request.request_id))
    assert seen == ["a ", "", ""]
    assert texts.end(request.request_id) == ("", "a ")
    texts.begin(request)
    texts.check(state, tuple(tokenizer.encode("STOx OPT")))
    assert texts.take(request.request_id) == "STOx "
    assert texts.end(request.request_id) == ("OPT", "STOx OPT")


def test_closing_a_stream_aborts_its_requests(llm: LLM) -> None:
    stream = llm.stream([PROMPT, PROMPT], SamplingParams(max_tokens=200, ignore_eos=True))
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    while llm.engine.has_work:
        assert llm.engine.step() == []
    with pytest.raises(RequestError, match="is empty"):
        llm.stream("")


@pytest.mark.slow
def test_many_callers_at_once_get_what_they_would_get_alone(directory: Path, llm: LLM) -> None:
    cases = [random_params(random.Random(seed), "some text that is not there") for seed in range(10)]
    expected = [llm.generate(PROMPT, params)[0] for params in cases]

    async def read(engine: AsyncLLM, params: SamplingParams) -> list[OutputDelta]:
        return [delta async for delta in engine.generate(PROMPT, params)]

    async def scenario() -> None:
        async with AsyncLLM(str(directory), speculative_config=NGRAM, max_model_len=256) as engine:
            found = await asyncio.gather(*(read(engine, params) for params in cases))
            for deltas, whole in zip(found, expected, strict=True):
                check_deltas(deltas, whole)
            with pytest.raises(RequestError, match="is empty"):
                await read_all(engine, "")
            endless = SamplingParams(max_tokens=200, ignore_eos=True)
            other = asyncio.create_task(read(engine, cases[0]))
            async for delta in engine.generate(PROMPT, endless, request_id="left"):
                assert delta.request_id == "left"
                break  # leaving aborts
            aborted = []
            async for delta in engine.generate(PROMPT, endless, request_id="taken back"):
                aborted.append(delta)
                await engine.abort("taken back")
            assert aborted[-1].finish_reason == "abort"
            check_deltas(await other, expected[0])
        with pytest.raises(RequestError, match="the engine has stopped"):
            await read(engine, cases[0])

    async def read_all(engine: AsyncLLM, prompt: str) -> None:
        async for _ in engine.generate(prompt):
            pass

    asyncio.run(scenario())


def test_shutting_down_ends_what_runs(directory: Path) -> None:
    async def scenario() -> None:
        engine = AsyncLLM(str(directory), max_model_len=256)
        deltas = engine.generate(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True))
        await anext(deltas)
        stats = await engine.stats()
        assert stats.num_running == 1 and stats.num_generation_tokens >= 1
        engine.shutdown()
        with pytest.raises(RequestError, match="the engine has stopped"):
            async for _ in deltas:
                pass
        with pytest.raises(RequestError, match="the engine has stopped"):
            await engine.stats()

    asyncio.run(scenario())
