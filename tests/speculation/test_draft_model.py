"""An independent draft model: it says what transformers says of the same tokens, and fits its target or is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider import LLM, ConfigError, SamplingParams
from outrider.kernels.reference.sampling.noise import gumbel
from tests.support.gguf_files import no_text, write_gguf
from tests.support.tiny_models import write_draft_model, write_tiny_model

VOCAB, K = 61, 3


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("target")
    write_tiny_model(directory, "qwen3", vocab_size=VOCAB)
    return directory


@pytest.fixture(scope="module")
def other(target, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("draft")
    write_draft_model(directory, target, spread=0.3)
    return directory


def make(target: Path, draft: Path, **options) -> LLM:
    config = {"method": "draft_model", "model": str(draft), "num_speculative_tokens": K}
    return LLM(str(target), skip_tokenizer_init=True, speculative_config=config, **options)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_are_what_transformers_would_draft(target, other, temperature):
    """Token by token, greedily, or under the noise that the target will use."""
    llm = make(target, other, overlap_depth=0)
    oracle = AutoModelForCausalLM.from_pretrained(other).eval()
    params = SamplingParams(temperature=temperature, seed=5, max_tokens=40, ignore_eos=True)
    asked = llm.engine.new_request({"prompt_token_ids": [5, 9, 3, 44, 7, 12]}, params)
    llm.engine.add(asked)
    request = llm.engine.scheduler.find(asked.request_id)
    while request.num_output_tokens < 30:
        llm.engine.step()
        tokens = list(request.token_ids)
        for draft in llm.engine.worker.table.drafts[request.row, :K].tolist():
            with torch.no_grad():
                logits = oracle(torch.tensor([tokens])).logits[0, -1].float()
            if temperature:
                key = (torch.tensor([5]), torch.tensor([0]), torch.tensor([len(tokens)]))
                logits = logits / temperature + gumbel(*key, VOCAB)[0]
            assert logits[draft] > logits.max() - 1e-3
            tokens.append(draft)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_itself_as_draft_model_is_always_right(target, temperature):
    """Equal logits under equal noise: every draft is accepted, at any temperature."""
    params = SamplingParams(temperature=temperature, seed=2, max_tokens=41, ignore_eos=True)
    for budget in (512, 9):
        llm = make(target, target, max_num_batched_tokens=budget)
        stats = llm.generate({"prompt_token_ids": list(range(3, 40))}, params)[0].speculation
        assert stats.num_drafts == 10 and stats.num_accepted_tokens == 3 * 10


def test_a_model_of_another_vocabulary_is_refused(target, tmp_path):
    write_tiny_model(tmp_path, "llama", vocab_size=VOCAB + 1)
    with pytest.raises(ConfigError, match=r"vocab_size=62 is not the target's 61\. .* of the same family"):
        make(target, tmp_path)


def test_a_model_with_other_tokens_is_refused(target, tmp_path):
    folders = [tmp_path / name for name in ("target", "draft")]
    for folder, token in zip(folders, ("b", "c"), strict=True):
        write_tiny_model(folder, "qwen3", vocab_size=VOCAB)
        tokens = {"model": {"vocab": {"a": 0, token: 1}}, "added_tokens": [{"id": 2, "content": "<end>"}]}
        (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(ConfigError, match="token 1 is 'c' in the draft model and 'b' in the target"):
        make(*folders)
    make(folders[0], folders[0])


def test_gguf_files_are_targets_and_draft_models_and_no_heads(target, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(target)
    file = write_gguf(tmp_path / "model.gguf", model)
    params = SamplingParams(temperature=0, max_tokens=21, ignore_eos=True)
    for pair in ((file, file), (target, file), (file, target)):
        stats = make(*pair).generate({"prompt_token_ids": [5, 9, 3]}, params)[0].speculation
        assert stats.num_drafts == 5 and stats.num_accepted_tokens == 3 * 5
    tokenizer = no_text(model.config)
    tokenizer["ggml.tokens"][7] = "other"
    other = write_gguf(tmp_path / "other.gguf", model, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="token 7 is 'other' in the draft model and 'token7' in the target"):
        make(file, other)
    for method in ("eagle3", "eagle"):
        config = {"method": method, "model": str(file), "num_speculative_tokens": 1}
        with pytest.raises(
            ConfigError, match=r"model\.gguf is a GGUF file, which is read for targets and draft models"
        ):
            LLM(str(target), skip_tokenizer_init=True, speculative_config=config)
