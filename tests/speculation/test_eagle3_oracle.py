"""The EAGLE-3 head, run by the engine with its paged KV, against the `speculators` library's own forward.

The drafter is made to draft the true continuation, so the library's teacher-forced training loop sees the same
tokens: its step i at anchor j must give the logits of the engine's i-th draft behind token j. The id that the drafter
picks from them is the most likely one, under the target's noise where it samples, mapped by the head's d2t.
"""

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider import LLM, SamplingParams
from outrider.kernels.reference.noise import gumbel
from tests.support.draft_recorder import Recorder
from tests.support.tiny_heads import oracle_logits, random_head, save_original, save_speculators
from tests.support.tiny_models import write_tiny_model

VOCAB, DRAFT_VOCAB, K = 61, 40, 4
VARIANTS = [
    {"layer": "llama"},
    {"layer": "qwen3", "norm_before_residual": True},
    {"layer": "llama", "norm_before_fc": True, "norm_before_residual": True},
    {"layer": "qwen3", "fc_norm": True, "norm_output": True},
]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("target")
    write_tiny_model(directory, "qwen3", vocab_size=VOCAB, num_hidden_layers=5)
    return directory


def _taps(target_model, token_ids: list[int], layers: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        states = target_model(torch.tensor([token_ids]), output_hidden_states=True).hidden_states
    return torch.cat([states[layer][0] for layer in layers], dim=1)


def _picked(head, logits: torch.Tensor, place: int, params: SamplingParams) -> int:
    """Target id of the most likely draft id; when sampling, with the noise of the same request and position."""
    target_ids = torch.arange(DRAFT_VOCAB) + head.d2t
    if params.temperature > 0:
        noise = gumbel(*(torch.tensor([key]) for key in (params.seed, 0, place)), VOCAB)[0]
        logits = logits / params.temperature + noise[target_ids]
    return int(target_ids[logits.argmax()])


@pytest.mark.parametrize(
    ("variant", "form", "wrong_every", "temperature"),
    [
        *itertools.product(VARIANTS, ["speculators"], [None, 3], [0.0]),
        (VARIANTS[0], "original", None, 0.9),
        (VARIANTS[0], "original", 3, 0.9),
    ],
    ids=str,
)
def test_draft_logits_equal_the_speculators_library(
    target, tmp_path, monkeypatch, variant, form, wrong_every, temperature
):
    head = random_head(vocab_size=VOCAB, draft_vocab_size=DRAFT_VOCAB, **variant)
    save = save_speculators if form == "speculators" else save_original
    config = {"method": "eagle3", "model": str(save(head, tmp_path / "head")), "num_speculative_tokens": K}
    prompt = torch.randint(2, VOCAB, (21,), generator=torch.Generator().manual_seed(5)).tolist()
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=30, ignore_eos=True)
    plain = LLM(str(target), skip_tokenizer_init=True)
    answer = prompt + plain.generate({"prompt_token_ids": prompt}, params)[0].outputs[0].token_ids

    recorder = Recorder(answer, vocab_size=VOCAB, wrong_every=wrong_every)
    recorder.install(monkeypatch)
    llm = LLM(str(target), skip_tokenizer_init=True, speculative_config=config, max_num_batched_tokens=9)
    output = llm.generate({"prompt_token_ids": prompt}, params)[0]
    assert prompt + output.outputs[0].token_ids == answer
    if wrong_every is None:
        assert output.speculation.num_accepted_tokens == output.speculation.num_draft_tokens

    model = AutoModelForCausalLM.from_pretrained(target)
    taps = _taps(model, answer[:-1], (1, 2, 4))
    expected = oracle_logits(head, taps, answer, num_steps=K)
    num_compared = 0
    for step in recorder.seen:
        first = step[0][0]
        if first <= len(prompt) or first > len(answer) - K:
            continue  # a chunk that is not the last, or the end
        was_true = True
        for index, (place, logits, picked) in enumerate(step):
            # the anchor row joins the feature of token first - 2 with token first - 1
            reference = expected[index][first - 2]
            if was_true:
                torch.testing.assert_close(logits, reference, rtol=2e-4, atol=2e-4)
                assert picked == _picked(head, reference, place, params)
                num_compared += 1
            was_true = was_true and wrong_every is None
            assert place == first + index
    assert num_compared >= 4
