"""Mixtures of experts, hybrids, prediction modules and EAGLE heads on a GPU: the same tokens and logits always.

The truth is each request alone, eager, without speculation. With random weights no drafter is ever right, so in some
runs half of the drafts are replaced by the answers, on the device: then each number of them is accepted, and the
drafter goes on from its own states as it would anyway.
"""

import gc
import json
import random

import pytest
import torch

from outrider import LLM, SamplingParams
from tests.support import request_mix
from tests.support.half_right_drafts import make_half_right

VOCAB, K, LONG = 2048, 3, 520

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 1024,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
EXPERTS = {
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 200,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
}
HYBRID = {
    "head_dim": 256,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "attn_output_gate": True,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "rope_theta": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
    "mtp_num_hidden_layers": 1,
}
UPPER_WINDOWS = {"use_sliding_window": True, "sliding_window": 70, "max_window_layers": 2}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 256}
TWO_KINDS = {
    "head_dim": 256,
    "sliding_window": 100,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "query_pre_attn_scalar": 200,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": None,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
TARGETS = {
    "qwen3_moe": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"} | EXPERTS,
    "mimo": {"architectures": ["MiMoForCausalLM"], "attention_bias": True, "num_nextn_predict_layers": 1},
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"} | UPPER_WINDOWS,
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 100},
    "phi3": {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "partial_rotary_factor": 0.75},
    "olmo3": {"architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "sliding_window": 100},
    "gemma3": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"} | TWO_KINDS,
    "qwen3_5": {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text"} | HYBRID,
    "qwen3_5_moe": {"architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe_text"} | HYBRID | SHARED,
    "qwen3_next": {"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next"} | HYBRID | SHARED,
}
HEADS = {
    "eagle3": {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": 500,
        "num_hidden_layers": 2,
        "eagle_aux_hidden_state_layer_ids": [1, 2, 4],
    },
    "eagle": {"architectures": ["LlamaForCausalLM"], "bias": True},
}
DRAFTERS = {
    "qwen3_moe": "eagle3",
    "llama": "eagle",
    "qwen2": "eagle3",
    "mistral": "eagle3",
    "phi3": "eagle3",
    "gemma3": "eagle3",
    "olmo3": "eagle3",
}
"""Drafters of the models that have no prediction module."""


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


def _prompt(count: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(VOCAB) for _ in range(count))


def _cases() -> list[request_mix.Case]:
    def case(name: str, prompt: tuple[int, ...], **params) -> request_mix.Case:
        return request_mix.Case(
            name, prompt, SamplingParams(**({"max_tokens": 60, "ignore_eos": True, "seed": 7} | params))
        )

    shared = _prompt(70, 1)
    return [
        case("long", _prompt(40, 2), temperature=1.0, max_tokens=LONG),
        case("greedy", shared, temperature=0.0),
        case("behind a shared prefix", (*shared, 5, 6, 7), temperature=1.0),
        case("truncated", _prompt(129, 4), temperature=0.8, top_p=0.95, top_k=40),
        case("penalties", _prompt(17, 5), temperature=0.9, repetition_penalty=1.2, frequency_penalty=0.3, logprobs=5),
        *(case(f"filler {i}", _prompt(9 + 11 * i, 6 + i), temperature=0.5) for i in range(15)),
    ]


@pytest.fixture(scope="module", params=TARGETS)
def family(request, tmp_path_factory):
    """A family's name and its directory; the head of its drafter lies inside."""
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "config.json").write_text(json.dumps(COMMON | TARGETS[request.param]))
    for name, values in HEADS.items():
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps(COMMON | {"num_hidden_layers": 1} | values))
    return request.param, directory


def make(family, *, drafter: str | None = None, **options) -> LLM:
    _, directory = family
    if drafter is not None:
        config = {"method": drafter, "num_speculative_tokens": K}
        if drafter in HEADS:
            config["model"] = str(directory / drafter)
        options["speculative_config"] = config
    options = {"max_model_len": 640, "max_num_seqs": 20, "logits_digest": True, "skip_tokenizer_init": True} | options
    return LLM(str(directory), device="cuda", load_format="dummy", **options)


def _closed(llm) -> None:
    del llm.engine
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def cases():
    return _cases()


@pytest.fixture(scope="module")
def truth(family, cases):
    llm = make(family, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, enforce_eager=True)
    answers = [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]
    _closed(llm)
    assert len(set(answers[0].token_ids)) > LONG // 4, "the text repeats: equality would show little"
    return answers


@pytest.fixture
def half_right(cases, truth, monkeypatch):
    answers = [(case.prompt, want.token_ids) for case, want in zip(cases, truth, strict=True)]
    make_half_right(monkeypatch, answers, device="cuda")


RUNS = {
    "graphs": {},
    "chunks, eager, depth 0": {"max_num_batched_tokens": 90, "enforce_eager": True, "overlap_depth": 0},
    "few blocks, no prefixes": {"num_gpu_blocks_override": 48, "enable_prefix_caching": False},
}


@pytest.mark.parametrize("run", RUNS)
def test_a_crowd_equals_each_alone(family, cases, truth, half_right, run):
    llm = make(family, drafter=DRAFTERS.get(family[0], "mtp"), **RUNS[run])
    assert (llm.engine.worker.num_graphs == 0) == ("eager" in run)
    for _ in range(1 if "few" in run else 2):
        outputs = request_mix.run(llm, cases)
        assert request_mix.mismatches(cases, outputs, truth) == []
    assert ("few" in run) == (llm.engine.scheduler.num_preemptions > 0)
    counts = outputs[0].speculation.num_accepted_tokens_per_pos
    assert len(counts) == K and counts[0] > counts[1] > counts[2] > 0
    _closed(llm)


def test_plain_graphs_equal_each_alone(family, cases, truth):
    llm = make(family)
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
    _closed(llm)


def test_the_drafters_kv_is_that_of_a_clean_prefill(family, cases, half_right):
    """After drafts of every number were accepted, in graphs and in a crowd."""
    case = cases[1]

    def started(cases: list[request_mix.Case], **options):
        llm = make(family, drafter=DRAFTERS.get(family[0], "mtp"), **options)
        requests = [llm.engine.new_request({"prompt_token_ids": list(c.prompt)}, c.params) for c in cases]
        for request in requests:
            llm.engine.add(request)
        return llm, llm.engine.scheduler.find(requests[0].request_id)

    def kv(llm, request) -> list[torch.Tensor]:
        torch.cuda.synchronize()
        index = torch.arange(1, request.num_tokens, device="cuda")
        caches = llm.engine.worker.drafter.caches
        (group,) = caches.group_indices
        slots = torch.tensor(request.blocks[group].ids, device="cuda")[index // 16] * 16 + index % 16
        return [part.flatten(0, 1)[slots].clone() for cache in caches for part in (cache.k, cache.v)]

    llm, request = started([case, *cases[5:12]])
    while request.num_output_tokens < 50:
        llm.engine.step()
    assert request.speculation.num_accepted_tokens > 10
    found, tokens = kv(llm, request), list(request.token_ids)
    _closed(llm)
    again = request_mix.Case("again", tuple(tokens), case.params)
    clean, fresh = started([again], enable_prefix_caching=False, enforce_eager=True, overlap_depth=0)
    while fresh.num_output_tokens < 1:
        clean.engine.step()
    for ours, wanted in zip(found, kv(clean, fresh), strict=True):
        assert ours.isfinite().all() and torch.equal(ours, wanted[: len(ours)])
    _closed(clean)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("eager", [False, True])
def test_no_step_waits_for_the_device(family, cases, truth, eager):
    llm = make(family, drafter=DRAFTERS.get(family[0], "mtp"), max_num_batched_tokens=90, enforce_eager=eager)
    request_mix.run(llm, cases)  # kernels are compiled, graphs captured
    engine = llm.engine
    for case in cases:
        engine.add(engine.new_request({"prompt_token_ids": list(case.prompt)}, case.params))
    finished = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        while engine.has_work:
            finished += engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    finished.sort(key=lambda output: int(output.request_id))
    assert request_mix.mismatches(cases, finished, truth) == []
    _closed(llm)
