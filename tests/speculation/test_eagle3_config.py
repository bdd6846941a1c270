"""Target layers that an EAGLE-3 head reads, from each place where a config states them."""

from typing import Any

import pytest

from outrider.core.errors import CheckpointError
from outrider.core.model_config import ModelConfig
from outrider.speculation.eagle3_config import parse_eagle3_config

LAYER = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "vocab_size": 61, "hidden_size": 64,
    "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "num_hidden_layers": 1, "draft_vocab_size": 40,
}  # fmt: skip


def tap_layers(*, num_layers: int = 20, asked: tuple[int, ...] | None = None, **values: Any) -> tuple[int, ...]:
    target = ModelConfig.from_dict(
        LAYER | {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": num_layers, "draft_vocab_size": None}
    )
    return parse_eagle3_config(LAYER | values, target=target, tap_layers=asked).tap_layers


def test_top_level_ids_count_the_layers_before_the_tap() -> None:
    assert tap_layers(eagle_aux_hidden_state_layer_ids=[1, 9, 16]) == (1, 9, 16)


def test_nested_ids_name_the_layer_whose_output_is_read() -> None:
    nested = {"eagle_aux_hidden_state_layer_ids": [1, 9, 16]}
    assert tap_layers(eagle_config=nested) == (2, 10, 17), "the output of layer 1 is the stream after two layers"
    assert tap_layers(eagle_config=nested, eagle_aux_hidden_state_layer_ids=[3, 4, 5]) == (3, 4, 5)


def test_without_ids_the_usual_layers_are_read() -> None:
    assert tap_layers() == (2, 10, 17)
    assert tap_layers(eagle_config={"use_aux_hidden_state": True}) == (2, 10, 17)
    with pytest.raises(CheckpointError, match=r"\(2, 1, -1\) do not exist in a target of 2 layers"):
        tap_layers(num_layers=2)


def test_the_user_overrides_the_config() -> None:
    nested = {"eagle_aux_hidden_state_layer_ids": [1, 9, 16]}
    assert tap_layers(asked=(0, 4, 8), eagle_config=nested, eagle_aux_hidden_state_layer_ids=[3, 4, 5]) == (0, 4, 8)
