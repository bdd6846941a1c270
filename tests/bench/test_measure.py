"""Counts of the benchmarks on a tiny model: tokens, deliveries, parts of a step, bytes. Never how fast it was."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outrider import LLM, SamplingParams
from outrider.bench.limits import bytes_per_step, measure_limit
from outrider.bench.measure import Spread, measure_latency, measure_throughput
from outrider.bench.split import PARTS, measure_split
from outrider.bench.timeline import run
from outrider.bench.workload import Workload, dataset_prompts, random_prompts
from outrider.cli import app
from outrider.engine.tokenizer import Tokenizer
from outrider.gate.errors import GateError
from outrider.platforms.base import Capability, platform_class
from tests.support.tiny_heads import random_head, save_original
from tests.support.tiny_models import write_tiny_model

ZOO = Path(__file__).parents[2] / "zoo" / "tiny"
VOCAB = 61
SYNTHETIC = {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.5}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench")
    write_tiny_model(path / "target", "llama", vocab_size=VOCAB, num_hidden_layers=4, eos_token_id=2)
    save_original(random_head(vocab_size=VOCAB, draft_vocab_size=40), path / "head", with_embedding=False)
    return path


@pytest.fixture(scope="module")
def llm(directory):
    speculative = {"method": "eagle3", "model": str(directory / "head"), "num_speculative_tokens": 2}
    return LLM(
        str(directory / "target"), skip_tokenizer_init=True, enable_prefix_caching=False, max_num_seqs=3,
        speculative_config=speculative | SYNTHETIC,
    )  # fmt: skip


def workload(count: int = 5, *, max_concurrency: int = 3, max_tokens: int = 9) -> Workload:
    params = [
        SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, seed=seed) for seed in range(count)
    ]
    prompts = random_prompts(count, length=6, vocab_size=VOCAB, seed=1)
    return Workload(prompts=prompts, params=params, max_concurrency=max_concurrency)


def test_every_token_is_delivered_once(llm):
    most = []
    original = llm.engine.step

    def step():
        most.append(len(llm.engine.scheduler.running) + len(llm.engine.scheduler.waiting))
        return original()

    llm.engine.step = step
    result = run(llm.engine, workload(), notes_deliveries=True)
    del llm.engine.step
    assert max(most) == 3, "no more at a time than asked for, and as many where there are"
    assert result.num_tokens == 5 * 9 == sum(entry.num_tokens for entry in result.deliveries)
    for entry in result.deliveries:
        assert entry.times == sorted(entry.times) and entry.times[0] > 0
        assert len(entry.gaps) == len(entry.times) - 1
        assert all(gap >= 0 for gap in entry.gaps)
    plain = run(llm.engine, workload(), notes_deliveries=False)
    assert plain.deliveries == []
    tokens = {tuple(output.prompt_token_ids): output.outputs[0].token_ids for output in result.outputs}
    assert tokens == {tuple(output.prompt_token_ids): output.outputs[0].token_ids for output in plain.outputs}


def parts_of(worker) -> tuple:
    step = worker.step_function
    return step.model, step.sampler, step.drafting.drafter, worker.graphs


def test_a_step_is_split_and_the_engine_is_left_as_it_was(llm):
    worker = llm.engine.worker
    before = parts_of(worker)
    split = measure_split(llm.engine, workload())
    assert tuple(split.ms) == PARTS and split.num_steps > 0
    assert all(value > 0 for value in split.ms.values())
    assert before == parts_of(worker)
    for owner in (llm.engine.scheduler, worker):
        assert not {"plan", "settle", "step"} & vars(owner).keys()


def test_figures_agree_with_each_other(llm):
    figures = measure_latency(
        llm.engine, workload(3), num_iters=2, num_iters_warmup=0, read_bandwidth=1e9
    )  # fmt: skip
    assert figures.num_tokens == 27 and figures.tokens_per_second == figures.num_tokens / figures.seconds
    assert figures.decode_tokens_per_second is not None and figures.limit is not None
    assert figures.stats.is_synthetic and figures.stats.num_drafts > 0
    assert figures.limit.share == figures.limit.bytes_per_step / 1e9 / (figures.step_ms / 1e3)
    through = measure_throughput(llm.engine, workload())
    assert through.num_tokens == 45 and through.decode_tokens_per_second is None and through.limit is None
    assert through.ttft is not None and through.itl is not None and through.itl.p99 >= through.itl.median


def test_one_token_each_has_no_decoding_to_measure(llm):
    figures = measure_latency(
        llm.engine, workload(2, max_tokens=1), num_iters=1, num_iters_warmup=1, read_bandwidth=None
    )  # fmt: skip
    assert figures.decode_tokens_per_second is None and figures.itl is None and figures.tpot_ms is None


def test_bytes_of_a_step_are_weights_and_kv(llm):
    """By hand, from the shapes: width 64, MLP 96, four heads of 16 over two kv heads, float32."""
    layer = 64 * (4 + 2 + 2) * 16 + 64 * 64 + 3 * 64 * 96 + 2 * 64
    target = 4 * layer + 64 + VOCAB * 64
    head_layer = 128 * (4 + 2 + 2) * 16 + 64 * 64 + 3 * 64 * 96 + 3 * 64
    head = 2 * (head_layer + 64 + 40 * 64) + 192 * 64
    weights = 4 * (target + head)
    assert bytes_per_step(llm.engine, num_requests=0, mean_length=0.0) == weights
    kv = 4 * 2 * 4 * 2 * 16
    drafter_kv = 2 * (4 * 2 * 2 * 16 + 64 * 4 / 16)
    assert bytes_per_step(llm.engine, num_requests=3, mean_length=10.0) == weights + 30 * (kv + drafter_kv)


def test_an_unknown_bandwidth_is_said_to_be_unknown(llm, monkeypatch):
    arguments = {"num_requests": 1, "mean_length": 8.0, "step_seconds": 1e-3}
    limit = measure_limit(llm.engine, **arguments, read_bandwidth=None)
    assert limit.share is None and limit.bandwidth is None and "is unknown" in limit.note
    given = measure_limit(llm.engine, **arguments, read_bandwidth=2e9)
    assert given.share == given.bytes_per_step / 2e6
    h200 = Capability(name="NVIDIA H200", version=(9, 0), arch="sm_90", runtime="13.0")
    monkeypatch.setattr(llm.engine.worker, "platform", platform_class("cuda")(h200))
    assert measure_limit(llm.engine, **arguments, read_bandwidth=None).bandwidth == 4.37e12


def test_percentiles_are_by_nearest_rank():
    assert Spread.of([]) is None
    assert Spread.of([0.002]) == Spread(mean=2.0, median=2.0, p99=2.0)
    spread = Spread.of([index / 1e3 for index in range(200, 0, -1)])
    assert spread is not None and (spread.median, spread.p99) == (100.5, 198.0)


def test_a_dataset_is_read_in_order_and_a_bad_line_is_named(tmp_path):
    tokenizer = Tokenizer(ZOO)
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps({"turns": [f"question {index}", "more"]}) for index in range(4)))
    prompts = dataset_prompts(path, count=3, tokenizer=tokenizer)
    assert [f"question {index}" in tokenizer.decode(ids) for index, ids in enumerate(prompts)] == [True] * 3
    path.write_text('{"turns": ["a"], "chat": false}\n{"turns": ["a"]}\n')
    plain, chat = dataset_prompts(path, count=3, tokenizer=tokenizer)
    assert plain == tokenizer.encode("a") and len(chat) > len(plain), "a chat template for messages only"
    path.write_text('{"turns": ["a"]}\n{"text": "b"}\n')
    with pytest.raises(GateError, match=r"questions.jsonl:2 has the keys"):
        dataset_prompts(path, count=3, tokenizer=tokenizer)


@pytest.mark.parametrize("command", ["latency", "throughput", "dataset", "host"])
def test_commands_print_tables_and_write_json(command, directory, tmp_path):
    (tmp_path / "config.json").write_text((directory / "target" / "config.json").read_text())
    dummy = [str(tmp_path), "--load-format", "dummy", "--output-len", "4", "--max-model-len", "64"]
    arguments = {
        "latency": ["latency", *dummy, "--batch-size", "2", "--num-iters", "1", "--num-iters-warmup", "0"],
        "throughput": ["throughput", *dummy, "--num-prompts", "3", "--max-concurrency", "2", "--input-len", "5"],
        "dataset": [
            "throughput", str(ZOO), "--num-prompts", "1", "--output-len", "2", "--dataset-path",
            str(ZOO.parent / "prompts.jsonl"),
        ],
        "host": ["host", str(ZOO), "--batch-size", "2", "--num-iters", "1"],
    }[command]  # fmt: skip
    path = tmp_path / "figures.json"
    result = CliRunner().invoke(app, ["bench", *arguments, "--output-json", str(path)])
    assert result.exit_code == 0, result.output
    content = json.loads(path.read_text())
    if command == "host":
        assert [row["num_drafts"] for row in content["rows"]] == [0, 3]
        return
    assert content["is_exact"] is True and "exact" in result.output and "TTFT" in result.output
    assert content["num_tokens"] in {"latency": (8,), "throughput": (12,), "dataset": (1, 2)}[command]
    assert set(content["split"]["ms"]) == set(PARTS)


def test_of_experts_those_count_that_an_even_choice_reads(tmp_path):
    write_tiny_model(tmp_path, "qwen3_moe", vocab_size=VOCAB, num_experts=8, num_experts_per_tok=2)
    llm = LLM(str(tmp_path), skip_tokenizer_init=True)
    model = llm.engine.worker.model
    experts = sum(parameter.nbytes for name, parameter in model.named_parameters() if ".experts." in name)
    weights = sum(parameter.nbytes for parameter in model.parameters()) - model.embed_tokens.weight.nbytes
    for num_requests, share in ((1, 1 / 4), (2, 7 / 16), (200, 1.0)):
        expected = weights - experts + share * experts
        assert abs(bytes_per_step(llm.engine, num_requests=num_requests, mean_length=0.0) - expected) < 4
