"""gpt-oss under the options of the identity matrix: a cover of all pairs.

Its layers are two groups of blocks, those with a window give their blocks back, sinks take part in every softmax, and
tokens choose experts with biases.
"""

import pytest

from tests.identity.test_matrix import DIMENSIONS, check, name_of
from tests.support import request_mix
from tests.support.combination_cover import make_cover
from tests.support.tiny_heads import random_head, save_original
from tests.support.tiny_models import write_tiny_model

COVER = make_cover(DIMENSIONS | {"drafter": ("none", "ngram", "noise", "eagle3", "replay")}, seed=8)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gpt-oss")
    write_tiny_model(
        directory, "gpt_oss", vocab_size=request_mix.VOCAB, num_hidden_layers=4, max_position_embeddings=512,
        eos_token_id=request_mix.EOS, seed=3,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def truth(target, cases):
    return request_mix.truth(target, cases)


@pytest.fixture(scope="module")
def speculative(target, cases, truth):
    """speculative_config of each drafter, by name."""
    head = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40, tap_layers=(0, 2, 4))
    return {
        "none": None,
        "ngram": {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3},
        "eagle3": {"method": "eagle3", "model": str(save_original(head, target / "head", with_embedding=False))},
        "noise": {"method": "tests.support.drafters.noise"},
        "replay": request_mix.replay(cases, truth),
    }


@pytest.mark.slow
@pytest.mark.parametrize("run", COVER, ids=name_of)
def test_every_request_comes_out_as_alone(run, target, speculative, cases, truth):
    check(run, target=target, speculative=speculative, cases=cases, truth=truth, seed=COVER.index(run))
