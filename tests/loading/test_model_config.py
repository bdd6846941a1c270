"""config.json: both spellings, derived values, and everything that is refused by field and value."""

import json

import pytest
from transformers import LlamaConfig, Qwen3Config, Qwen3MoeConfig

from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.model_config import ModelConfig, MoeConfig, RopeConfig
from outrider.loading.hf import read_json, read_model_config
from outrider.models import find_model

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


def _without(*fields):
    return {key: value for key, value in LLAMA.items() if key not in fields}


def test_the_old_spelling():
    config = ModelConfig.from_dict(LLAMA)
    assert config.architecture == "LlamaForCausalLM"
    assert (config.head_dim, config.group_size, config.dtype) == (128, 4, "bfloat16")
    assert config.eos_token_ids == (128001, 128008, 128009)
    assert config.rope == RopeConfig(
        rope_type="llama3", theta=500000.0, factor=8.0, original_max_position_embeddings=8192
    )


def test_both_spellings_say_the_same():
    new = _without("torch_dtype", "rope_theta", "rope_scaling") | {
        "dtype": "bfloat16",
        "rope_parameters": LLAMA["rope_scaling"] | {"rope_theta": 500000.0},
    }
    assert ModelConfig.from_dict(new) == ModelConfig.from_dict(LLAMA)
    old_type = LLAMA["rope_scaling"] | {"type": "llama3"}
    del old_type["rope_type"]
    assert ModelConfig.from_dict(LLAMA | {"rope_scaling": old_type}) == ModelConfig.from_dict(LLAMA)


def test_what_may_be_absent():
    config = ModelConfig.from_dict(
        _without("num_key_value_heads", "rope_theta", "rope_scaling", "torch_dtype", "eos_token_id", "hidden_act")
        | {"rope_scaling": None, "head_dim": None}
    )
    assert config.num_kv_heads == 32 and config.rope == RopeConfig(theta=10000.0)
    assert config.eos_token_ids == () and config.dtype == "float32"
    assert ModelConfig.from_dict(_without("architectures"), architecture="X").architecture == "X"
    qwen = _without("head_dim") | {"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16}
    assert ModelConfig.from_dict(qwen).head_dim == 128
    assert ModelConfig.from_dict(qwen | {"head_dim": 64}).head_dim == 64


def test_yarn_takes_its_origin_from_the_config_where_it_has_none():
    config = ModelConfig.from_dict(LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}})
    assert config.rope.original_max_position_embeddings == 131072 and not config.rope.truncate


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen3Config])
def test_what_transformers_writes_is_read(tmp_path, config_class):
    oracle = config_class(architectures=["LlamaForCausalLM"])
    oracle.save_pretrained(tmp_path)
    config = ModelConfig.from_dict(read_json(tmp_path, "config.json"))
    assert config.hidden_size == oracle.hidden_size and config.num_kv_heads == oracle.num_key_value_heads
    assert config.head_dim == (oracle.head_dim or oracle.hidden_size // oracle.num_attention_heads)
    assert config.rope.theta == oracle.rope_parameters["rope_theta"]


MOE = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True}


def test_experts():
    moe = ModelConfig.from_dict(LLAMA | MOE).moe
    assert moe == MoeConfig(num_experts=128, num_experts_per_tok=8, intermediate_size=768, is_normalized=True)
    sparse = ModelConfig.from_dict(LLAMA | MOE | {"decoder_sparse_step": 3, "mlp_only_layers": [5, 6]}).moe
    assert [layer for layer in range(13) if layer not in sparse.dense_layers] == [2, 8, 11]
    assert ModelConfig.from_dict(LLAMA).moe is None
    assert ModelConfig.from_dict(LLAMA | {"num_experts": 0}).moe is None
    shared = ModelConfig.from_dict(_without("intermediate_size") | MOE | {"shared_expert_intermediate_size": 512})
    assert shared.moe.shared_intermediate_size == 512


@pytest.mark.parametrize(
    ("model_type", "is_normalized"), [("qwen3_moe", False), ("qwen3_next", True), ("qwen3_5_moe_text", True)]
)
def test_a_config_that_is_silent_about_the_sum_of_weights(model_type, is_normalized):
    values = LLAMA | MOE | {"model_type": model_type, "norm_topk_prob": None}
    assert ModelConfig.from_dict(values).moe.is_normalized == is_normalized


def test_experts_as_transformers_writes_them(tmp_path):
    Qwen3MoeConfig(architectures=["Qwen3MoeForCausalLM"], num_experts=16, mlp_only_layers=[1]).save_pretrained(tmp_path)
    moe = ModelConfig.from_dict(read_json(tmp_path, "config.json")).moe
    assert moe.num_experts == 16 and moe.dense_layers == {1}


def test_prediction_layers():
    assert ModelConfig.from_dict(LLAMA).num_mtp_layers == 0
    for field in ("num_nextn_predict_layers", "mtp_num_hidden_layers"):
        assert ModelConfig.from_dict(LLAMA | {field: 1}).num_mtp_layers == 1


YARN = {"rope_type": "yarn", "factor": 2.0}
REFUSED = [
    ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config.*'fp8'.*not built yet"),
    ({"compression_config": {"quant_method": "int8"}}, "compression_config"),
    ({"vision_config": {"depth": 2}}, "vision_config.*multimodal"),
    ({"text_config": {"hidden_size": 2}}, "text_config.*multimodal"),
    ({"use_sliding_window": True}, "use_sliding_window=True"),
    ({"sliding_window": 4096}, "sliding_window=4096"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has 'sliding_attention'"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ({"head_dim": 100}, "head_dim=100"),
    ({"head_dim": 512}, "head_dim=512"),
    ({"torch_dtype": "float8_e4m3fn"}, "dtype='float8_e4m3fn'"),
    ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling has rope_type='longrope'.*yarn"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
    ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, "rope_type='mrope'"),
    ({"rope_scaling": {**YARN, "surprise": 3}}, "surprise=3.*rope_type='yarn' does not read"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        "rope_parameters=.*one dict for all layers",
    ),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_not_built_is_refused_by_name(change, message):
    with pytest.raises(UnsupportedError, match=message):
        ModelConfig.from_dict(LLAMA | change)


WRONG = [
    ({"vocab_size": None}, "has no vocab_size"),
    ({"hidden_size": None}, "has no hidden_size"),
    ({"num_hidden_layers": None}, "has no num_hidden_layers"),
    ({"num_attention_heads": None}, "has no num_attention_heads"),
    ({"intermediate_size": None}, "has no intermediate_size"),
    ({"rms_norm_eps": None}, "has no rms_norm_eps"),
    ({"max_position_embeddings": None}, "has no max_position_embeddings"),
    ({"vocab_size": 0}, "vocab_size=0 is not a positive integer"),
    ({"num_hidden_layers": True}, "num_hidden_layers=True"),
    ({"hidden_size": "4096"}, "hidden_size='4096'"),
    ({"rms_norm_eps": -1}, "rms_norm_eps=-1 is not a positive number"),
    ({"num_key_value_heads": 5}, "num_attention_heads=32 is not a multiple of num_key_value_heads=5"),
    ({"hidden_size": 4100}, "no head_dim, and hidden_size=4100"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes' is neither true nor false"),
    ({"architectures": []}, r"architectures=\[\] names no model"),
    ({"architectures": None}, "architectures=None names no model"),
    ({"eos_token_id": "</s>"}, "eos_token_id='</s>'"),
    ({"rope_scaling": {"rope_type": "linear"}}, "rope_type='linear' but no factor"),
    (MOE | {"num_experts_per_tok": 129}, "num_experts_per_tok=129 is more than num_experts=128"),
    (MOE | {"num_experts_per_tok": None}, "has no num_experts_per_tok"),
    (MOE | {"mlp_only_layers": 3}, "mlp_only_layers=3 is not a list of layer numbers"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "no low_freq_factor"),
    ({"rope_scaling": {**YARN, "factor": "2"}}, "factor='2', which is not a positive number"),
    (
        {"rope_scaling": LLAMA["rope_scaling"] | {"high_freq_factor": 1.0}},
        "high_freq_factor=1.0, which is not above",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(LLAMA | change)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("Gemma3ForCausalLM", "not built yet"),
        ("DeepseekV3ForCausalLM", "mixture of experts.*not built yet"),
        ("GptOssForCausalLM", "not built yet"),
        ("Qwen3VLForConditionalGeneration", "vision.*not built yet"),
        ("SurpriseForCausalLM", "'SurpriseForCausalLM' is not known"),
    ],
)
def test_an_architecture_without_a_file_is_refused_by_name(architecture, message):
    config = ModelConfig.from_dict(LLAMA | {"architectures": [architecture]})
    with pytest.raises(UnsupportedError, match=rf"{message}.*LlamaForCausalLM.*Qwen3ForCausalLM"):
        find_model(config)


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
    with pytest.raises(CheckpointError, match=r"'org/model' is not a directory. Nothing is downloaded"):
        read_model_config("org/model")
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not JSON"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"holds a list, not an object"):
        read_model_config(tmp_path)
