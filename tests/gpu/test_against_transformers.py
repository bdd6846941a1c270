"""Families whose layers have kernels of their own on a GPU, against transformers: log-probabilities of a prompt.

bfloat16 against float32 on weights that bfloat16 holds, so the error has a bound: twice that of transformers itself in
bfloat16. A wrong formula, put in as a control, is far outside of it.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeForCausalLM

from outrider import LLM, SamplingParams
from tests.support.tiny_models import write_tiny_model

VOCAB = 509
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.1,
    "num_experts": 20,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 72,
    "mlp_only_layers": [1],
}


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


def _logprobs(directory, prompt: list[int]) -> torch.Tensor:
    """Log-probabilities of each prompt token but the first, by the engine; the prompt takes several steps."""
    llm = LLM(str(directory), device="cuda", skip_tokenizer_init=True, max_num_batched_tokens=50, max_num_seqs=4)
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    output = llm.generate({"prompt_token_ids": prompt}, params)[0]
    rows = zip(prompt[1:], output.prompt_logprobs[1:], strict=True)
    return torch.tensor([row[token].logprob for token, row in rows])


@pytest.mark.parametrize("is_normalized", [True, False])
def test_a_mixture_of_experts(tmp_path, is_normalized):
    write_tiny_model(tmp_path, "qwen3_moe", norm_topk_prob=is_normalized, **SIZES)
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    prompt = torch.randint(3, VOCAB, (180,), generator=torch.Generator().manual_seed(1)).tolist()

    def of_transformers(dtype: torch.dtype) -> torch.Tensor:
        oracle = Qwen3MoeForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()
        with torch.no_grad():
            logprobs = oracle(torch.tensor([prompt])).logits[0].float().log_softmax(dim=1)
        return logprobs[:-1].gather(1, torch.tensor(prompt[1:]).unsqueeze(1)).squeeze(1)

    expected = of_transformers(torch.float32)

    def error(found: torch.Tensor) -> float:
        return (found - expected).square().mean().sqrt().item()

    bound = 2 * error(of_transformers(torch.bfloat16))
    assert bound < 0.2 * expected.std()
    assert error(_logprobs(tmp_path, prompt)) < bound
    other = {"gate_proj": "up_proj", "up_proj": "gate_proj", "down_proj": "down_proj"}
    swapped = dict(tensors)
    for name in tensors:
        if ".experts." in name:
            *front, kind, end = name.split(".")
            swapped[name] = tensors[".".join([*front, other[kind], end])]
    save_file({name: tensor.clone() for name, tensor in swapped.items()}, path, metadata={"format": "pt"})
    assert error(_logprobs(tmp_path, prompt)) > 2 * bound
