"""Gemma 3: the memory that windows save, the scale of its embeddings, and what its config leaves out."""

from dataclasses import replace

import pytest
import torch

from outrider import models
from outrider.attention.caches.paged import groups_of
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.kv_groups import BlockGroup
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.kv_blocks import KVBlocks
from outrider.scheduler.prefix import Hit
from outrider.scheduler.request_state import RequestState
from tests.support.paged_runner import PagedRunner, cpu_context, load_tiny
from tests.support.tiny_models import write_tiny_model

from .released import GEMMA3_1B, GEMMA3_4B, GEMMA3_27B

LENGTH, CHUNK, BLOCK = 32768, 2048, 16


def read(values):
    return models.read_config(ConfigReader(values))


def held_bytes(specs) -> tuple[int, int]:
    """KV bytes that a request of LENGTH tokens holds: at most, while its prompt is computed in chunks with one more
    step planned ahead, and once it decodes."""
    groups = groups_of(specs, block_size=BLOCK)
    sizes = [sum(spec.bytes_per_block(BLOCK) for spec in specs if spec.window == group.window) for group in groups]
    blocks = KVBlocks(groups, [1 + LENGTH // BLOCK + 9] * len(groups), most_ahead=CHUNK)
    asked = Request(
        request_id="long", prompt_token_ids=(3,) * (LENGTH - 40), params=SamplingParams(max_tokens=40), seed=0,
        eos_token_ids=(), max_total_tokens=LENGTH,
    )  # fmt: skip
    state = RequestState(request=asked)
    assert blocks.admit(state, Hit(0, [[] for _ in groups], 0), LENGTH - 40)

    def held() -> int:
        counts = (len(part.ids) - part.num_released for part in state.blocks)
        return sum(count * size for count, size in zip(counts, sizes, strict=True))

    most = 0
    for computed in [*range(0, LENGTH - 40, CHUNK), *range(LENGTH - 40, LENGTH)]:
        is_decoding = computed >= LENGTH - 40
        state.num_computed_tokens = computed
        blocks.release_passed(state)
        blocks.reserve(state, min(LENGTH, computed + (2 if is_decoding else 2 * CHUNK)))
        most = max(most, held())
    return most, held()


@pytest.mark.parametrize(("release", "share"), [(GEMMA3_1B, 0.18), (GEMMA3_4B, 0.18), (GEMMA3_27B, 0.20)])
def test_kv_of_a_long_request_is_a_fifth_of_all(release, share):
    context = replace(cpu_context(), dtype=torch.bfloat16)
    specs = models.cache_specs(read(release.config), context)
    assert {group.window for group in groups_of(specs, block_size=BLOCK)} == {None, specs[0].window}
    _, whole = held_bytes([replace(spec, window=None) for spec in specs])
    assert whole == sum(spec.bytes_per_block(BLOCK) for spec in specs) * LENGTH // BLOCK
    most, decoding = held_bytes(specs)
    print(f"{most / 2**20:.0f} MiB in the prompt, {decoding / 2**20:.0f} decoding, all {whole / 2**20:.0f} MiB")
    assert decoding < share * whole
    assert most < (share + 0.14) * whole


def test_blocks_that_are_kept_would_be_seen(monkeypatch):
    monkeypatch.setattr(BlockGroup, "first_needed_block", lambda self, index: 0)
    specs = models.cache_specs(read(GEMMA3_1B.config), cpu_context())
    _, decoding = held_bytes(specs)
    assert decoding == sum(spec.bytes_per_block(BLOCK) for spec in specs) * LENGTH // BLOCK


@pytest.mark.parametrize(("release", "scale"), [(GEMMA3_1B, 34.0), (GEMMA3_4B, 50.5)])
def test_the_scale_of_embeddings_is_rounded_first(release, scale):
    config = replace(read(release.config), num_layers=1, vocab_size=16)
    context = replace(cpu_context(), dtype=torch.bfloat16)
    model = models.find_model(config)(config, context, max_positions=64)
    rows = torch.randn(3, 7, dtype=torch.bfloat16)
    assert torch.equal(model.scale_embedded(rows), rows * torch.tensor(scale, dtype=torch.bfloat16))


def test_float16_is_refused_before_anything_is_loaded():
    context = replace(cpu_context(), dtype=torch.float16)
    with pytest.raises(UnsupportedError, match=r"dtype='float16' is not supported by Gemma 3.*Use bfloat16"):
        models.cache_specs(read(GEMMA3_1B.config), context)


def test_drafters_read_the_rows_as_they_are(tmp_path):
    """A head that shares the table was trained on the table; tap 0 is what the first layer reads."""
    write_tiny_model(tmp_path, "gemma3")
    model = load_tiny(tmp_path)
    model.set_taps((0,))
    ids, shared = [5, 9, 77], []
    embed = model.embed
    model.embed = lambda batch: shared.append(embed(batch)) or shared[-1]
    hidden, _ = PagedRunner(model).feed([("row", ids)])
    assert torch.equal(shared[0], model.embed_tokens.weight[ids])
    assert torch.equal(hidden.taps, shared[0] * 8.0)


def test_what_a_release_leaves_out_is_known():
    config = read(GEMMA3_4B.config)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size) == (8, 4, 256, 262208)
    assert (config.rope.theta, config.rope.factor, config.local_rope.theta) == (1e6, 8.0, 1e4)
    assert config.local_rope.rope_type == "default", "local layers are not stretched"
    assert config.max_length == 131072, "the config says the stretched length"
    assert config.tie_word_embeddings and config.norm_plus_one and config.dtype == "bfloat16"
    assert config.eos_token_ids == (1, 106)
    assert [config.window(index) for index in (0, 4, 5, 6, 11)] == [1024, 1024, None, 1024, None]
    assert read(GEMMA3_27B.config).attention_scale == 168**-0.5


@pytest.mark.parametrize("key", ["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"])
def test_what_gemma3_does_not_have_is_refused(key):
    assert read(GEMMA3_1B.config | {key: None}) == read(GEMMA3_1B.config)
    with pytest.raises(UnsupportedError, match=key):
        read(GEMMA3_1B.config | {key: True if key.startswith("use") else 30.0})


NESTED = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}


def test_ropes_by_kind_in_both_spellings():
    config = read(GEMMA3_1B.config)
    assert read(GEMMA3_1B.config | {"rope_parameters": NESTED}) == config, "theta is beside them"
    with pytest.raises(ConfigError, match=r"rope_local_base_freq=10000 contradicts rope_parameters.*500"):
        local = {"rope_type": "default", "rope_theta": 500.0}
        read(GEMMA3_1B.config | {"rope_parameters": NESTED | {"sliding_attention": local}})
    with pytest.raises(UnsupportedError, match=r"rope_scaling=.*Remove one of the two"):
        read(GEMMA3_1B.config | {"rope_parameters": NESTED, "rope_scaling": {"rope_type": "linear", "factor": 2.0}})
