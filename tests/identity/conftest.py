"""The tiny random target and heads of the identity suite, and the truth about its crowd; made once a session."""

import pytest

from tests.support import request_mix
from tests.support.tiny_heads import random_head, save_original, save_speculators
from tests.support.tiny_models import write_draft_model, write_tiny_model


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    """A random Qwen3 whose text is not degenerate."""
    directory = tmp_path_factory.mktemp("identity-target")
    write_tiny_model(
        directory, "qwen3", vocab_size=request_mix.VOCAB, num_hidden_layers=4, max_position_embeddings=512,
        eos_token_id=request_mix.EOS, seed=3,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def heads(tmp_path_factory):
    """EAGLE-3 heads by form: original with a reduced vocabulary and the target's embedding, and speculators."""
    directory = tmp_path_factory.mktemp("heads")
    original = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(0, 2, 4))
    other = random_head(
        vocab_size=request_mix.VOCAB, draft_vocab_size=request_mix.VOCAB, layer="qwen3", norm_before_residual=True,
        num_layers=2,
    )  # fmt: skip
    return {
        "original": str(save_original(original, directory / "original", with_embedding=False)),
        "speculators": str(save_speculators(other, directory / "speculators")),
    }


@pytest.fixture(scope="session")
def cases():
    return request_mix.make_cases()


@pytest.fixture(scope="session")
def truth(target, cases):
    return request_mix.truth(target, cases)


@pytest.fixture(scope="session")
def draft_model(target, tmp_path_factory):
    """A whole model that often agrees with the target."""
    directory = tmp_path_factory.mktemp("draft-model")
    write_draft_model(directory, target, spread=0.06)
    return str(directory)


@pytest.fixture(scope="session")
def speculative(heads, draft_model, cases, truth):
    """speculative_config of each standing member, by name."""
    return {
        "none": None,
        "ngram": {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3},
        "eagle3": {"method": "eagle3", "model": heads["original"]},
        "eagle3 speculators": {"method": "eagle3", "model": heads["speculators"]},
        "eagle3 to position 60": {"method": "eagle3", "model": heads["original"], "max_model_len": 60},
        "draft model": {"method": "draft_model", "model": draft_model},
        "noise": {"method": "tests.support.drafters.noise"},
        "replay": request_mix.replay(cases, truth),
    }
