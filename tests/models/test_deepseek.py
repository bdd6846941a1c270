"""DeepSeek's configs and what they refuse; a platform without kernels of latent attention."""

import pytest
import torch

from outrider import models
from outrider.attention.backends.triton import Backend
from outrider.attention.caches.latent import Latent
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.quantization.scheme import Scheme
from outrider.kernels import load_kernels, stack_names
from outrider.platforms.cuda import Platform
from tests.support.paged_runner import cpu_context

from .released import DEEPSEEK_V2_CONFIG, DEEPSEEK_V2_LITE, DEEPSEEK_V3, KIMI_K2, MOONLIGHT


def read(values):
    return models.read_config(ConfigReader(values))


def test_releases_are_read_as_they_are():
    config = read(DEEPSEEK_V3.config)
    assert (config.latent.q_rank, config.latent.kv_rank, config.rotary_size, config.max_length) == (
        1536,
        512,
        64,
        163840,
    )
    assert config.attention_scale == pytest.approx(192**-0.5 * 1.8739, rel=1e-4), "mscale_all_dim counts twice"
    assert config.moe.dense_layers == {0, 1, 2} and config.num_mtp_layers == 1
    grouped = config.moe.grouped
    assert (grouped.num_groups, grouped.num_chosen_groups, grouped.scale, grouped.has_bias) == (8, 4, 2.5, True)
    assert config.moe.shared_intermediate_size == 2048 and config.moe.is_normalized
    lite = read(DEEPSEEK_V2_LITE.config)
    assert lite.latent.q_rank is None and not lite.moe.is_normalized and lite.moe.shared_intermediate_size == 2816
    assert (lite.moe.grouped.scoring, lite.moe.grouped.num_groups, lite.moe.grouped.has_bias) == ("softmax", 1, False)
    assert read(DEEPSEEK_V2_CONFIG).moe.grouped.num_chosen_groups == 3
    kimi, moonlight = read(KIMI_K2.config), read(MOONLIGHT.config)
    assert kimi.max_length == 131072 and kimi.num_mtp_layers == 0 and kimi.moe.grouped.scale == 2.827
    assert moonlight.attention_scale == 192**-0.5 and moonlight.latent.q_rank is None


def test_scales_of_a_release_may_be_powers_of_two():
    scheme = read(DEEPSEEK_V3.config).quantization.scheme_of("model.layers.3.self_attn.o_proj")
    values = DEEPSEEK_V3.config["quantization_config"] | {"scale_fmt": "ue8m0"}
    other = read(DEEPSEEK_V3.config | {"quantization_config": values})
    assert isinstance(scheme, Scheme) and not dict(scheme.options)["has_power_of_two_scales"]
    assert dict(other.quantization.scheme_of("model.layers.3.mlp.gate_proj").options)["has_power_of_two_scales"]


REFUSED = {
    "n_group": (7, ConfigError, "256 experts do not form that many equal groups"),
    "topk_group": (9, ConfigError, "is more than n_group=8"),
    "num_experts_per_tok": (129, ConfigError, "more than the 128 experts that a token can choose from"),
    "num_key_value_heads": (64, UnsupportedError, "Supported: 128, as many as num_attention_heads"),
    "attention_bias": (True, UnsupportedError, "attention_bias=True"),
    "moe_layer_freq": (2, UnsupportedError, "moe_layer_freq=2"),
    "topk_method": ("greedy", UnsupportedError, "topk_method='greedy'"),
    "scoring_func": ("softmax", UnsupportedError, "scoring_func='softmax'"),
    "qk_nope_head_dim": (100, UnsupportedError, "Supported: multiples of 8"),
    "hidden_act": ("gelu", UnsupportedError, "hidden_act='gelu'"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_built_is_refused_by_name(key):
    value, kind, message = REFUSED[key]
    with pytest.raises(kind, match=message):
        read(DEEPSEEK_V3.config | {key: value})


def test_normalised_weights_of_v2_are_refused():
    with pytest.raises(UnsupportedError, match="norm_topk_prob=True is not supported"):
        read(DEEPSEEK_V2_LITE.config | {"norm_topk_prob": True})


@pytest.mark.parametrize("stack", [stack for stack in stack_names() if stack != "reference"])
def test_a_stack_without_the_kernels_refuses_the_model(stack):
    """Before it takes memory, with what to do instead."""
    context = cpu_context()
    for name in ("project_heads", "rotary_and_write_latent", "latent_attention", "route_grouped"):
        assert not hasattr(load_kernels((stack, "reference")), name), "they need the stack of paged_attention"
        delattr(context.kernels, name)
    with pytest.raises(UnsupportedError, match=r"DeepseekV3ForCausalLM has latent attention: .*device='cpu'"):
        models.cache_specs(read(DEEPSEEK_V3.config), context)


def test_the_backend_of_a_gpu_refuses_latent_rows():
    spec = Latent(rank=512, rope_size=64, dtype=torch.bfloat16)
    platform = Platform.__new__(Platform)
    assert "no kernels of latent attention. Run this model on a CPU" in (Backend.refuses(spec, platform) or "")
