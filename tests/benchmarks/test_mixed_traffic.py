"""Workload D without a GPU: the loads on a scripted engine, and the command on the zoo."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import mixed_traffic
from benchmarks.traffic import requests
from benchmarks.traffic.loads import interrupt, run_offline, run_online
from benchmarks.traffic.shapes import SHAPES, word_tokenizer
from benchmarks.traffic.ways import outrider_way
from outrider.bench.serve.answer import Answer
from outrider.bench.serve.workload import Ask
from outrider.engine.tokenizer import Tokenizer
from outrider.loading.hf import open_config
from outrider.models import read_model_config
from outrider.speculation.eagle3_config import read_eagle3_config

SHORT, LONG = 0.004, 0.05
"""Seconds of a step, and of a step that reads a long prompt."""


class Scripted:
    """An engine whose requests get a token a step; a prompt of 100 tokens or more makes two steps long."""

    def __init__(self, *, lost_token: bool = False) -> None:
        self.lost_token = lost_token
        self.num_running = self.most_running = self.num_aborted = 0
        self._num_long = 0
        self._num_steps = self._num_replayed = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ask(self, ask: Ask, answer: Answer) -> None:
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            if len(ask.prompt) >= 100:
                self._num_long += 1
                await asyncio.sleep(LONG)
            for _ in range(ask.max_tokens - self.lost_token):
                is_long = self._num_long > 0
                self._num_steps += 1
                self._num_replayed += not is_long
                await asyncio.sleep(LONG if is_long else SHORT)
                self._num_long -= len(ask.prompt) >= 100 and not answer.deliveries
                answer.deliveries.append(time.perf_counter())
                answer.num_output_tokens += 1
        except asyncio.CancelledError:
            self.num_aborted += 1
            raise
        finally:
            self.num_running -= 1
        answer.ended = time.perf_counter()

    async def steps(self) -> tuple[int, int]:
        return self._num_steps, self._num_replayed


def test_requests_are_those_of_the_workload_and_the_same_each_time() -> None:
    shape = SHAPES["llama-8b"]
    asks = requests.at_once(shape)
    assert asks == requests.at_once(shape) and len(asks) == 384 and asks != requests.warm_up(shape)
    lengths, outputs = [len(ask.prompt) for ask in asks], [ask.max_tokens for ask in asks]
    assert 64 <= min(lengths) < 80 and 1000 < max(lengths) <= 1024
    assert 32 <= min(outputs) < 40 and 470 < max(outputs) <= 480
    assert {type(token) for token in asks[0].prompt} == {int} and max(max(ask.prompt) for ask in asks) < 128000
    for rate in shape.rates:
        sent, times = requests.at_rate(shape, rate)
        assert len(sent) == len(times) == rate * 12 and times == sorted(times)
        assert times[-1] == pytest.approx(12.0, rel=0.35)
    running, arriving = requests.running_and_arriving(shape)
    assert [len(ask.prompt) for ask in running] == [512] * 32 and [len(ask.prompt) for ask in arriving] == [4096] * 4


def test_figures_of_a_load_follow_from_its_answers() -> None:
    way = Scripted()
    asks = [Ask(prompt=[1] * 3, max_tokens=count) for count in (5, 9, 1)]
    figures = asyncio.run(run_online(way, asks, [0.0, 0.02, 0.03]))
    assert figures.num_requests == 3 and figures.replayed == 1.0 and way.num_running == 0
    assert figures.output_tokens_per_s == pytest.approx(15 / figures.seconds)
    assert figures.ttft is not None and figures.tpot is not None and figures.e2el is not None
    assert SHORT * 1e3 <= figures.ttft[0] <= figures.ttft[1] < figures.e2el[1]
    assert figures.tpot >= SHORT * 1e3 and figures.e2el[1] >= 8 * SHORT * 1e3
    assert figures.seconds >= 0.02 + 9 * SHORT, "the second request is sent at its time"


def test_an_answer_that_lacks_a_token_ends_the_benchmark() -> None:
    with pytest.raises(AssertionError, match="4 tokens instead of 5"):
        asyncio.run(run_online(Scripted(lost_token=True), [Ask(prompt=[1], max_tokens=5)]))


def test_a_way_that_knows_no_times_of_requests_has_a_rate_only() -> None:
    class Whole:
        def run(self, asks: Sequence[Ask]) -> list[Answer]:
            return [Answer(sent=0.0, ended=1.0, num_output_tokens=ask.max_tokens) for ask in asks]

        def steps(self) -> None:
            return None

    figures = run_offline(Whole(), [Ask(prompt=[1], max_tokens=5)])  # type: ignore[arg-type]
    assert (figures.ttft, figures.tpot, figures.e2el, figures.replayed) == (None, None, None, None)


def test_arriving_prompts_are_seen_in_the_time_between_tokens() -> None:
    way = Scripted()
    running = [Ask(prompt=[1] * 3, max_tokens=10**6)] * 3
    arriving = [Ask(prompt=[1] * 100, max_tokens=2)] * 2
    found = asyncio.run(interrupt(way, running, arriving, num_watched=5))
    assert way.num_aborted == 3 and way.num_running == 0, "the running requests are aborted at the end"
    assert SHORT * 1e3 <= found.before < found.meanwhile <= found.meanwhile_p99
    assert found.last_ttft >= 2 * LONG * 1e3
    assert found.replayed is not None and 0.0 < found.replayed < 1.0


def test_a_running_request_that_ends_too_early_is_an_error() -> None:
    short = [Ask(prompt=[1], max_tokens=3)]
    with pytest.raises(AssertionError, match="ended before the prompts came"):
        asyncio.run(interrupt(Scripted(), short, short, num_watched=5))


def test_every_id_of_the_tokenizer_has_a_text(tmp_path: Path) -> None:
    word_tokenizer(1000).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert len(tokenizer.plain_ids) == 1000 and tokenizer.is_by_bytes
    words = [tokenizer.decode([token]) for token in range(256, 1000)]
    assert len(set(words)) == 744 and all(word[0] == " " and word[1:].isalpha() for word in words)
    assert tokenizer.decode(tokenizer.encode("a ö")) == "a ö"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if isinstance(shape.target, dict)])
def test_the_engine_accepts_a_shape(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    model = shape.write(tmp_path)
    config = read_model_config(model.target)
    assert config.max_position_embeddings >= shape.max_model_len
    assert shape.prompt_len[1] + shape.output_len[1] <= shape.max_model_len
    if shape.head is not None:
        assert model.head is not None
        read_eagle3_config(open_config(model.head), target=config, tap_layers=None)
    assert len(Tokenizer(Path(model.target)).plain_ids) == config.vocab_size


def test_all_parts_run_on_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    mixed_traffic.main(["--shape", "zoo", "--via", "llm", "--speculate", "eagle3", "--parts", "at-once,arriving"])
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "8 at once" in line]
    assert row.startswith("| eagle3 | llm | 8 at once | ") and row.endswith(" | 0.0% |"), "a CPU replays no graphs"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_way_runs_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    mixed_traffic.main(["--shape", "zoo", "--speculate", "eagle3"])
    out = capsys.readouterr().out
    assert "Left out" not in out and "| eagle3 | llm | 8 at once |" in out
    for way in ("engine", "async", "http"):
        for load in ("8 at once", "20 a second", "40 a second"):
            assert f"| eagle3 | {way} | {load} |" in out
        *_, interrupted = [line for line in out.splitlines() if line.startswith(f"| eagle3 | {way} | ")]
        assert interrupted.count("|") == 8 and interrupted.endswith(" 0.0% |")


def test_what_cannot_run_here_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    mixed_traffic.main(["--shape", "zoo", "--engine", "vllm", "--speculate", "none", "--via", "async"])
    out = capsys.readouterr().out
    assert "Left out: async with drafter none: vLLM is not installed: pip install vllm==0.26.0" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "long-prompts", "--parts", "rate"], "--parts rate: --shape long-prompts has at-once"),
        (["--shape", "hybrid", "--speculate", "eagle3"], "--speculate eagle3: --shape hybrid has none, mtp"),
        (["--via", "grpc"], "'grpc' is unknown: choose from llm, engine, async, http"),
        (["--shape", "zoo", "--save", "zoo"], "--save zoo: results are kept for a GPU only"),
    ],
)
def test_a_choice_that_a_shape_lacks_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        mixed_traffic.choose(arguments)
    assert message in capsys.readouterr().err


def test_options_reach_both_engines_in_one_form(tmp_path: Path) -> None:
    shape = replace(SHAPES["zoo"], target=tmp_path, head=tmp_path)
    options = shape.options(shape.write(tmp_path), "eagle3", max_num_batched_tokens=64)
    server = outrider_way("http", str(tmp_path), options)
    assert server.command[-9:] == [  # type: ignore[union-attr]
        "--max-model-len", "512", "--max-num-seqs", "8", "--no-enable-prefix-caching", "--speculative-config",
        '{"method": "eagle3", "num_speculative_tokens": 3, "rejection_sample_method": "synthetic", '
        f'"synthetic_acceptance_rates": [0.75, 0.55, 0.4], "model": "{tmp_path}"}}',
        "--max-num-batched-tokens", "64",
    ]  # fmt: skip
