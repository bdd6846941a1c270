"""The commands, through the command line: exit code 0 pass, 1 regression, 2 could not run."""

import json
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from outrider import cli
from outrider.cli import app
from outrider.gate import commands, measure
from outrider.gate.baseline import read_baseline
from outrider.scheduler.scheduler import Scheduler
from tests.support.fake_server import MODEL, FakeServer, serving

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "zoo"
EAGLE3 = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
TARGET = [str(ZOO / "tiny")]


def run(*arguments, code):
    """Output of `outrider gate …`, which must end with this exit code."""
    result = CliRunner().invoke(app, ["gate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "few.jsonl"
    entries = [json.loads(line) for line in (ZOO / "prompts.jsonl").read_text().splitlines()]
    chosen = [entries[index] for index in (2, 3, 6, 9, 20, 22, 25, 27)]
    chosen[7]["turns"].append("And twice as many?")
    path.write_text("".join(json.dumps(entry) + "\n" for entry in chosen))
    return path


@pytest.fixture(scope="module")
def recorded(prompts, tmp_path_factory):
    """A baseline of eight prompts, recorded through the command line."""
    path = tmp_path_factory.mktemp("baseline") / "few.toml"
    options = ["--prompts", prompts, "--baseline", path, "--max-tokens", 12]
    text = run("record", *TARGET, "--speculative-config", json.dumps(EAGLE3), *options, code=0)
    assert "8 requests" in text and "1 platform entries" in text
    return path


@pytest.fixture
def baseline(recorded, tmp_path):
    """A copy to edit."""
    path = tmp_path / "few.toml"
    path.write_text(recorded.read_text())
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def damaged_head(directory):
    """The shipped head with noise on its weights."""
    copy = directory / "head"
    copy.mkdir()
    weights = load_file(ZOO / "tiny-eagle3" / "model.safetensors")
    noise = torch.randn(weights["fc.weight"].shape, generator=torch.Generator().manual_seed(1))
    weights["fc.weight"] = weights["fc.weight"] + (0.03 * noise).to(weights["fc.weight"].dtype)
    save_file(weights, copy / "model.safetensors")
    (copy / "config.json").write_text((ZOO / "tiny-eagle3" / "config.json").read_text())
    return json.dumps(EAGLE3 | {"model": str(copy)})


def test_the_same_again_passes_and_writes_its_reports(baseline, tmp_path):
    reports = ["--junit", tmp_path / "out" / "j.xml", "--html", tmp_path / "out" / "h.html"]
    text = run("check", "--baseline", baseline, *reports, code=0)
    assert "PASS: every integer and digest of 8 requests equals the baseline" in text
    assert ET.parse(tmp_path / "out" / "j.xml").getroot().get("failures") == "0"
    assert "<svg" in (tmp_path / "out" / "h.html").read_text()


def test_a_damaged_drafter_is_a_regression_and_only_the_drafter_is_blamed(baseline, tmp_path):
    text = run(
        "check", "--baseline", baseline, "--speculative-config", damaged_head(tmp_path),
        "--junit", tmp_path / "j.xml", code=1,
    )  # fmt: skip
    assert "REGRESSION: text and logits are the same, acceptance moved in" in text
    assert "only the drafter changed" in text
    assert ET.parse(tmp_path / "j.xml").getroot().get("failures") == "1"


def test_another_text_is_the_targets_doing(baseline, monkeypatch):
    """One token differs, as after a change of the sampler; the drafter is the same."""
    original = measure._sample

    def sample(prompt, output, *, turn):
        if prompt.prompt_id == "4":
            output.outputs[0].token_ids[9] += 1
        return original(prompt, output, turn=turn)

    monkeypatch.setattr(measure, "_sample", sample)
    text = run("check", "--baseline", baseline, code=1)
    assert "the text changed in 1 of 8 requests: the target changed (first in prompt 4, turn 1, output token 9)" in text


def test_elsewhere_rates_are_judged_and_the_fallback_is_said(baseline, tmp_path):
    here = torch.backends.cpu.get_cpu_capability()
    edit(baseline, f'capability = "{here}"', 'capability = "of another CPU"')
    text = run("check", "--baseline", baseline, "--html", tmp_path / "h.html", code=0)
    assert "no entry of its own; compared with the default entry" in text and "no rate left its bounds" in text
    text = run("record", *TARGET, "--speculative-config", json.dumps(EAGLE3), "--max-tokens", 12,
               "--prompts", read_baseline(baseline).settings.prompts, "--baseline", baseline, code=0)  # fmt: skip
    assert "2 platform entries" in text
    assert "integers and digests must be equal" in run("check", "--baseline", baseline, code=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-tokens", 17], "max_tokens=17 is not the baseline's 12"),
        (["--temperature", 0.5], "temperature=0.5 is not the baseline's 0.0"),
        (["--seed", 3], "seed=3 is not the baseline's 0"),
        (["--all-turns"], "all_turns=True is not the baseline's False"),
        (["--speculative-config", json.dumps(EAGLE3 | {"num_speculative_tokens": 2})], "the gate pins k"),
        (["--speculative-config", "{"], "is not valid JSON"),
        (["--speculative-config", '{"method": "tests.support.drafters.noise"}'], "is not row-invariant"),
        (["--prompts", ZOO / "prompts.jsonl"], "is not the prompt file of the baseline"),
        (["/nowhere"], "'/nowhere' is not a directory"),
        (["--device", "abacus"], "device='abacus' is not known"),
    ],
)
def test_another_run_than_the_baselines_could_not_run(recorded, arguments, words):
    assert words in run("check", "--baseline", recorded, *arguments, code=2)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("required_memory_gib = 0.0", "required_memory_gib = 1e6", "needs 1e+06 GiB and the device has"),
        ("[gate.excluded_backends]", '[gate.excluded_backends]\noracle = "too slow here"', "'oracle': too slow here"),
        ("prompt_digest = ", 'prompt_digest = "00" # ', "other token ids than in the baseline"),
    ],
)
def test_what_an_entry_asks_for(baseline, tmp_path, old, new, words):
    edit(baseline, old, new)
    assert words in run("check", "--baseline", baseline, "--junit", tmp_path / "j.xml", code=2)
    assert words in " ".join(ET.parse(tmp_path / "j.xml").getroot().find(".//skipped").get("message").split())


def test_an_engine_that_is_not_exact_is_refused(recorded, monkeypatch):
    monkeypatch.setattr("outrider.platforms.cpu.Platform.is_exact", False)
    assert "this engine is not exact here" in run("check", "--baseline", recorded, "--device", "cpu", code=2)


def test_a_preempted_request_is_refused(recorded, monkeypatch):
    original = Scheduler._finish

    def finish(self, request, reason):
        request.num_preemptions = 1
        original(self, request, reason)

    monkeypatch.setattr(Scheduler, "_finish", finish)
    assert "was preempted 1 times" in run("check", "--baseline", recorded, code=2)


def test_an_unexpected_error_is_no_verdict(recorded, monkeypatch):
    monkeypatch.setattr(commands, "check_measurement", lambda *args, **options: 1 // 0)
    text = run("check", "--baseline", recorded, code=2)
    assert "ZeroDivisionError" in text and "could not run" in text


def test_the_exit_code_is_that_of_the_process(recorded, monkeypatch):
    codes = []
    for arguments in (["--baseline", str(recorded)], ["--baseline", "/nowhere.toml"]):
        monkeypatch.setattr(sys, "argv", ["outrider", "gate", "check", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        codes.append(stopped.value.code)
    assert codes == [0, 2]


def test_record_refuses_what_cannot_be_gated(baseline, prompts, tmp_path, monkeypatch):
    common = ["record", *TARGET, "--prompts", prompts]
    new = ["--baseline", tmp_path / "new.toml", "--max-tokens", 8]
    assert "without a drafter there is nothing to gate" in run(*common, *new, "--speculative-config", "none", code=2)
    text = run(*common, *new, "--speculative-config", json.dumps({"method": "ngram", "prompt_lookup_min": 60,
               "prompt_lookup_max": 64}), code=2)  # fmt: skip
    assert "the drafter proposed nothing" in text
    monkeypatch.setattr(commands.Source, "measure", None)  # said before anything is measured
    text = run(*common, "--baseline", baseline, "--speculative-config", json.dumps(EAGLE3), code=2)
    assert "was recorded with max_tokens=12, this is 128" in text
    assert not (tmp_path / "new.toml").exists()


def test_counts_do_not_depend_on_the_crowd_and_follow_the_turns(prompts, tmp_path):
    """All turns, temperature 1: together, and one request at a time."""
    listed = commands.read_prompts(prompts)
    runs = [
        measure.measure(
            measure.open_engine(str(ZOO / "tiny"), EAGLE3, **options),
            listed, max_tokens=12, temperature=1.0, seed=3, all_turns=True,
        )
        for options in ({}, {"max_num_seqs": 1, "enable_prefix_caching": False})
    ]  # fmt: skip
    assert runs[0].samples == runs[1].samples
    assert [(sample.turn, sample.seed) for sample in runs[0].samples] == [
        *((1, seed) for seed in range(3, 11)),
        (2, 10),
    ]


def test_compare_scores_drafters_on_the_same_tokens(prompts):
    ngram = json.dumps({"method": "ngram", "num_speculative_tokens": 3})
    options = [*TARGET, "--prompts", prompts, "--max-tokens", 8]
    drafters = ["--speculative-config", json.dumps(EAGLE3), "--speculative-config", ngram]
    text = run("compare", *options, *drafters, "--cost-ratio", 0.1, "--cost-ratio", 0, code=0)
    assert "A k=3" in text and "B k=3" in text and "of 64 output tokens, the same for both" in text
    text = run("compare", *options, "--k", "1,2", "--cost-ratio", 0.3, code=0)
    assert "A k=1" in text and "A k=2" in text and "← best" in text
    assert "Give one for each" in run("compare", *options, *drafters, "--cost-ratio", 1, code=2)
    assert "is not a list of numbers" in run("compare", *options, "--k", "1-3", code=2)


def test_accuracy_passes_at_its_measured_threshold_and_fails_above(tmp_path):
    lines = (ZOO / "questions.jsonl").read_text().splitlines()
    (tmp_path / "q.jsonl").write_text("\n".join([lines[17], lines[9]]))
    (tmp_path / "shots.jsonl").write_text(lines[20])
    common = ["accuracy", *TARGET, "--speculative-config", json.dumps(EAGLE3), "--questions", tmp_path / "q.jsonl"]
    path = tmp_path / "a.toml"
    text = run(*common, "--baseline", path, "--record", "--max-tokens", 64, code=0)
    assert "answers that speculation changed: 0" in text
    values = tomllib.loads(path.read_text())["accuracy"]
    assert values["num_right"] >= 1 and 0 < values["threshold"] < values["num_right"] / 2
    assert "max_tokens is 65 here and 64" in run(*common, "--baseline", path, "--max-tokens", 65, code=2)
    few_shot = ["--few-shot", tmp_path / "shots.jsonl", "--max-tokens", 4]
    run(*common, *few_shot, "--threshold", 1.0, code=1)  # 4 tokens do not reach an answer
    assert "gates nothing" in run(*common, "--threshold", 0, code=2)
    assert "either --baseline" in run(*common, code=2)


def test_a_server_is_gated_like_an_engine(prompts, tmp_path):
    path = tmp_path / "served.toml"
    with serving(FakeServer("vllm")) as url:
        run("record", "--endpoint", url, MODEL, "--prompts", prompts, "--max-tokens", 64,
            "--baseline", path, code=0)  # fmt: skip
    with serving(FakeServer("vllm")) as url:
        text = run("check", "--endpoint", url, "--baseline", path, code=0)
    assert "rates are judged, not integers" in text and "PASS" in text
    with serving(FakeServer("vllm", luck=15)) as url:
        assert "REGRESSION" in run("check", "--endpoint", url, "--baseline", path, code=1)
    with serving(FakeServer("vllm", fault="traffic")) as url:
        assert "other traffic interferes" in run("check", "--endpoint", url, "--baseline", path, code=2)
    edit(path, "num_speculative_tokens = 3", "num_speculative_tokens = 4")
    with serving(FakeServer("vllm")) as url:
        assert "k = 3, the baseline pins 4" in run("check", "--endpoint", url, "--baseline", path, code=2)


def test_a_server_without_rates_per_position_is_judged_by_its_total(prompts, tmp_path):
    path = tmp_path / "served.toml"
    options = ["--speculative-config", '{"num_speculative_tokens": 3}', "--max-tokens", 64]
    with serving(FakeServer("sglang")) as url:
        run("record", "--endpoint", url, MODEL, "--prompts", prompts, "--baseline", path, *options, code=0)
    with serving(FakeServer("sglang", luck=15)) as url:
        text = run("check", "--endpoint", url, "--baseline", path, code=1)
    assert "only the total is judged" in text and "over 1 tests" in text


def test_lanes_print_what_to_run():
    lanes = ["lanes", "--file", ROOT / "lanes.toml"]
    assert "make test" in run(*lanes, "--nightly", code=0)
    result = CliRunner().invoke(app, ["gate", *map(str, lanes), "--nightly", "--format", "github"])
    assert {entry["lane"] for entry in json.loads(result.output)["include"]} >= {"test", "identity matrix"}
    assert "steps:" in run(*lanes, "--nightly", "--format", "buildkite", code=0)
    assert "--format 'xml' is not known" in run(*lanes, "--format", "xml", code=2)
    assert "since 'no such revision'" in run(*lanes, "--since", "no such revision", code=2)
