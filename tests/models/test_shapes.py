"""Released checkpoints on the meta device: our loader fills every weight from the names and shapes that they have,
without their data, and leaves no tensor unread that it does not know.
"""

from dataclasses import replace

import pytest
import torch

from outrider import models
from outrider.core.config import SpeculativeConfig, engine_config
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.platforms.base import select_platform
from outrider.speculation import head
from outrider.speculation.drafter import DrafterContext, find_drafter
from outrider.speculation.drafters import eagle, eagle3, mtp
from tests.support.paged_runner import cpu_context

from .released import HEADS, RELEASES, Shapes, read_any

DTYPES = {"d2t": torch.int64, "t2d": torch.bool}
"""Names of tensors that are not weights."""

LONG = ("gpt-oss-120b", "DeepSeek-V3", "Kimi-K2")
"""Another release of the same form is filled in the fast suite, or a module of it."""

PACKED = ("_blocks", "_scales")
"""Ends of names of packed weights."""

HYBRIDS = [
    name for name, release in RELEASES.items() if release.config["model_type"].startswith(("qwen3_5", "qwen3_next"))
]


class Listed:
    """A checkpoint of names and shapes, instead of one in files."""

    directory = "a release"

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    @property
    def names(self):
        return frozenset(self._shapes)

    def headers(self):
        return self.tensors()

    def tensors(self, chosen=None):
        for name in self._shapes if chosen is None else chosen:
            yield name, torch.empty(self._shapes[name], dtype=self._dtype(name), device="meta")

    def _dtype(self, name: str) -> torch.dtype:
        if name.endswith("_scale_inv"):
            return torch.float32
        if name.endswith(PACKED):
            return torch.uint8
        return torch.float8_e4m3fn if f"{name}_scale_inv" in self._shapes else DTYPES.get(name, torch.bfloat16)


@pytest.fixture
def files(monkeypatch):
    """Call it with the shapes that every directory holds from now on."""

    def hold(shapes: Shapes) -> None:
        for module, name in ((models, "open_weights"), (mtp, "Checkpoint"), (head, "Checkpoint")):
            monkeypatch.setattr(module, name, lambda directory: Listed(shapes))

    return hold


def read(values) -> ModelConfig:
    return read_any(ConfigReader(values))


def on_meta(config: ModelConfig):
    return replace(cpu_context(), dtype=torch.bfloat16, device=torch.device("meta"))


def load(config: ModelConfig):
    return models.load_model("a release", config, on_meta(config), max_positions=4096)


def drafter_context(target, directory: str, **speculative) -> DrafterContext:
    config = SpeculativeConfig.from_dict(speculative)
    return DrafterContext(
        config=config, options=find_drafter(config).options, engine=engine_config(directory),
        target_config=target.config, target=target, layers=target.context, platform=select_platform("cpu"),
        max_model_len=4096,
        read_config=lambda *_: pytest.fail("a head is not a whole model"),
        load_model=lambda *_: pytest.fail("a head is not a whole model"),
    )  # fmt: skip


def num_elements(shapes: Shapes) -> int:
    """Weights that a model keeps: kv_b_proj becomes plain, and copies of the model's own tables are not kept."""
    left_out = ("kv_b_proj.weight_scale_inv", "shared_head.head.weight")
    return sum(
        torch.Size(shape).numel()
        for name, shape in shapes.items()
        if not name.endswith(left_out) and not (".layers." in name and name.endswith("embed_tokens.weight"))
    )


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a parameter: scales of quantised matrices, and what is sensitive to rounding, are fp32."""
    if name.endswith(("A_log", "dt_bias", "e_score_correction_bias", "scales_0", "scales_1", "_scales")):
        return torch.float32
    is_quantised = name.endswith(("data_0", "data_1", "_data", "weight_0", "weight_1"))
    return torch.float8_e4m3fn if is_quantised else torch.bfloat16


def size_of(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in RELEASES]
)
def test_a_release_fills_the_model(name, files):
    release = RELEASES[name]
    assert len(release.shapes) == release.num_tensors
    files(release.shapes | release.module | release.elsewhere)
    config = read(release.config)
    model = load(config)
    assert size_of(model) == num_elements(release.shapes)
    packed = [key for key, parameter in model.named_parameters() if parameter.dtype == torch.uint8]
    assert len(packed) == sum(key.endswith(PACKED) for key in release.shapes)
    for key, parameter in model.named_parameters():
        if key not in packed:
            assert parameter.dtype == dtype_of(key), key


@pytest.mark.parametrize(
    "name",
    [name for name, release in RELEASES.items() if release.module],
)
def test_a_release_fills_its_prediction_module(name, files):
    release = RELEASES[name]
    files(release.shapes | release.module | release.elsewhere)
    config = read(release.config)
    target = models.find_model(config)(config, on_meta(config), max_positions=4096)
    modules = mtp.load_modules(drafter_context(target, "a release", method="mtp"))
    assert sum(map(size_of, modules)) == num_elements(release.module)


@pytest.mark.parametrize("name", HEADS)
def test_a_released_head_is_filled(name, files, tmp_path):
    release = HEADS[name]
    config = read(RELEASES[release.target].config)
    target = models.find_model(config)(config, on_meta(config), max_positions=4096)
    context = drafter_context(target, "a release", method=release.method, model=str(tmp_path))
    files(release.shapes)
    if release.method == "eagle":
        parsed = eagle.read_eagle_config(ConfigReader(release.config), target=config)
        filled = head.load_head(
            str(tmp_path), lambda found: eagle._make_head(parsed, context, found),
            layer=parsed.layer, context=context, renames={},
        )  # fmt: skip
    else:
        parsed = eagle3.read_eagle3_config(ConfigReader(release.config), target=config, tap_layers=None)
        assert parsed.tap_layers == release.taps
        filled = head.load_head(
            str(tmp_path), lambda found: eagle3._make_head(parsed, context, found),
            layer=parsed.layer, context=context, renames=eagle3._RENAMES,
        )  # fmt: skip
    weights = {key: shape for key, shape in release.shapes.items() if key not in DTYPES}
    assert size_of(filled) == num_elements(weights)


def test_hybrids_are_read_as_they_are_released():
    for name in HYBRIDS:
        config = read(RELEASES[name].config)
        assert (config.head_dim, config.rotary_size, config.rope.theta, config.norm_plus_one) == (256, 64, 1e7, True)
        assert [config.has_state(index) for index in range(4)] == [True, True, True, False]
        assert config.num_attention_layers * 4 == config.num_layers
        assert config.attn_output_gate and config.gated_delta.num_key_heads == 16
        assert config.eos_token_ids == ((151645,) if "Next" in name else (248044,))
        assert config.moe is None or config.moe.is_normalized, "the configs of Qwen3.5 do not say so, and it is so"


@pytest.mark.parametrize("extra", ["model.language_model.layers.0.linear_attn.bias", "model.audio.proj.weight"])
def test_other_tensors_are_not_left_silently(extra, files):
    release = RELEASES["Qwen3.5-0.8B"]
    files(release.shapes | {extra: (1,)})
    with pytest.raises(CheckpointError, match="not used by the model"):
        load(read(release.config))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("linear_conv_kernel_dim", 3),
        ("mamba_ssm_dtype", "bfloat16"),
        ("output_gate_type", "sigmoid"),
        ("attn_output_gate", False),
        ("linear_key_head_dim", 100),
        ("layer_types", ["sliding_attention"] * 24),
    ],
)
def test_what_is_not_built_is_refused_by_name(field, value):
    values = RELEASES["Qwen3.5-0.8B"].config
    with pytest.raises(UnsupportedError, match=field):
        read(values | {"text_config": values["text_config"] | {field: value}})
