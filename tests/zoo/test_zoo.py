"""The shipped models, end to end: against transformers, with and without speculation, through the command line."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from outrider import LLM, SamplingParams, SpeculationStats, StructuredOutputsParams, cli, show
from outrider.cli import app
from outrider.cli import generate as generating
from outrider_recipe.arithmetic.problems import HELD_OUT_FAMILIES, final_answer
from outrider_recipe.measure import held_out_problems

ZOO = Path(__file__).resolve().parents[2] / "zoo"
EAGLE3 = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
ENTRIES = [json.loads(line) for line in (ZOO / "prompts.jsonl").read_text().splitlines()]
CODE = [entry["turns"][0] for entry in ENTRIES if entry["category"] == "code"]
QUESTIONS = [entry for entry in ENTRIES if entry["category"] == "arithmetic"]


@pytest.fixture(scope="module")
def plain():
    return LLM(str(ZOO / "tiny"), logits_digest=True)


@pytest.fixture(scope="module")
def eagle3():
    return LLM(str(ZOO / "tiny"), logits_digest=True, speculative_config=EAGLE3)


def _facts(outputs):
    return [
        (o.outputs[0].token_ids, o.outputs[0].text, o.outputs[0].logits_digest, o.outputs[0].finish_reason,
         o.outputs[0].stop_reason) for o in outputs
    ]  # fmt: skip


def test_greedy_tokens_and_text_equal_transformers(plain):
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "tiny")
    model = AutoModelForCausalLM.from_pretrained(ZOO / "tiny", dtype=torch.float32)
    prompts = [*CODE[:2], QUESTIONS[0]["turns"][0]]
    outputs = plain.generate(prompts, SamplingParams(temperature=0.0, max_tokens=48))
    for prompt, output in zip(prompts, outputs, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        assert inputs.input_ids[0].tolist() == output.prompt_token_ids
        wanted = model.generate(**inputs, max_new_tokens=48, do_sample=False)[0, inputs.input_ids.shape[1] :].tolist()
        assert output.outputs[0].token_ids == wanted
        assert output.outputs[0].text == tokenizer.decode(wanted, skip_special_tokens=True)


def test_chat_uses_the_models_template(plain):
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "tiny")
    message = [{"role": "user", "content": QUESTIONS[0]["turns"][0]}]
    output = plain.chat(message, SamplingParams(max_tokens=4))[0]
    wanted = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert output.prompt_token_ids == wanted


def test_speculation_changes_nothing_but_the_number_of_steps(plain, eagle3):
    prompts = CODE[:8]
    params = [
        SamplingParams(temperature=0.0, max_tokens=56),
        SamplingParams(temperature=1.0, seed=1, max_tokens=56, top_p=0.9),
        SamplingParams(temperature=0.0, max_tokens=56, stop=["return", "\n\n"]),
        SamplingParams(temperature=0.8, seed=2, max_tokens=56, stop=["(", "self."], min_tokens=10),
        SamplingParams(temperature=0.7, seed=3, max_tokens=56, repetition_penalty=1.2, logprobs=2),
        SamplingParams(temperature=0.0, max_tokens=56, frequency_penalty=0.5),
        SamplingParams(temperature=1.0, seed=4, max_tokens=56, min_p=0.05, top_k=40),
        SamplingParams(temperature=0.0, max_tokens=56, ignore_eos=True),
    ]
    expected = plain.generate(prompts, params)
    outputs = eagle3.generate(prompts, params)
    assert _facts(outputs) == _facts(expected)
    assert [o.outputs[0].logprobs for o in outputs] == [o.outputs[0].logprobs for o in expected]
    steps = [sum(o.speculation.num_steps for o in run) for run in (outputs, expected)]
    assert steps[0] < steps[1] * 0.7
    stopped = outputs[2].outputs[0]
    assert stopped.stop_reason in ("return", "\n\n") and stopped.stop_reason not in stopped.text


def test_the_draft_model_fits_and_changes_nothing_but_the_number_of_steps(plain):
    assert (ZOO / "tiny-draft" / "model.safetensors").stat().st_size <= 3 << 20
    config = {"method": "draft_model", "model": str(ZOO / "tiny-draft"), "num_speculative_tokens": 3}
    llm = LLM(str(ZOO / "tiny"), logits_digest=True, speculative_config=config)
    params = [SamplingParams(temperature=float(i % 2), seed=i, max_tokens=40) for i in range(4)]
    outputs, expected = llm.generate(CODE[:4], params), plain.generate(CODE[:4], params)
    assert _facts(outputs) == _facts(expected)
    stats = SpeculationStats()
    for output in outputs:
        stats.add(output.speculation)
    assert stats.mean_acceptance_length >= 1.5


def test_structured_output_of_the_shipped_models_is_exact_and_parses(plain, eagle3):
    """The head drafts 2560 of the 3072 tokens; what it drafts outside the schema is cut."""
    schema = {
        "type": "object",
        "properties": {"right": {"type": "boolean"}, "count": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["right", "count"],
        "additionalProperties": False,
    }
    asked = StructuredOutputsParams(json=schema)
    params = [
        SamplingParams(structured_outputs=asked, temperature=float(i % 2), seed=i, max_tokens=60) for i in range(4)
    ]
    messages = [[{"role": "user", "content": entry["turns"][0]}] for entry in QUESTIONS[:4]]
    outputs, expected = eagle3.chat(messages, params), plain.chat(messages, params)
    finished = [output.outputs[0] for output in outputs if output.outputs[0].finish_reason == "stop"]
    assert finished
    for completion in finished:
        jsonschema.validate(json.loads(completion.text), schema)
    assert _facts(outputs) == _facts(expected)


@pytest.mark.slow
def test_long_outputs_are_equal(plain, eagle3):
    params = SamplingParams(temperature=0.9, seed=5, max_tokens=500, ignore_eos=True)
    assert _facts(eagle3.generate(CODE[0], params)) == _facts(plain.generate(CODE[0], params))


def test_eagle3_reaches_its_acceptance_length_on_held_out_code(eagle3):
    outputs = eagle3.generate(CODE, SamplingParams(temperature=0.0, max_tokens=64))
    stats = SpeculationStats()
    for output in outputs:
        stats.add(output.speculation)
    assert stats.mean_acceptance_length >= 2.2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_at_least_60_percent_of_held_out_word_problems_are_right(eagle3):
    """All 400 of the figures in zoo/README.md: families and numbers that were never trained on."""
    problems = held_out_problems(HELD_OUT_FAMILIES, per_family=25)
    messages = [[{"role": "user", "content": problem.question}] for problem in problems]
    outputs = eagle3.chat(messages, SamplingParams(temperature=0.0, max_tokens=300))
    answers = [final_answer(output.outputs[0].text) for output in outputs]
    right = sum(answer == problem.value for answer, problem in zip(answers, problems, strict=True))
    assert len(problems) == 400
    assert right >= 240


def test_demo_shows_what_speculation_did_and_proves_it():
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    for words in (
        "accepted draft",
        "mean acceptance length",
        "draft 3 accepted",
        "target steps",
        "tokens per step",
        " s with drafts, ",
    ):
        assert words in result.output
    exact = "prompts gave the same 335 tokens and the same logits digests, bit for bit."
    assert exact in " ".join(result.output.split())


def test_generate_compares_side_by_side():
    result = CliRunner().invoke(app, ["generate", "--compare", "--max-tokens", "24", "--prompt", "def add(a, b):\n"])
    assert result.exit_code == 0, result.output
    assert "with speculation" in result.output and "without" in result.output
    assert "24 tokens in 24 steps, cut off" in result.output and " s with drafts, " in result.output
    assert "the prompt gave the same 24 tokens and the same logits digests, bit for bit." in " ".join(
        result.output.split()
    )


def test_info_says_what_runs():
    result = CliRunner().invoke(app, ["info"])
    assert result.exit_code == 0, result.output
    for words in ("platform", "cpu", "oracle", "eagle3"):
        assert words in result.output
    assert re.search(r"exact +│ yes: tokens depend on weights, prompt, parameters and", result.output)


def test_an_error_of_the_user_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["outrider", "generate", "/nowhere", "--prompt", "hello"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "'/nowhere' is not a directory" in message and "Traceback" not in message


def test_accepted_drafts_have_their_own_colour(eagle3):
    tokenizer = eagle3.engine.tokenizer
    output = eagle3.generate(CODE[0], SamplingParams(temperature=0.0, max_tokens=60, stop="("))[0]
    shown = show.coloured(output, tokenizer)
    assert shown.plain == output.prompt + output.outputs[0].text
    drafts = sum(span.end - span.start for span in shown.spans if span.style == show.DRAFT_STYLE)
    assert 0 < drafts < len(output.outputs[0].text)


def test_a_difference_is_shown_and_fails(monkeypatch):
    original = generating._complete

    def complete(llm, texts, params, *, chat):
        outputs = original(llm, texts, params, chat=chat)
        if llm.engine.worker.drafter is None:
            outputs[0].outputs[0].token_ids[3] += 1
        return outputs

    monkeypatch.setattr(generating, "_complete", complete)
    result = CliRunner().invoke(app, ["generate", "--compare", "--max-tokens", "8", "--prompt", "def add(a, b):\n"])
    assert result.exit_code == 1
    assert "NOT EXACT" in result.output and "from output token 3" in result.output
