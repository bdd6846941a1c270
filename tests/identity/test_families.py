"""Families that are not the matrix's own, with the drafters that belong to them: equality as there, in fewer runs.

What differs between families is a layer or a drafter, not the engine around them, so a few settings that cut, crowd,
preempt and cache are enough. Half of the drafts are right, so every accepted count occurs.
"""

from functools import partial

import pytest
import torch

from outrider.layers.latent_attention import LatentAttention
from outrider.layers.moe import MoE
from tests.support import request_mix
from tests.support.half_right_drafts import make_half_right
from tests.support.prediction_modules import write_deep_mimo, write_latent
from tests.support.tiny_heads import random_eagle_head, random_head, save_original
from tests.support.tiny_models import write_mxfp4, write_tiny_model
from tests.support.tiny_mtp import write_mimo

K = 3
SHAPE = {"vocab_size": request_mix.VOCAB, "eos_token_id": request_mix.EOS, "seed": 3, "max_position_embeddings": 512}
SETTINGS = {
    "chunks": {"max_num_batched_tokens": 13, "max_num_seqs": 16},
    "few blocks": {"num_gpu_blocks_override": 15, "max_num_seqs": 16, "enable_prefix_caching": False},
    "cached": {"max_num_batched_tokens": 41, "max_num_seqs": 5, "overlap_depth": 0},
}


def _experts(directory, head):
    write_tiny_model(
        directory, "qwen3_moe", num_hidden_layers=3, num_experts=6, num_experts_per_tok=2, mlp_only_layers=[1], **SHAPE
    )
    save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(0, 1, 3)), head)
    return {"method": "eagle3", "model": str(head)}


def _mimo(directory, head):
    write_mimo(directory, **SHAPE)
    return {"method": "mtp"}


def _eagle(directory, head):
    write_tiny_model(directory, "llama", **SHAPE)
    random_eagle_head(head, vocab_size=request_mix.VOCAB)
    return {"method": "eagle", "model": str(head)}


def _windows(directory, head):
    """Windows in the upper layers."""
    windows = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    write_tiny_model(directory, "qwen2", num_hidden_layers=4, **windows, **SHAPE)
    save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(1, 2, 4)), head)
    return {"method": "eagle3", "model": str(head)}


def _windows_only(directory, head):
    """Every layer of the target has a window, and the head's layer has none."""
    write_tiny_model(directory, "mistral", num_hidden_layers=3, **SHAPE)
    save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(0, 1, 3)), head)
    return {"method": "eagle3", "model": str(head)}


def _two_ropes(directory, head):
    """Layers of two kinds with a rope each; the head shares the target's embedding."""
    write_tiny_model(directory, "gemma3", tie_word_embeddings=True, **SHAPE)
    model = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(0, 2, 4))
    save_original(model, head, with_embedding=False)
    return {"method": "eagle3", "model": str(head)}


def _post_norms(directory, head):
    """Norms behind attention and MLP, and three layers with a window to one without."""
    write_tiny_model(directory, "olmo3", **SHAPE)
    save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(1, 3, 4)), head)
    return {"method": "eagle3", "model": str(head)}


def _sinks(directory, head):
    """Sinks, windows in every second layer, experts in MXFP4."""
    write_mxfp4(directory, **SHAPE)
    save_original(random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(0, 1, 3)), head)
    return {"method": "eagle3", "model": str(head)}


def _latent(directory, head, *, num_modules=2, **speculative):
    """Latent attention and routers in groups; fewer modules than drafts, unless another drafter is asked for."""
    write_latent(directory, num_modules=num_modules, **SHAPE)
    return speculative or {"method": "mtp"}


def _deep_mimo(directory, head):
    """One module for each draft."""
    write_deep_mimo(directory, num_modules=K, **SHAPE)
    return {"method": "mtp"}


FAMILIES = {
    "qwen3_moe": _experts,
    "mimo": _mimo,
    "eagle": _eagle,
    "qwen2": _windows,
    "mistral": _windows_only,
    "gemma3": _two_ropes,
    "olmo3": _post_norms,
    "deepseek_v3": _latent,
    "deepseek_v3, 1 module": partial(_latent, num_modules=1),
    "deepseek_v3, 1 module and draft": partial(_latent, num_modules=1, method="mtp", num_speculative_tokens=1),
    "deepseek_v3, n-gram": partial(_latent, method="ngram", prompt_lookup_min=1, prompt_lookup_max=3),
    "deepseek_v3, noise": partial(_latent, method="tests.support.drafters.noise"),
    "mimo, 3 modules": _deep_mimo,
    "gpt_oss": _sinks,
}
FAST = ("qwen3_moe", "mimo", "eagle")
"""Families of which one setting is in the fast suite: each has another layer or drafter."""


@pytest.fixture(
    scope="module", params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def family(request, tmp_path_factory):
    """A target, the speculative_config of its drafter, some of the crowd, and the truth about them."""
    directory = tmp_path_factory.mktemp(request.param.replace(",", ""))
    speculative = {"num_speculative_tokens": K} | FAMILIES[request.param](directory, directory / "head")
    cases = [case for i, case in enumerate(request_mix.make_cases()) if i in (0, 1, 2, 6, 7, 11, 14, 16)]
    return directory, speculative, cases, request_mix.truth(directory, cases)


@pytest.mark.parametrize(
    "setting", [name if name == "few blocks" else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]
)
def test_every_request_comes_out_as_alone(family, setting, monkeypatch):
    directory, speculative, cases, truth = family
    make_half_right(monkeypatch, [(case.prompt, want.token_ids) for case, want in zip(cases, truth, strict=True)])
    llm = request_mix.make(directory, speculative_config=speculative, **SETTINGS[setting])
    most, accepted = speculative["num_speculative_tokens"], set()
    settle = llm.engine.scheduler.settle

    def spy(plan, result):
        accepted.update(row.num_accepted for row in result.rows if row.num_drafts == most)
        return settle(plan, result)

    llm.engine.scheduler.settle = spy
    for _ in range(2 if setting == "cached" else 1):
        outputs = request_mix.run(llm, cases)
        assert request_mix.mismatches(cases, outputs, truth) == []
    if "noise" not in speculative["method"] and speculative["method"] != "ngram":  # these choose their own drafts
        assert accepted == set(range(most + 1))
    assert (llm.engine.scheduler.num_preemptions > 0) == (setting == "few blocks")
    if setting == "cached":
        assert all(
            o.num_cached_tokens > 0 for o in outputs if len(o.prompt_token_ids) > 16 and o.prompt_logprobs is None
        )


@pytest.mark.slow
def test_latent_attention_with_keys_written_out_for_prompts_is_found(tmp_path, monkeypatch):
    """A leak put in: steps of many tokens expand their result in another order, as another form of attention does."""
    _latent(tmp_path, None)
    cases = request_mix.make_cases()[:5]
    truth = request_mix.truth(tmp_path, cases)
    original = LatentAttention.forward

    def forward(self, x, batch, cache, attention):
        out = original(self, x, batch, cache, attention)
        many = torch.tensor([count > 4 for count in batch.row_counts])
        rows = torch.repeat_interleave(many, torch.tensor(batch.row_counts))
        return torch.where(rows[:, None], torch.nextafter(out, out + 1), out)

    llm = request_mix.make(tmp_path, max_num_batched_tokens=13, max_num_seqs=16)
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
    monkeypatch.setattr(LatentAttention, "forward", forward)
    llm = request_mix.make(tmp_path, max_num_batched_tokens=13, max_num_seqs=16)
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) != []


def test_experts_with_a_capacity_are_found(tmp_path, monkeypatch):
    """A leak put in: of more tokens than an expert has room for, the last are dropped."""
    _experts(tmp_path, tmp_path / "head")
    cases = request_mix.make_cases()[1:5]
    truth = request_mix.truth(tmp_path, cases)
    original = MoE.forward

    def forward(self, x):
        y = original(self, x)
        y[12:] = 0
        return y

    monkeypatch.setattr(MoE, "forward", forward)
    assert request_mix.mismatches(cases, request_mix.run(request_mix.make(tmp_path), cases), truth) != []
