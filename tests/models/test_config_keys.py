"""Every key of a model's or a head's config.json has its account: read, ignored with a reason, neutral, or refused."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import transformers

from benchmarks import decode
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.ignored_keys import IGNORED, NEUTRAL
from outrider.models import families, read_config
from outrider.speculation.drafters.eagle import read_eagle_config
from outrider.speculation.eagle3_config import read_eagle3_config
from tests.gpu import test_families as gpu
from tests.support.tiny_heads import random_head
from tests.support.tiny_models import HYBRIDS, write_multimodal, write_tiny_model
from tests.support.tiny_mtp import write_mimo

from .released import DEEPSEEK_V2_CONFIG, HEADS, RELEASES, read_any

ZOO = Path(__file__).parents[2] / "zoo"

TARGETS = {name: release.config for name, release in RELEASES.items()} | {
    f"zoo/{name}": json.loads((ZOO / name / "config.json").read_text())
    for name in ("tiny", "tiny-hybrid", "tiny-draft")
}
"""Name -> config.json of a model."""
TARGETS["Gemma-3-1B, new spelling"] = {
    key: value for key, value in TARGETS["Gemma-3-1B"].items() if not key.startswith(("rope_", "sliding_window_"))
} | {
    "_sliding_window_pattern": 5,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
TARGETS["DeepSeek-V3, new spelling"] = {
    key: value for key, value in TARGETS["DeepSeek-V3"].items() if not key.startswith("rope_")
} | {
    "rope_parameters": {**TARGETS["DeepSeek-V3"]["rope_scaling"], "rope_theta": 10000, "type": "yarn"},
    "rope_interleave": True,
    "head_dim": 64,
    "qk_head_dim": 192,
}
TARGETS["DeepSeek-V3.1"] = TARGETS["DeepSeek-V3"] | {
    "quantization_config": TARGETS["DeepSeek-V3"]["quantization_config"] | {"scale_fmt": "ue8m0"}
}
TARGETS["DeepSeek-V2"] = DEEPSEEK_V2_CONFIG
TARGETS |= {"decode, Llama": decode.TARGET, "decode, experts": decode.EXPERTS, "decode, hybrid": decode.HYBRID}
TARGETS["decode, clamped"] = decode.CLAMPED
TARGETS |= {"decode, latent": decode.LATENT, "decode, small latent": decode.LATENT_SMALL}
TARGETS |= {f"gpu, {name}": gpu.COMMON | values for name, values in gpu.TARGETS.items()}


for _name, _other in {
    "all-MiniLM-L6-v2": ("BertForSequenceClassification",),
    "bge-reranker-v2-m3": ("XLMRobertaModel", "RobertaModel", "RobertaForSequenceClassification"),
    "gte-modernbert-base": ("ModernBertForSequenceClassification",),
}.items():
    for _architecture in _other:
        TARGETS[f"{_name} as {_architecture}"] = TARGETS[_name] | {"architectures": [_architecture]}
TARGETS["bge-reranker-v2-m3 as RobertaModel"] |= {"model_type": "roberta"}
del TARGETS["bge-reranker-v2-m3 as RobertaForSequenceClassification"]["id2label"]
TARGETS["bge-reranker-v2-m3 as RobertaForSequenceClassification"] |= {"num_labels": 5}
TARGETS["all-MiniLM-L6-v2 as BertForSequenceClassification"] |= {
    "id2label": {"0": "LABEL_0"},
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"},
    "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
}
TARGETS["gte-modernbert-base as ModernBertForSequenceClassification"] |= {
    "_num_labels": 3,
    "problem_type": "multi_label_classification",
}
TARGETS["bge-reranker-v2-m3 as XLMRobertaModel"] |= {"is_matryoshka": True}
TARGETS["bge-reranker-v2-m3 as RobertaModel"] |= {"matryoshka_dimensions": [64, 128]}
TARGETS["gte-modernbert-base, new spelling"] = {
    key: value
    for key, value in TARGETS["gte-modernbert-base"].items()
    if key not in ("global_rope_theta", "local_rope_theta")
} | {
    "layer_types": ["full_attention", "sliding_attention"] * 11,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}


def _heads() -> Iterator[tuple[str, tuple[str, str, dict]]]:
    """(name, (method, target, config.json)): released ones, the zoo's, and the other forms of a head's config."""
    for name, release in HEADS.items():
        yield name, (release.method, release.target, release.config)
    original = HEADS["EAGLE-3 for Llama-3.1-8B"].config
    nested = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [1, 15, 28]}
    llama = "Llama-3.1-8B"
    yield "EAGLE-3, nested", ("eagle3", llama, original | {"eagle_config": nested, "target_hidden_size": 4096})
    yield "EAGLE-3, top-level", ("eagle3", llama, original | {"eagle_aux_hidden_state_layer_ids": [2, 16, 29]})
    wrapped = {"architectures": ["EAGLEModel"], "model_type": "eagle", "truncated_vocab_size": None}
    inner = HEADS["EAGLE for Llama-3.1-8B"].config | {"qkv_bias": False}
    yield "EAGLE, wrapped", ("eagle", llama, wrapped | {"model": inner})
    zoo = json.loads((ZOO / "tiny-eagle3" / "config.json").read_text())
    yield "zoo/tiny-eagle3", ("eagle3", "zoo/tiny", zoo)
    yield "decode, head", ("eagle3", "decode, Llama", decode.HEAD)
    yield "decode, head of experts", ("eagle3", "decode, experts", decode.EXPERTS_HEAD)
    yield "decode, head of clamped experts", ("eagle3", "decode, clamped", decode.CLAMPED_HEAD)
    for method, values in gpu.HEADS.items():
        yield f"gpu, {method}", (method, "gpu, llama", gpu.COMMON | {"num_hidden_layers": 1} | values)
    for layer in ("llama", "qwen3"):
        model = random_head(vocab_size=3072, draft_vocab_size=40, hidden_size=64, layer=layer)
        model.config.target_hidden_size = 256
        yield f"speculators, {layer}", ("eagle3", "zoo/tiny", json.loads(model.config.to_json_string()))


DRAFTERS = dict(_heads())
NAMES = [*TARGETS, *DRAFTERS]
STRANGE = {
    "nonsense": 1,
    "attn_logit_softcapping": 30.0,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 24,
    "hidden_activation": "gelu_pytorch_tanh",
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
    "no_rope_layers": [1, 1, 1, 0],
    "use_qk_norm": True,
    "kv_lora_rank": 512,
    "rope_local_base_freq": 10000.0,
    "quantization_config": {"quant_method": "fp8", "rotation": "hadamard"},
}
"""Keys that other architectures compute with, and one that means nothing."""

KNOWN = {"query_pre_attn_scalar", "hidden_activation", "rope_local_base_freq"}
"""Those of them that a Gemma computes with, too."""

OUTER_COUNTS = "text_config.tie_word_embeddings"
"""Read, but without effect where the object around it has the key too."""

OF_HEADS = {
    "use_input_layernorm_in_first_layer", "use_last_layernorm", "use_mtp_layernorm", "next_layer_regular",
    "parallel_draft_step", "parallel_draft_heads_num_layers",
}  # fmt: skip
OF_PHI3 = {"full_attn_mod", "interpolate_factor", "lm_head_bias"}
SWITCHES = {"truncated_vocab_size", *OF_PHI3, "is_llama_config", "hidden_act", *OF_HEADS, *(key for key, *_ in NEUTRAL)}
"""Keys that are ignored for their value, not by name."""


def config_of(name: str) -> dict:
    return TARGETS[name] if name in TARGETS else DRAFTERS[name][2]


def parse(name: str, values: Mapping):
    """(what the config says, its reader): a model's, or a head's beside its target."""
    reader = ConfigReader(values)
    if name in TARGETS:
        return read_any(reader), reader
    method, target, _ = DRAFTERS[name]
    target_config = read_config(ConfigReader(TARGETS[target]))
    if method == "eagle":
        return read_eagle_config(reader, target=target_config), reader
    return read_eagle3_config(reader, target=target_config, tap_layers=None), reader


def paths(values: Mapping, without: Mapping, prefix: str = "") -> Iterator[str]:
    """Paths of all keys; those of nested objects too, but for objects in `without`."""
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping) and prefix + key not in without:
            yield from paths(value, without, f"{prefix}{key}.")


def changed(values: Mapping, path: str, value) -> dict:
    """A copy of `values` with another value at `path`."""
    copied = copy.deepcopy(dict(values))
    *sections, key = path.split(".")
    inner = copied
    for section in sections:
        inner = inner[section]
    inner[key] = value
    return copied


def other(value):
    """Another value, of the same type where it has one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value * 2 if value else 1
    if isinstance(value, list):
        return [other(value[0]), *value[1:]] if value else [0]
    kinds = {"full_attention": "linear_attention", "linear_attention": "full_attention"}
    return kinds.get(value, "surprise") if isinstance(value, str) else "surprise"


def is_idle_switch(path: str, values: Mapping) -> bool:
    """Windows would begin behind the last layer, or have no size."""
    first, window = values.get("max_window_layers", 28), values.get("sliding_window", 4096)
    return path == "use_sliding_window" and (first >= values["num_hidden_layers"] or window is None)


OTHER_NAMES = {"GritLM", "HF_ColBERT"}
"""Mistral, and BERT with a layer for each token (test_late_interaction.py)."""


def test_every_file_in_models_has_a_released_config():
    architectures = {config["architectures"][0] for config in TARGETS.values()}
    text_only = {"Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"}
    assert set(families()) == architectures | text_only | OTHER_NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_read_or_ignored_with_a_reason(name):
    _, reader = parse(name, config_of(name))
    for path, reason in sorted(reader.keys_ignored.items()):
        print(f"{name}: {path} is ignored: {reason}")
        assert reason
    assert reader.keys_read | reader.keys_ignored.keys() == set(paths(config_of(name), reader.keys_ignored))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_that_is_read_changes_the_model_or_is_refused(name):
    values = config_of(name)
    config, reader = parse(name, values)
    silent = []
    for path in sorted(reader.keys_read):
        *sections, key = path.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        if isinstance(inner[key], Mapping) or (path == OUTER_COUNTS and "tie_word_embeddings" in values):
            continue
        if name in DRAFTERS and key == "architectures":
            continue  # read only to tell EAGLE-3 heads from EAGLE heads
        try:
            if parse(name, changed(values, path, other(inner[key])))[0] == config and not is_idle_switch(path, inner):
                silent.append(path)
        except ConfigError:
            pass
    assert silent == []


YARN = {"attn_factor", "apply_yarn_scaling", "extrapolation_factor"}
NOT_CAUSAL = {"is_causal", "use_bidirectional_attention"}
ELSEWHERE = {"compression_config", "dequantize", "ignored_layers", *YARN, *NOT_CAUSAL}
"""Asked for, and read in tests of other spellings (tests/loading/test_model_config.py), of quantised weights
(tests/loading/test_quantised_checkpoints.py) and of tokens that see later ones (test_bidirectional_decoders.py)."""


def test_every_key_that_a_reader_asks_for_stands_in_some_config(monkeypatch):
    """So a read that is taken out is seen: the key is then left in that config, and refused."""
    asked = set()

    def noting(method):
        def noted(self, key, *arguments):
            asked.add(key)
            return method(self, key, *arguments)

        return noted

    monkeypatch.setattr(ConfigReader, "_take", noting(ConfigReader._take))
    monkeypatch.setattr(ConfigReader, "has", noting(ConfigReader.has))
    for name in NAMES:
        parse(name, config_of(name))
    present = {path.split(".")[-1] for name in NAMES for path in paths(config_of(name), {})}
    assert asked - present == ELSEWHERE


@pytest.mark.parametrize("name", NAMES)
def test_no_key_that_is_ignored_changes_the_model(name):
    values = config_of(name)
    config, reader = parse(name, values)
    for path in reader.keys_ignored:
        inner = values
        for section in path.split("."):
            inner = inner[section]
        if isinstance(inner, Mapping) or path.split(".")[-1] in SWITCHES:
            continue
        assert parse(name, changed(values, path, other(inner)))[0] == config, path


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_the_model_does_not_know_is_refused_wherever_it_stands(name):
    values = config_of(name)
    _, reader = parse(name, values)
    sections = [path for path in reader.keys_read if isinstance(_at(values, path), Mapping)]
    for place in ["", *sections]:
        text = "text_config" if "text_config" in values else ""
        known = KNOWN if "gemma" in name.lower() and place == text else set()
        for key, value in STRANGE.items():
            if key in known or (key == "kv_lora_rank" and key in values):
                continue
            path = f"{place}.{key}" if place else key
            with pytest.raises(UnsupportedError, match=rf"{path}[=.]"):
                parse(name, changed(values, path, value))


def _at(values, path: str):
    for key in path.split("."):
        values = values[key]
    return values


LEFTOVERS = {
    "transformers": {
        "_name_or_path": "meta/model", "transformers_version": "4.51.3", "_attn_implementation_autoset": True,
        "use_cache": False, "initializer_range": 0.02, "return_dict": True, "output_attentions": False,
        "output_hidden_states": False, "torchscript": False, "use_bfloat16": False, "tf_legacy_loss": False,
        "pruned_heads": {}, "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "is_decoder": False,
        "add_cross_attention": False, "cross_attention_hidden_size": None, "tie_encoder_decoder": False,
        "finetuning_task": None, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": None,
        "tokenizer_class": None, "prefix": None, "task_specific_params": None, "bos_token_id": 1, "pad_token_id": 0,
        "sep_token_id": None, "decoder_start_token_id": None, "_commit_hash": "0123abcd",
        "auto_map": {"AutoConfig": "x"},
    },
    "generate()": {
        "max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1,
        "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0,
        "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
        "bad_words_ids": None, "num_return_sequences": 1, "output_scores": False, "return_dict_in_generate": False,
        "forced_bos_token_id": None, "forced_eos_token_id": None, "remove_invalid_values": False,
        "exponential_decay_length_penalty": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    },
    "training": {
        "attention_dropout": 0.1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "hidden_dropout": 0.0, "pretraining_tp": 1,
        "gradient_checkpointing": True, "router_aux_loss_coef": 0.001, "output_router_logits": False,
        "model_max_length": 4096, "max_sequence_length": 2048, "tokenizer_padding_side": "right",
    },
    "fine-tuning tools": {
        "unsloth_version": "2025.3.1", "unsloth_fixed": True, "axolotl_version": "0.8.0", "use_flash_attention": True,
        "_flash_attn_2_enabled": True, "use_liger_kernel": True, "peft_version": "0.15.0", "model_name": "base/model",
    },
    "switched off": {
        "quantization_config": None, "final_logit_softcapping": None, "residual_multiplier": 1.0, "num_experts": 0,
        "use_qk_norm": False, "sliding_window": None, "vision_config": None, "no_rope_layers": [],
    },
}  # fmt: skip
"""Keys that configs in the wild carry and that change nothing, by who leaves them."""


@pytest.mark.parametrize("origin", LEFTOVERS)
@pytest.mark.parametrize(
    "name", ["Llama-3.1-8B", "Qwen3-8B", "Qwen3.5-9B", "EAGLE-3 for Llama-3.1-8B", "EAGLE, wrapped"]
)
def test_leftovers_change_nothing(name, origin):
    config, _ = parse(name, config_of(name))
    assert parse(name, config_of(name) | LEFTOVERS[origin])[0] == config
    together = {key: value for leftovers in LEFTOVERS.values() for key, value in leftovers.items()}
    assert len(together) >= 60
    assert parse(name, config_of(name) | together)[0] == config


def test_keys_that_could_mislead_are_not_ignored():
    ignored = [key for keys in IGNORED.values() for key in keys]
    assert len(ignored) == len(set(ignored)), "a key has one reason"
    assert not set(ignored) & {
        "quantization_config", "sliding_window", "use_sliding_window", "layer_types", "tie_word_embeddings",
        "eos_token_id", "rope_scaling", "rope_theta", "hidden_act", "hidden_activation", "head_dim", "is_causal",
        *(key for key, *_ in NEUTRAL), *STRANGE,
    }  # fmt: skip


LATENT = ("deepseek_v2", "deepseek_v3")
MULTIMODAL = ("qwen3_5", "qwen3_5_moe", "gemma3")
WRITTEN = [
    *("llama", "qwen2", "mistral", "phi3", "gemma3", "olmo2", "olmo3", "gpt_oss", "qwen3", "qwen3_moe", "mimo"),
    *HYBRIDS,
    *LATENT,
    *(f"multimodal {family}" for family in MULTIMODAL),
]


@pytest.mark.parametrize("family", WRITTEN)
def test_what_transformers_writes_is_read_with_all_its_defaults(tmp_path, family):
    kind = family.split()[-1]
    if family.startswith("multimodal"):
        oracle = write_multimodal(tmp_path, kind).config
    elif family == "mimo":
        oracle = write_mimo(tmp_path)[0].config
    else:
        oracle = write_tiny_model(tmp_path, family).config
    saved = json.loads((tmp_path / "config.json").read_text())
    everything = oracle.to_dict() | {"architectures": saved["architectures"], "model_type": saved["model_type"]}
    if family == "mimo":
        everything |= {"attention_bias": True, "num_nextn_predict_layers": 1}
        del everything["mtp_hidden_states_first"]  # for the test's own module
    everything |= {key: saved[key] for key in ("attention_bias",) if key in saved}  # no field of all of them
    assert set(saved) <= set(everything)
    config = read_config(ConfigReader(everything))
    assert config == read_config(ConfigReader(saved))
    text = oracle.get_text_config()
    assert (config.hidden_size, config.num_layers) == (text.hidden_size, text.num_hidden_layers)
    assert (config.num_kv_heads, config.head_dim) == (text.num_key_value_heads, text.head_dim)
    check_thetas(config, text)


def check_thetas(config, text):
    ropes = text.rope_parameters
    assert config.rope.theta == ropes.get("full_attention", ropes)["rope_theta"]
    if config.local_rope is not None:
        assert config.local_rope.theta == ropes["sliding_attention"]["rope_theta"]


CLASSES = {
    "LlamaForCausalLM": "LlamaConfig",
    "Qwen2ForCausalLM": "Qwen2Config",
    "GritLM": "MistralConfig",
    "MistralForCausalLM": "MistralConfig",
    "Phi3ForCausalLM": "Phi3Config",
    "Olmo2ForCausalLM": "Olmo2Config",
    "Olmo3ForCausalLM": "Olmo3Config",
    "GptOssForCausalLM": "GptOssConfig",
    "Gemma3ForCausalLM": "Gemma3TextConfig",
    "Gemma3ForConditionalGeneration": "Gemma3Config",
    "Qwen3ForCausalLM": "Qwen3Config",
    "Qwen3MoeForCausalLM": "Qwen3MoeConfig",
    "DeepseekV2ForCausalLM": "DeepseekV2Config",
    "DeepseekV3ForCausalLM": "DeepseekV3Config",
    "Qwen3NextForCausalLM": "Qwen3NextConfig",
    "Qwen3_5ForCausalLM": "Qwen3_5TextConfig",
    "Qwen3_5ForConditionalGeneration": "Qwen3_5Config",
    "Qwen3_5MoeForCausalLM": "Qwen3_5MoeTextConfig",
    "Qwen3_5MoeForConditionalGeneration": "Qwen3_5MoeConfig",
}
ENCODER_CLASSES = {"Bert": "BertConfig", "Roberta": "RobertaConfig", "XLMRoberta": "XLMRobertaConfig",
                   "ModernBert": "ModernBertConfig"}  # fmt: skip
ENCODERS = sorted(f"{name}{form}" for name in ENCODER_CLASSES for form in ("Model", "ForSequenceClassification"))


@pytest.mark.parametrize("architecture", ENCODERS)
def test_the_defaults_of_an_encoder_are_those_of_transformers(architecture):
    name = architecture.removesuffix("Model").removesuffix("ForSequenceClassification")
    oracle = getattr(transformers, ENCODER_CLASSES[name])(architectures=[architecture])
    config = read_any(ConfigReader(json.loads(oracle.to_json_string(use_diff=False))))
    eps = getattr(oracle, "norm_eps", None) or oracle.layer_norm_eps
    assert (config.vocab_size, config.num_heads, config.norm_eps) == (
        oracle.vocab_size,
        oracle.num_attention_heads,
        eps,
    )
    assert len(config.pooler.labels) == (0 if architecture.endswith("Model") else 2)
    if name != "ModernBert":
        assert config.encoder.num_positions == oracle.max_position_embeddings
        return
    assert not config.encoder.num_positions and (
        architecture.endswith("Model") or config.pooler.pooling == oracle.classifier_pooling
    )
    kinds = ["full_attention" if window is None else "sliding_attention" for window in config.windows]
    assert kinds == oracle.layer_types and set(config.windows) == {None, 2 * oracle.sliding_window + 1}
    check_thetas(config, oracle)


@pytest.mark.parametrize("architecture", sorted(set(families()) - {*ENCODERS, "HF_ColBERT"}))
def test_the_defaults_of_transformers_are_read_as_they_are(architecture):
    if architecture == "MiMoForCausalLM":
        assert not hasattr(transformers, "MiMoConfig"), "transformers has it now: add its config class"
        return
    missing = {"num_experts_per_tok": 6} if architecture == "DeepseekV2ForCausalLM" else {}  # by default it is null
    oracle = getattr(transformers, CLASSES[architecture])(architectures=[architecture], **missing)
    text = oracle.get_text_config()
    config = read_config(ConfigReader(oracle.to_dict()))
    assert config.vocab_size == text.vocab_size and config.norm_eps == text.rms_norm_eps
    assert config.head_dim == (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    check_thetas(config, text)
    assert config.rope.partial_rotary_factor == text.rope_parameters.get("partial_rotary_factor", 1.0)
    if config.layer_types:
        assert list(config.layer_types) == text.layer_types
    if config.moe is not None:
        assert config.moe.num_experts == getattr(text, "num_experts", None) or text.n_routed_experts
