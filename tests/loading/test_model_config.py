"""config.json: both spellings, derived values, and the values that are refused by key."""

import json
from dataclasses import replace

import pytest

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig, MoeConfig, RopeConfig
from outrider.models import families, read_config, read_model_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "torch_dtype": "bfloat16",
    "initializer_range": 0.02,
    "use_cache": True,
    "transformers_version": "4.42.3",
}


QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 503, "hidden_size": 1024,
    "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-06,
}  # fmt: skip
EXPERTS = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True}
QWEN3_MOE = QWEN3 | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"} | EXPERTS
YARN = {"rope_type": "yarn", "factor": 2.0}
LINEAR_SIZES = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 32,
}  # fmt: skip
QWEN3_5 = QWEN3 | {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text"} | LINEAR_SIZES
QWEN3_NEXT = QWEN3_MOE | {"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next"} | LINEAR_SIZES


def read(values) -> ModelConfig:
    return read_config(ConfigReader(values))


def _without(*fields, of=LLAMA):
    return {key: value for key, value in of.items() if key not in fields}


def test_the_old_spelling():
    config = read(LLAMA)
    assert config.architecture == "LlamaForCausalLM"
    assert (config.head_dim, config.dtype) == (128, "bfloat16")
    assert config.eos_token_ids == (128001, 128008, 128009)
    assert config.rope == RopeConfig(
        rope_type="llama3", theta=500000.0, factor=8.0, original_max_position_embeddings=8192
    )


def test_both_spellings_say_the_same():
    new = _without("torch_dtype", "rope_theta", "rope_scaling") | {
        "dtype": "bfloat16",
        "rope_parameters": LLAMA["rope_scaling"] | {"rope_theta": 500000.0},
    }
    assert read(new) == read(LLAMA)
    old_type = LLAMA["rope_scaling"] | {"type": "llama3"}
    del old_type["rope_type"]
    assert read(LLAMA | {"rope_scaling": old_type}) == read(LLAMA)


def test_what_may_be_absent():
    config = read(
        _without("num_key_value_heads", "rope_theta", "rope_scaling", "torch_dtype", "eos_token_id", "hidden_act")
        | {"rope_scaling": None, "head_dim": None}
    )
    assert config.num_kv_heads == 32 and config.rope == RopeConfig(theta=10000.0)
    assert config.eos_token_ids == () and config.dtype == "float32"
    assert read(_without("model_type")) == read(LLAMA)


def test_biases():
    assert not read(LLAMA).attention_bias and not read(LLAMA).mlp_bias
    both = read(LLAMA | {"attention_bias": True, "mlp_bias": True})
    assert both.attention_bias and both.mlp_bias
    assert read(QWEN3 | {"attention_bias": True}).attention_bias
    with pytest.raises(UnsupportedError, match=r"mlp_bias=True \(only False\)"):
        read(QWEN3 | {"mlp_bias": True})


def test_head_dim_is_derived_where_the_family_derives_it():
    assert read(LLAMA).head_dim == 4096 // 32
    assert read(QWEN3).head_dim == 128, "whatever the width"
    assert read(QWEN3 | {"head_dim": 64}).head_dim == 64
    assert read(QWEN3_MOE).head_dim == 1024 // 16
    assert read(QWEN3_5).head_dim == 256


def test_yarn_takes_its_origin_from_the_config_where_it_has_none():
    config = read(LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}})
    assert config.rope.original_max_position_embeddings == 131072 and not config.rope.truncate


def test_the_original_length_may_stand_outside_of_the_section():
    outside = LLAMA | {"rope_scaling": YARN, "original_max_position_embeddings": 32768}
    assert read(outside) == read(LLAMA | {"rope_scaling": YARN | {"original_max_position_embeddings": 32768}})


def test_two_spellings_that_say_the_same_are_one():
    old = YARN | {"original_max_position_embeddings": 32768}
    new = {("type" if key == "rope_type" else key): value for key, value in old.items()} | {"rope_theta": 500000.0}
    assert read(LLAMA | {"rope_scaling": old, "rope_parameters": new}) == read(LLAMA | {"rope_scaling": old})


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        (None, 2048),
        ({"rope_type": "linear", "factor": 2.0}, 4096),
        ({"rope_type": "linear", "factor": 2.5, "original_max_position_embeddings": 1024}, 2560),
        ({"rope_type": "yarn", "factor": 4.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}, 2048),
        (LLAMA["rope_scaling"], 2048),
    ],
)
def test_a_stretched_rope_reaches_factor_times_its_original_length(rope, length):
    """vLLM's limits; max_position_embeddings may still be the original one."""
    assert read(LLAMA | {"max_position_embeddings": 2048, "rope_scaling": rope}).max_length == length


def test_experts():
    moe = read(QWEN3_MOE).moe
    assert moe == MoeConfig(num_experts=128, num_experts_per_tok=8, intermediate_size=768, is_normalized=True)
    sparse = read(QWEN3_MOE | {"decoder_sparse_step": 3, "mlp_only_layers": [5, 6]}).moe
    assert [layer for layer in range(8) if layer not in sparse.dense_layers] == [2]
    assert read(QWEN3).moe is None
    assert read(QWEN3 | {"num_experts": 0}).moe is None
    shared = read(_without("intermediate_size", of=QWEN3_NEXT) | {"shared_expert_intermediate_size": 512})
    assert shared.moe.shared_intermediate_size == 512


def test_both_spellings_of_the_number_of_experts():
    new = _without("num_experts", of=QWEN3_MOE) | {"num_local_experts": 128}
    assert read(new) == read(QWEN3_MOE) == read(new | {"num_experts": 128})
    with pytest.raises(ConfigError, match="num_experts=64 contradicts num_local_experts=128"):
        read(new | {"num_experts": 64})


@pytest.mark.parametrize(("values", "is_normalized"), [(QWEN3_MOE, False), (QWEN3_NEXT, True)])
def test_a_config_that_is_silent_about_the_sum_of_weights(values, is_normalized):
    assert read(values | {"norm_topk_prob": None}).moe.is_normalized == is_normalized


def test_prediction_layers():
    mimo = QWEN3 | {"architectures": ["MiMoForCausalLM"], "model_type": "mimo"}
    assert read(mimo).num_mtp_layers == 0
    assert read(mimo | {"num_nextn_predict_layers": 1}).num_mtp_layers == 1
    assert read(QWEN3_5).num_mtp_layers == 0
    assert read(QWEN3_5 | {"mtp_num_hidden_layers": 1}).num_mtp_layers == 1


def test_the_text_part_of_a_multimodal_config():
    inner = _without("architectures", of=QWEN3_5)
    whole = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": inner}
    config = read(whole | {"vision_config": {"depth": 2}, "image_token_id": 7})
    assert config == replace(read(QWEN3_5), architecture="Qwen3_5ForConditionalGeneration")
    assert read(whole | {"tie_word_embeddings": True}).tie_word_embeddings, "the outer one counts"
    assert read(whole | {"text_config": inner | {"tie_word_embeddings": True}}).tie_word_embeddings
    eos = read(whole | {"eos_token_id": [9, 5], "text_config": inner | {"eos_token_id": 5}}).eos_token_ids
    assert eos == (5, 9)


def test_layer_types_are_given_or_follow_from_the_interval():
    full, linear = "full_attention", "linear_attention"
    assert read(QWEN3_5).layer_types == (linear, linear, linear, full) * 2
    assert read(QWEN3_5 | {"full_attention_interval": 2}).layer_types == (linear, full) * 4
    given = [full, *[linear] * 7]
    assert read(QWEN3_5 | {"full_attention_interval": 2, "layer_types": given}).layer_types == tuple(given)


QWEN2 = _without("attention_bias") | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_hidden_layers": 4,
}
MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_hidden_layers": 2}
SWITCHED = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 3}


@pytest.mark.parametrize(
    ("values", "windows"),
    [
        (QWEN2 | {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 0}, ()),
        (QWEN2 | SWITCHED, (None, None, None, 64)),
        (QWEN2 | SWITCHED | {"max_window_layers": None}, ()),  # 28
        (QWEN2 | SWITCHED | {"sliding_window": None}, ()),
        (QWEN2 | {"use_sliding_window": True, "max_window_layers": 2}, (None, None, 4096, 4096)),
        (QWEN2 | SWITCHED | {"layer_types": ["sliding_attention", *["full_attention"] * 3]}, (64, None, None, None)),
        (MISTRAL | {"sliding_window": 64}, (64, 64)),
        (MISTRAL | {"sliding_window": None}, ()),
        (MISTRAL, (4096, 4096)),
    ],
)
def test_windows_are_where_the_config_asks_for_them(values, windows):
    assert read(values).windows == windows


def test_biases_of_qwen2_are_there_without_a_key():
    assert read(QWEN2).attention_bias
    with pytest.raises(UnsupportedError, match=r"attention_bias=False is not supported\. Supported: True"):
        read(QWEN2 | {"attention_bias": False})


def test_layers_of_mistral_have_one_kind():
    with pytest.raises(UnsupportedError, match=r"layer_types has 'full_attention'"):
        read(MISTRAL | {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]})


@pytest.mark.parametrize(
    ("key", "kind"), [("type", "longrope"), ("rope_type", "longrope"), ("type", "su"), ("type", "yarn")]
)
def test_longrope_has_several_names(key, kind):
    phi3 = LLAMA | {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "rope_scaling": None, "head_dim": 16}
    assert read(phi3 | {"original_max_position_embeddings": 64}).rope.rope_type == "default"
    scaling = {key: kind, "short_factor": [1.0] * 8, "long_factor": [2] * 8}
    config = read(phi3 | {"rope_scaling": scaling, "max_position_embeddings": 8192})
    assert (config.rope.rope_type, config.rope.long_factor, config.rope.factor) == ("longrope", (2.0,) * 8, 2.0)
    assert config.max_length == 8192
    with pytest.raises(ConfigError, match=r"short_factor has 7 numbers, and the rope 8 frequencies"):
        read(phi3 | {"rope_scaling": scaling | {"short_factor": [1.0] * 7}})
    with pytest.raises(ConfigError, match=r"rope_scaling\.long_factor=.* must be a list of positive numbers"):
        read(phi3 | {"rope_scaling": scaling | {"long_factor": [0.0] * 8}})
    with pytest.raises(ConfigError, match=r"no rope_scaling\.long_factor"):
        read(phi3 | {"rope_scaling": scaling | {"long_factor": None}})


REFUSED = [
    ({"quantization_config": {"quant_method": "hqq"}}, "quantization_config.quant_method='hqq'.*Use a checkpoint in"),
    ({"compression_config": {"quant_method": "int8"}}, "compression_config.quant_method='int8' is not supported"),
    ({"vision_config": {"depth": 2}}, "vision_config=.*multimodal"),
    ({"text_config": {"hidden_size": 2}}, "text_config=.*multimodal"),
    ({"use_sliding_window": True}, "use_sliding_window=True is not supported"),
    ({"sliding_window": 4096}, "sliding_window=4096 is not supported: set it to null"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has 'sliding_attention'"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported. Supported: 'silu'"),
    ({"head_dim": 100}, "head_dim=100"),
    ({"head_dim": 512}, "head_dim=512"),
    ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype='float8_e4m3fn'"),
    ({"model_type": "gemma"}, "model_type='gemma' is not supported. Supported: 'llama'"),
    ({"rope_scaling": {"rope_type": "su", "factor": 2.0}}, "rope_scaling.rope_type='su'.*'yarn'"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.type='dynamic'"),
    ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, "rope_scaling.type='mrope'"),
    ({"rope_scaling": {**YARN, "surprise": 3}}, "keys that are not supported: rope_scaling.surprise=3"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0}}, "rope_scaling.beta_fast=3.0"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}, "rope_scaling": None},
        "rope_parameters.full_attention=.*one for all layers",
    ),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported. Supported: 1.0"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_not_supported_is_refused_by_name(change, message):
    with pytest.raises(UnsupportedError, match=message):
        read(LLAMA | change)


WRONG = [
    ({"vocab_size": None}, "has no vocab_size"),
    ({"hidden_size": None}, "has no hidden_size"),
    ({"num_hidden_layers": None}, "has no num_hidden_layers"),
    ({"num_attention_heads": None}, "has no num_attention_heads"),
    ({"intermediate_size": None}, "has no intermediate_size"),
    ({"rms_norm_eps": None}, "has no rms_norm_eps"),
    ({"max_position_embeddings": None}, "has no max_position_embeddings"),
    ({"vocab_size": 0}, "vocab_size=0 must be a positive integer"),
    ({"vocab_size": 2**31}, "vocab_size=2147483648 must be a positive integer of at most 2147483647"),
    ({"num_hidden_layers": True}, "num_hidden_layers=True"),
    ({"hidden_size": "4096"}, "hidden_size='4096'"),
    ({"rms_norm_eps": -1}, "rms_norm_eps=-1 must be a positive number"),
    ({"num_key_value_heads": 5}, "num_attention_heads=32 is not a multiple of num_key_value_heads=5"),
    ({"hidden_size": 4100}, "no head_dim, and hidden_size=4100"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes' must be true or false"),
    ({"architectures": []}, r"architectures=\[\] names no model"),
    ({"architectures": None}, "architectures=None names no model"),
    ({"layer_types": ["full_attention"]}, "layer_types names 1 layers, and num_hidden_layers=32"),
    ({"eos_token_id": "</s>"}, "eos_token_id='</s>' must be a token id or a list of token ids"),
    ({"rope_scaling": {"rope_type": "linear"}}, "has no rope_scaling.factor"),
    ({"rope_scaling": 8.0}, "rope_scaling=8.0 must be an object"),
    ({"rope_parameters": {"rope_type": "default"}}, "rope_parameters and rope_scaling, two spellings"),
    ({"rope_scaling": {**YARN, "attention_factor": 1.2, "attn_factor": 0.9}}, "attention_factor=1.2.*attn_factor=0.9"),
    (
        {"rope_scaling": {**YARN, "original_max_position_embeddings": 9}, "original_max_position_embeddings": 8},
        "original_max_position_embeddings=8 contradicts.*original_max_position_embeddings=9",
    ),
    ({"rope_scaling": {**YARN, "type": "linear"}}, "type='linear' contradicts rope_type='yarn'"),
    ({"rope_scaling": {**YARN, "rope_theta": 7.0}}, "rope_theta=500000.0 contradicts.*rope_scaling.rope_theta=7.0"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "has no rope_scaling.low_freq_factor"),
    ({"rope_scaling": {**YARN, "factor": "2"}}, "rope_scaling.factor='2' must be a positive number"),
    (
        {"rope_scaling": LLAMA["rope_scaling"] | {"high_freq_factor": 1.0}},
        "high_freq_factor=1.0 is not above low_freq_factor=1.0",
    ),
]
WRONG_EXPERTS = [
    ({"num_experts_per_tok": 129}, "num_experts_per_tok=129 is more than num_experts=128"),
    ({"num_experts_per_tok": None}, "has no num_experts_per_tok"),
    ({"num_experts": None}, "has no num_experts"),
    ({"moe_intermediate_size": None}, "has no moe_intermediate_size"),
    ({"mlp_only_layers": 3}, "mlp_only_layers=3 must be a list of integers"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read(LLAMA | change)


@pytest.mark.parametrize(("change", "message"), WRONG_EXPERTS, ids=[message for _, message in WRONG_EXPERTS])
def test_experts_that_cannot_be_are_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read(QWEN3_MOE | change)


@pytest.mark.parametrize("architecture", ["SurpriseForCausalLM", "T5Model"])
def test_an_architecture_without_a_file_is_refused_by_name(architecture):
    with pytest.raises(UnsupportedError, match=rf"'{architecture}' is not supported.*LlamaForC.*Qwen3ForCausalLM"):
        read(LLAMA | {"architectures": [architecture]})
    assert "LlamaForCausalLM" in families()


def _write(directory, config, generation=None):
    (directory / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))


def test_eos_ids_are_the_union_generation_first(tmp_path):
    _write(tmp_path, LLAMA | {"eos_token_id": 7}, {"eos_token_id": [9, 7, 8]})
    assert read_model_config(tmp_path).eos_token_ids == (9, 7, 8)
    _write(tmp_path, LLAMA | {"eos_token_id": [7, 5]}, {"eos_token_id": 9})
    assert read_model_config(tmp_path).eos_token_ids == (9, 7, 5)
    _write(tmp_path, LLAMA | {"eos_token_id": 7}, {})
    assert read_model_config(tmp_path).eos_token_ids == (7,)
    _write(tmp_path, LLAMA, {"eos_token_id": -3})
    with pytest.raises(ConfigError, match=r"generation_config.json: eos_token_id=-3"):
        read_model_config(tmp_path)


def test_a_directory_that_is_none_is_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"'org/model' is not a directory. Give a local directory with config.json"
    ):
        read_model_config("org/model")
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not JSON"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"holds a list, not an object"):
        read_model_config(tmp_path)
