"""Configs of EAGLE-3 heads: which target layers they read, in each form that tools write, and what is refused."""

import pytest

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig, RopeConfig
from outrider.speculation.eagle3_config import read_eagle3_config

LAYER = {
    "vocab_size": 61, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
ORIGINAL = LAYER | {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "draft_vocab_size": 40}
SPECULATORS = {
    "architectures": ["Eagle3DraftModel"], "speculators_model_type": "eagle3", "speculators_version": "0.9.0",
    "transformer_layer_config": LAYER | {"model_type": "qwen3"}, "draft_vocab_size": 40, "norm_before_residual": True,
    "speculators_config": {"algorithm": "eagle3", "default_proposal_method": "greedy", "proposal_methods": []},
}  # fmt: skip
IDS = "eagle_aux_hidden_state_layer_ids"


def target(num_layers: int = 12) -> ModelConfig:
    return ModelConfig(
        architecture="X", vocab_size=61, hidden_size=64, num_layers=num_layers, num_heads=4, num_kv_heads=4,
        head_dim=16, intermediate_size=96, norm_eps=1e-5, max_position_embeddings=128, rope=RopeConfig(),
    )  # fmt: skip


def read(values, *, num_layers: int = 12, tap_layers=None, norm_output=None):
    return read_eagle3_config(
        ConfigReader(values), target=target(num_layers), tap_layers=tap_layers, norm_output=norm_output
    )


def test_top_level_ids_count_layers_and_nested_ids_name_the_layer_before():
    """A nested id k means the output of layer k, which is the stream after k + 1 layers."""
    assert read(ORIGINAL | {IDS: [2, 6, 9]}).tap_layers == (2, 6, 9)
    assert read(SPECULATORS | {IDS: [2, 6, 9]}).tap_layers == (2, 6, 9)
    nested = {"eagle_config": {"use_aux_hidden_state": True, IDS: [1, 5, 8]}}
    assert read(ORIGINAL | nested).tap_layers == (2, 6, 9)
    assert read(ORIGINAL | nested | {IDS: [2, 6, 9]}).tap_layers == (2, 6, 9)


def test_a_head_that_names_no_layers_reads_the_usual_ones():
    assert read(ORIGINAL).tap_layers == (2, 6, 9)
    assert read(ORIGINAL | {IDS: None, "eagle_config": None}).tap_layers == (2, 6, 9)
    assert read(ORIGINAL | {IDS: [1, 2, 3]}, tap_layers=(0, 4)).tap_layers == (0, 4), "the option overrides the file"
    with pytest.raises(CheckpointError, match=r"the usual ones \(2, 1, -1\) do not exist"):
        read(ORIGINAL, num_layers=2)


def test_qwen3_layers_norm_the_heads_of_q_and_k():
    assert not read(ORIGINAL).qk_norm and read(ORIGINAL).layer.head_dim == 16
    config = read(SPECULATORS)
    assert config.qk_norm and config.layer.head_dim == 128 and config.norm_before_residual


@pytest.mark.parametrize(
    ("value", "meaning", "feeds_back_normed", "norms_logits"),
    [(True, "fed_back", True, True), (False, "fed_back", False, True), (True, "logits", False, True),
     (False, "logits", False, False)],
)  # fmt: skip
def test_norm_output_means_what_the_option_says(value, meaning, feeds_back_normed, norms_logits):
    config = read(ORIGINAL | {"norm_output": value}, norm_output=meaning)
    assert (config.feeds_back_normed, config.norms_logits) == (feeds_back_normed, norms_logits)
    assert read(SPECULATORS | {"norm_output": value}).feeds_back_normed == value, "it has one meaning there"


@pytest.mark.parametrize("values", [ORIGINAL, SPECULATORS | {"norm_output": True}])
def test_the_option_without_effect_is_refused(values):
    assert read(values).norms_logits
    with pytest.raises(ConfigError, match=r"speculative_config\['norm_output'\]='logits' has no effect"):
        read(values, norm_output="logits")


def test_a_head_has_the_layers_that_its_config_says():
    assert read(ORIGINAL | {"num_hidden_layers": 3}).layer.num_layers == 3


REFUSED = [
    (ORIGINAL | {IDS: []}, ConfigError, rf"{IDS}=\[\] names no layer"),
    (ORIGINAL | {IDS: [1.5]}, ConfigError, rf"{IDS}=\[1.5\] must be a list of integers"),
    (ORIGINAL | {"eagle_config": {IDS: []}}, ConfigError, rf"eagle_config.{IDS}=\[\] names no layer"),
    (ORIGINAL | {IDS: [1], "eagle_config": {IDS: [1]}}, ConfigError, "contradicts.*output is read.*Remove one"),
    (ORIGINAL | {"norm_before_fc": False, "eagle_config": {"norm_before_fc": True}}, ConfigError, "contradicts"),
    (ORIGINAL | {"eagle_config": {"parallel_draft_step": 4}}, UnsupportedError, "parallel_draft_step=4"),
    (
        ORIGINAL | {"eagle_config": {"use_aux_hidden_state": False}},
        UnsupportedError,
        "eagle_config.use_aux_hidden_state=False is not supported",
    ),
    (
        ORIGINAL | {"eagle_config": {"use_mtp_layernorm": True, "other": 1}},
        UnsupportedError,
        r"eagle_config.use_mtp_layernorm=True \(only False\); eagle_config.other=1",
    ),
    (ORIGINAL | {"norm_output": True}, UnsupportedError, "norm_output=True.*original format.*Set norm_output in"),
    (ORIGINAL | {"model_type": "gemma3"}, UnsupportedError, "model_type='gemma3' is not supported"),
    (ORIGINAL | {"draft_vocab_size": 62}, ConfigError, "draft_vocab_size=62 is more than vocab_size=61"),
    (ORIGINAL | {"vocab_size": 60}, ConfigError, "vocab_size=60 is not the target's 61"),
    (ORIGINAL | {"target_hidden_size": 32}, ConfigError, "width 32 and the target has 64"),
    (SPECULATORS | {"speculators_model_type": "peagle"}, UnsupportedError, "'peagle' is not supported.*'eagle3'"),
    (SPECULATORS | {"transformer_layer_config": None}, ConfigError, "has no transformer_layer_config"),
    (SPECULATORS | {"mask_token_id": 5}, UnsupportedError, "mask_token_id=5"),
    (
        SPECULATORS | {"speculators_config": {"algorithm": "dflash"}},
        UnsupportedError,
        "speculators_config.algorithm='dflash' is not supported",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "error", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_is_not_supported_is_refused_by_name(values, error, message):
    with pytest.raises(error, match=message):
        read(values)
