"""`bench serve` against a server that counts for itself: requests, tokens, latencies, speculation, and failures."""

import builtins
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from outrider.bench.serve import counters as counting
from outrider.bench.serve.answer import Answer
from outrider.bench.serve.client import Events, _text
from outrider.bench.serve.counters import Counters as Counted
from outrider.bench.serve.figures import figures_of, parse_goodput, percentile, tokens_by_second
from outrider.bench.serve.plot import places_of, plot
from outrider.bench.serve.setting import DECISIVE
from outrider.bench.serve.workload import Ask, Dataset, arrivals
from outrider.cli import app
from outrider.core.errors import ConfigError, OutriderError
from outrider.engine.tokenizer import Tokenizer
from tests.support.fake_server import MODEL, Counters

from .streaming_server import StreamingServer, serving

ZOO = Path(__file__).parents[2] / "zoo"
DATASET = {
    "name": "random", "path": None, "tokenizer": None, "input_len": None, "output_len": None, "range_ratio": 0.0,
    "disable_shuffle": False,
}  # fmt: skip


def bench(url: str, *options: str) -> tuple[str, dict[str, Any]]:
    """The printed text, and the saved result."""
    folder = Path(".")
    arguments = ["bench", "serve", "--base-url", url, "--save-detailed", "--result-filename", "out.json", *options]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output, json.loads((folder / "out.json").read_text())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row(output: str, name: str) -> float:
    (line,) = [line for line in output.splitlines() if line.startswith(name)]
    return float(line.split()[-1])


@pytest.mark.parametrize("kind", ["outrider", "vllm", "sglang"])
def test_counts_are_the_servers_own(kind: str) -> None:
    fake = StreamingServer(kind)
    fake.count([1, 4, 4])  # what was served before does not count
    served = Counters()
    with serving(fake) as url:
        output, found = bench(url, "--num-prompts", "12", "--max-concurrency", "5", "--input-len", "7", "--output-len",
                              "20", "--random-range-ratio", "0.5", "--num-warmups", "2", "--ignore-eos")  # fmt: skip
    measured = [body for _, body, _ in fake.seen[2:]]
    for body in measured:
        steps = fake.steps(body)
        served.drafts += len(steps) - 1
        served.tokens += sum(steps)
        for taken in steps[1:]:
            for position in range(taken - 1):
                served.per_pos[position] += 1
    assert len(measured) == found["completed"] == 12 and found["failed"] == 0 and fake.most_running == 5
    assert found["total_input_tokens"] == sum(len(body["prompt"]) for body in measured)
    assert found["total_output_tokens"] == served.tokens == sum(body["max_tokens"] for body in measured)
    assert len({len(body["prompt"]) for body in measured}) > 1, "lengths vary"
    assert all(4 <= len(body["prompt"]) <= 10 and 10 <= body["max_tokens"] <= 30 for body in measured)
    assert all(body["ignore_eos"] and body["temperature"] == 0.0 and "seed" not in body for body in measured)
    assert all(path == "/v1/completions" and body["model"] == MODEL for path, body, _ in fake.seen)
    accepted = sum(served.per_pos)
    assert found["spec_decode_num_drafts"] == served.drafts and found["spec_decode_accepted_tokens"] == accepted
    assert found["spec_decode_acceptance_length"] == 1 + accepted / served.drafts
    if kind == "sglang":
        assert found["spec_decode_acceptance_rate"] is None and "Position 0" not in output
    else:
        rates = [count / served.drafts for count in served.per_pos]
        assert found["spec_decode_per_position_acceptance_rates"] == rates
        assert found["spec_decode_acceptance_rate"] == pytest.approx(100 * accepted / (3 * served.drafts))
        assert row(output, "  Position 1:") == round(100 * rates[1], 2)
    assert found["metrics_note"] is None
    assert row(output, "Acceptance length:") == round(1 + accepted / served.drafts, 2)
    assert row(output, "Successful requests:") == 12 and row(output, "Total generated tokens:") == served.tokens


def test_figures_follow_from_what_each_request_saw() -> None:
    """The saved figures against numpy on the saved details."""
    with serving(StreamingServer()) as url:
        output, found = bench(
            url, "--num-prompts", "9", "--output-len", "15", "--request-rate", "200", "--percentile-metrics",
            "ttft,tpot,itl,e2el", "--metric-percentiles", "25,90,99.9", "--goodput", "ttft:100000", "--goodput",
            "tpot:0.000001",
        )  # fmt: skip
    ttft = 1e3 * np.array(found["ttfts"])
    itl = 1e3 * np.concatenate(found["itls"])
    e2el = ttft + [1e3 * sum(gaps) for gaps in found["itls"]]
    tpot = (e2el - ttft) / (np.array(found["output_lens"]) - 1)
    assert all(len(gaps) > 0 for gaps in found["itls"])
    for name, values in {"ttft": ttft, "itl": itl, "e2el": e2el, "tpot": tpot}.items():
        expected = {"mean": values.mean(), "median": np.median(values), "std": values.std()}
        expected |= {f"p{percent:g}": np.percentile(values, percent) for percent in (25, 90, 99.9)}
        for statistic, value in expected.items():
            assert found[f"{statistic}_{name}_ms"] == pytest.approx(value), f"{statistic} {name}"
        assert row(output, f"P99.9 {name.upper()} (ms):") == pytest.approx(np.percentile(values, 99.9), abs=0.006)
    assert found["output_throughput"] == pytest.approx(9 * 15 / found["duration"])
    assert found["request_throughput"] == pytest.approx(9 / found["duration"])
    assert found["total_token_throughput"] == pytest.approx((9 * 15 + 9 * 1024) / found["duration"])
    assert found["request_goodput"] == 0.0
    assert "Request rate configured (RPS):           200.00" in output
    for title in ("Time to First Token", "Time per Output Token (excl. 1st token)", "Inter-token Latency"):
        assert f"-{title}-" in output


def test_percentiles_are_numpys() -> None:
    rng = np.random.default_rng(3)
    for size in (1, 2, 5, 100):
        values = np.sort(rng.lognormal(size=size))
        for percent in (0, 12.5, 50, 99, 100):
            assert percentile(values.tolist(), percent) == pytest.approx(np.percentile(values, percent))


def answer(sent: float, *deliveries: float, tokens: int, ended: float = 0.0) -> Answer:
    return Answer(
        sent=sent, deliveries=list(deliveries), ended=ended or deliveries[-1], num_prompt_tokens=2,
        num_output_tokens=tokens,
    )  # fmt: skip


def test_figures_by_hand() -> None:
    """Three requests that overlap in pairs, one of them without text, and one that failed."""
    answers = [
        answer(10.0, 10.5, 10.7, 11.5, tokens=6),
        answer(10.6, 11.0, tokens=1),
        answer(11.2, tokens=1, ended=12.2),
        Answer(sent=12.5, ended=12.6, error="status 429: too many"),
    ]
    figures = figures_of(answers, seconds=4.0, percents=[50.0], goodput={"ttft": 500.0, "tpot": 300.0})
    assert (figures.completed, figures.failed, figures.errors) == (3, 1, {"status 429: too many": 1})
    assert (figures.total_input_tokens, figures.total_output_tokens, figures.output_throughput) == (6, 8, 2.0)
    assert figures.max_concurrent_requests == 2 and figures.request_goodput == 0.5
    assert tokens_by_second(answers[:3]) == [4.0, 3.0, 1.0] and figures.max_output_tokens_per_s == 4.0
    assert figures.latencies["ttft"].mean == pytest.approx((500 + 400 + 1000) / 3)
    assert figures.latencies["tpot"].mean == pytest.approx(200.0)
    assert figures.latencies["itl"].median == pytest.approx(500.0)
    assert figures.latencies["e2el"].percentiles[50.0] == pytest.approx(1000.0)
    nothing = figures_of(answers[3:], seconds=1.0, percents=[99.0], goodput={})
    assert nothing.completed == 0 and not nothing.latencies and nothing.max_output_tokens_per_s == 0.0


def test_chat_files_headers_and_the_users_own_fields(folder: Path) -> None:
    said = [
        {"id": str(index), "conversations": [{"from": "human", "value": f"question {index}"},
                                             {"from": "gpt", "value": "one two three " * (index + 1)}]}
        for index in range(5)
    ]  # fmt: skip
    (folder / "said.json").write_text(json.dumps(said))
    fake = StreamingServer()
    with serving(fake) as url:
        _, found = bench(
            url + "/v1/", "--endpoint", "/v1/chat/completions", "--dataset-name", "sharegpt", "--dataset-path",
            "said.json", "--tokenizer", str(ZOO / "tiny"), "--num-prompts", "7", "--disable-shuffle", "--temperature",
            "0.7", "--seed", "40", "--header", "Authorization=Bearer secret=", "--model", "mine", "--extra-body",
            '{"top_p": 0.5, "num_speculative_tokens": 0}', "--max-concurrency", "1",
        )  # fmt: skip
    tokenizer = Tokenizer(ZOO / "tiny")
    for number, (path, body, headers) in enumerate(fake.seen):
        assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret="
        assert body["messages"] == [{"role": "user", "content": f"question {number % 5}"}]
        length = len(tokenizer.encode("one two three " * (number % 5 + 1), add_special_tokens=False))
        assert body["max_tokens"] == length
        assert (body["seed"], body["top_p"], body["num_speculative_tokens"]) == (40 + number, 0.5, 0)
        assert body["model"] == found["model_id"] == "mine" and body["stream_options"] == {"include_usage": True}
    assert fake.most_running == 1 and len(fake.seen) == 7
    assert found["generated_texts"][0] == "wörd " * found["output_lens"][0]


def test_prompts_of_the_zoo_are_shuffled_by_the_seed() -> None:
    def asks(seed: int, **changes: Any) -> list[Ask]:
        dataset = Dataset(**(DATASET | {"name": "spec_bench", "path": ZOO / "prompts.jsonl"} | changes))
        return dataset.asks(60, seed=seed, is_chat=False)

    plain, shuffled = asks(0, disable_shuffle=True), asks(0)
    assert plain[:20] == plain[40:] and len({ask.prompt for ask in plain}) == 40
    assert shuffled != plain and {ask.prompt for ask in shuffled} == {ask.prompt for ask in plain}
    assert shuffled == asks(0) and shuffled != asks(1) and {ask.max_tokens for ask in plain} == {256}
    assert {ask.max_tokens for ask in asks(0, output_len=9)} == {9}


def test_random_prompts_have_their_length_and_no_special_token() -> None:
    tokenizer = Tokenizer(ZOO / "tiny")
    with_it = Dataset(**(DATASET | {"tokenizer": ZOO / "tiny", "input_len": 30}))
    ids = [ask.prompt for ask in with_it.asks(20, seed=1, is_chat=False)]
    assert all(isinstance(prompt, list) and len(prompt) == 30 for prompt in ids)
    assert all(tokenizer.has_text(token_id) for prompt in ids for token_id in prompt)
    chats = with_it.asks(3, seed=1, is_chat=True)
    assert [ask.prompt for ask in chats] == [tokenizer.decode(prompt) for prompt in ids[:3]]
    without = Dataset(**DATASET).asks(2, seed=1, is_chat=False)
    assert all(len(ask.prompt) == 1024 and ask.max_tokens == 128 for ask in without)


def test_arrivals_have_the_rate_and_the_burstiness_that_was_asked_for() -> None:
    assert arrivals(4, rate=math.inf, burstiness=1.0, seed=0) == [0.0] * 4
    for burstiness in (0.25, 1.0, 4.0):
        times = arrivals(20000, rate=8.0, burstiness=burstiness, seed=5)
        gaps = np.array([after - before for before, after in itertools.pairwise([0.0, *times])])
        assert (gaps >= 0).all() and gaps.mean() == pytest.approx(1 / 8, rel=0.05)
        assert (gaps.std() / gaps.mean()) ** 2 == pytest.approx(1 / burstiness, rel=0.15)
        assert times == arrivals(20000, rate=8.0, burstiness=burstiness, seed=5)
    assert arrivals(5, rate=8.0, burstiness=1.0, seed=5) != arrivals(5, rate=8.0, burstiness=1.0, seed=6)


def test_requests_are_not_sent_before_their_time() -> None:
    fake = StreamingServer(step_seconds=0.0)
    with serving(fake) as url:
        _, found = bench(url, "--num-prompts", "6", "--output-len", "2", "--request-rate", "40", "--seed", "3")
    assert found["duration"] >= arrivals(6, rate=40.0, burstiness=1.0, seed=3)[-1]


def test_events_may_come_in_any_pieces() -> None:
    stream = 'data: {"a": "ö"}\r\n\r\n: ping\n\ndata:{"b": 1}\n\ndata: [DONE]\n\n'.encode()
    for size in range(1, len(stream)):
        events = Events()
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [event for piece in pieces for event in events.push(piece)] == ['{"a": "ö"}', '{"b": 1}', "[DONE]"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("broken", "ended before [DONE]"),
        ("error chunk", "the engine died"),
        ("no usage", "has no usage"),
        ("html", "not a chunk of an OpenAI stream"),
    ],
)
def test_answers_that_are_none_are_failures(fault: str, words: str) -> None:
    with serving(StreamingServer(fault=fault)) as url:
        arguments = ["bench", "serve", "--base-url", url, "--num-prompts", "3", "--output-len", "9"]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and row(result.output, "Failed requests:") == 3
    assert words in result.output and "3 failed: " in result.output


def test_a_refusal_is_counted_and_the_others_go_on() -> None:
    with serving(StreamingServer(fault="refuse")) as url:
        output, found = bench(url, "--num-prompts", "6", "--output-len", "5")
    assert (found["completed"], found["failed"]) == (3, 3)
    assert 'status 429: {"error": "too many"}' in output and list(found["error_counts"].values()) == [3]


@pytest.mark.parametrize(("fault", "words"), [("no metrics", "status 404"), ("restart", "the server was restarted")])
def test_a_server_whose_counters_say_nothing_is_measured_all_the_same(
    monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setattr(counting, "SETTLE_SECONDS", 0.5)
    fake = StreamingServer(fault=fault)
    fake.count([1, 4])
    with serving(fake) as url:
        output, found = bench(url, "--num-prompts", "4", "--output-len", "5")
    assert found["completed"] == 4 and "Speculative Decoding" not in output and words in found["metrics_note"]


def test_other_traffic_is_said() -> None:
    fake = StreamingServer()
    with serving(fake) as url:
        original, fake.count = fake.count, lambda steps: (original(steps), original([1, 3]))
        _, found = bench(url, "--num-prompts", "2", "--output-len", "5")
    assert "counted 18 generated tokens, but the answers have 10" in found["metrics_note"]


def test_a_picture_is_drawn(folder: Path) -> None:
    with serving(StreamingServer()) as url:
        bench(url, "--num-prompts", "3", "--output-len", "9", "--plot", "run.png")
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")
    plot(folder / "nothing.svg", [], Counted(note="none"), title="nothing")
    assert "not counted by the server" in (folder / "nothing.svg").read_text()


@pytest.mark.parametrize(("library", "option"), [("matplotlib", ["--plot", "x.png"]), ("aiohttp", [])])
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, library: str, option: list[str]) -> None:
    module = {"matplotlib": "plot", "aiohttp": "client"}[library]
    original = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == f"outrider.bench.serve.{module}":
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    result = CliRunner().invoke(app, ["bench", "serve", "--num-prompts", "1", *option])
    assert isinstance(result.exception, OutriderError)
    assert library in str(result.exception) and "pip install" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset-name", "sonnet"], "'sonnet' is unknown. Use random, sharegpt, spec_bench"),
        (["--dataset-name", "sharegpt"], "needs --dataset-path"),
        (["--dataset-path", "x.json"], "has no --dataset-path. Remove it"),
        (["--dataset-name", "spec_bench", "--dataset-path", "x.jsonl"], "is not a file"),
        (
            ["--dataset-name", "spec_bench", "--dataset-path", "x.jsonl", "--input-len", "5"],
            "applies to random prompts only",
        ),
        (["--random-range-ratio", "1.0"], "Use 0 up to but not including 1"),
        (["--endpoint", "/v1/chat/completions"], "need --tokenizer"),
        (["--request-rate", "0"], "must be above 0"),
        (["--request-rate", "4,fast"], "must be above 0"),
        (["--request-rate", "nan"], "must be above 0"),
        (["--request-rate", "4,4.0"], "has a rate twice"),
        (["--burstiness", "-1"], "must be above 0"),
        (["--percentile-metrics", "ttft,speed"], "'speed' is unknown. Use ttft, tpot, itl, e2el"),
        (["--metric-percentiles", "99,p50"], "is not a list of numbers"),
        (["--metric-percentiles", "101"], "is not a list of numbers"),
        (["--goodput", "itl:5"], "Use the names ttft, tpot, e2el"),
        (["--goodput", "ttft:-1"], "Use the names ttft, tpot, e2el"),
        (["--goodput", "ttft:5 ttft:6"], "ttft has a limit already, 5 ms"),
        (["--goodput", "ttft"], "Use the names ttft, tpot, e2el"),
        (["--header", "Authorization"], "is not KEY=VALUE"),
        (["--extra-body", "{"], "is not valid JSON"),
        (["--extra-body", "[1]"], "is not a JSON object"),
        (["--base-url", "localhost:8000"], "is not an http:// or https:// address"),
        (["--base-url", "http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_what_is_refused(options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", "serve", "--num-prompts", "1", "--request-rate", "10", *options])
    assert isinstance(result.exception, ConfigError | OutriderError), result.output
    assert words in str(result.exception)


def test_goodput_says_which_limit_was_missed() -> None:
    answers = [
        answer(0.0, 0.1, 0.5, tokens=5),  # 100 ms to the first token, 100 ms a token
        answer(0.0, 0.3, 0.4, tokens=5),  # 300, 25
        answer(0.0, 0.3, 1.5, tokens=5),  # 300, 300
        answer(0.0, 0.1, tokens=1),  # one token has no time per token
    ]
    figures = figures_of(answers, seconds=2.0, percents=[99.0], goodput={"ttft": 200.0, "tpot": 100.1})
    assert (figures.num_good, figures.request_goodput, figures.missed) == (2, 1.0, {"ttft": 2, "tpot": 1})
    plain = figures_of(answers, seconds=2.0, percents=[99.0], goodput={})
    assert (plain.num_good, plain.request_goodput, plain.missed) == (None, None, None)
    with serving(StreamingServer()) as url:
        output, found = bench(url, "--num-prompts", "4", "--output-len", "9", "--goodput", "ttft:100000 tpot:0.000001")
    assert row(output, "Good requests:") == 0 and row(output, "  TPOT above 1e-06 ms:") == 4
    assert found["missed_limits"] == {"ttft": 0, "tpot": 4} and found["good_requests"] == 0
    assert parse_goodput(["ttft:1,e2el:3"]) == parse_goodput(["ttft:1", "e2el:3"]) == {"ttft": 1.0, "e2el": 3.0}


def test_a_sweep_runs_every_rate_with_prompts_of_its_own(folder: Path) -> None:
    fake = StreamingServer()
    with serving(fake) as url:
        output, found = bench(url, "--num-prompts", "5", "--input-len", "6", "--output-len", "8", "--goodput",
                              "e2el:100000", "--request-rate", "50,200,inf", "--plot", "sweep.png")  # fmt: skip
        _, alone = bench(url, "--num-prompts", "5", "--input-len", "6", "--output-len", "8", "--request-rate", "50",
                         "--goodput", "e2el:100000")  # fmt: skip
    runs = found["runs"]
    assert [run["request_rate"] for run in runs] == [50.0, 200.0, "inf"] and all(run["completed"] == 5 for run in runs)
    prompts = [tuple(body["prompt"]) for _, body, _ in fake.seen[:15]]
    assert len(set(prompts)) == 15, "a prompt that was sent before may be in the server's prefix cache"
    assert {key: runs[0][key] for key in DECISIVE} == {key: alone[key] for key in DECISIVE}
    assert len({run["requests_sha256"] for run in runs}) == 3
    assert runs[0]["duration"] >= arrivals(5, rate=50.0, burstiness=1.0, seed=0)[-1]
    header, _, *rows = [line for line in output.splitlines() if line.startswith("|")]
    assert header.startswith("| req/s sent | req/s answered | goodput req/s | output tok/s | failed | TTFT P50 / P99 ")
    assert [line.split(" | ")[0] for line in rows] == ["| 50", "| 200", "| inf"]
    for line, run in zip(rows, runs, strict=True):
        assert f"| {run['request_goodput']:.2f} | {run['output_throughput']:.1f} | 0 |" in line
        assert f"| {run['median_ttft_ms']:.2f} / {run['p99_ttft_ms']:.2f} |" in line
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_a_sweep_has_limits_and_rates(folder: Path) -> None:
    with serving(StreamingServer()) as url:
        bench(url, "--num-prompts", "3", "--output-len", "8", "--request-rate", "inf,64", "--goodput", "tpot:77",
              "--plot", "sweep.svg")  # fmt: skip
    text = (folder / "sweep.svg").read_text()
    for words in ("limit 77 ms", "good: tpot 77 ms", "requests/s sent", "Acceptance length"):
        assert words in text
    assert text.index("<!-- 64 -->") < text.index("<!-- inf -->"), "rates ascend"
    assert places_of([4.0, 16.0, math.inf]) == [4.0, 16.0, 20.0] and places_of([4.0, 16.0]) == [4.0, 16.0]


def test_reasoning_is_text_under_either_of_its_names() -> None:
    for delta in ({"reasoning": "a"}, {"reasoning_content": "a"}, {"reasoning": "a", "reasoning_content": "a"}):
        assert _text({"choices": [{"delta": delta}]}) == "a"
