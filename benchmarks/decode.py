"""Workloads A, B, C, F, L and M: decoding speed with random weights, of an 8B Llama shape, of Qwen3-30B-A3B's, which
has 128 experts, of Qwen3.5-9B's, whose layers have states, of gpt-oss-20b's, whose experts are in MXFP4, of four layers
of DeepSeek-V3 in FP8 with its module, and of DeepSeek-V2-Lite; plain and with drafts of an EAGLE-3 head or an MTP
module. L and M have latent attention, and wait for its kernels.

c requests of 512 random tokens are submitted at once and produce 257 tokens each, greedily. Decode tokens/s =
(tokens - c) / (time of the 257-token run - time of a 1-token run), median of 3 after a warm-up. With random weights
no draft would be accepted, so acceptance is synthetic (0.75 / 0.55 / 0.40: length 2.70; of one draft 1.75). The
byte limit is what a step has to read (weights, states, KV, a drafter's weights once a draft) at 4.37 TB/s.

For a mixture of experts, the number of distinct experts that a layer reads in a step is given beside the speed, counted
in a second run of the same tokens. Routers of random weights spread tokens evenly; `skewed` is the same model with its
routers' rows scaled, so that few experts are chosen by most tokens. A head of random weights drafts the same token
again and again; `eagle3-spread` turns its drafts into different ones, which choose a few more experts.

    PYTHONPATH=src python3 -m benchmarks.decode [--workload a|b|c|f|l|m] [--concurrency 1,8,64]
        [--drafter none,eagle3,eagle3-adaptive,eagle3-spread,mtp-1,mtp-3]
"""

import argparse
import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import READ_BANDWIDTH, Table, save
from outrider import LLM, SamplingParams
from outrider.bench.limits import bytes_per_step
from outrider.device.step_batch import StepBatch
from outrider.layers.grouped_moe import GroupedMoE
from outrider.layers.moe import MoE
from outrider.runtime.describe import describe
from outrider.speculation.chain import ChainDrafter

TARGET = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 128001,
}
HEAD = {
    **TARGET,
    "architectures": ["LlamaForCausalLMEagle3"],
    "num_hidden_layers": 1,
    "draft_vocab_size": 32000,
}
EXPERTS = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 151645,
}
EXPERTS_HEAD = {
    **{name: value for name, value in EXPERTS.items() if name in TARGET},
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "intermediate_size": 12288,
    "num_hidden_layers": 1,
    "draft_vocab_size": 32000,
}
HYBRID = {
    "architectures": ["Qwen3_5ForCausalLM"],
    "model_type": "qwen3_5_text",
    "vocab_size": 248320,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "layer_types": [*["linear_attention"] * 3, "full_attention"] * 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "attn_output_gate": True,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
    "mtp_num_hidden_layers": 1,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 248044,
}
CLAMPED = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 24,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "sliding_window": 128,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "attention_bias": True,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "swiglu_limit": 7.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 200002,
    "quantization_config": {"quant_method": "mxfp4"},
}
CLAMPED_HEAD = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "vocab_size": 201088,
    "draft_vocab_size": 32000,
    "hidden_size": 2880,
    "intermediate_size": 17280,
    "num_hidden_layers": 1,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
LATENT = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 3,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    },
    "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 1,
    "quantization_config": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
}
LATENT_SMALL = {
    **{
        name: value for name, value in LATENT.items() if name not in ("quantization_config", "num_nextn_predict_layers")
    },
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "num_hidden_layers": 27,
    "first_k_dense_replace": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "eos_token_id": 100001,
}
SKEW = 3.0
"""A skewed router's rows are scaled by e^-SKEW to 1."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One table of results."""

    title: str
    target: dict[str, Any]
    head: dict[str, Any] | None
    """True for an EAGLE-3 head."""
    results: str


WORKLOADS = {
    "a": Workload("Workload A", TARGET, HEAD, "decode"),
    "b": Workload("Workload B", EXPERTS, EXPERTS_HEAD, "decode-experts"),
    "c": Workload("Workload C", HYBRID, None, "decode-hybrid"),
    "f": Workload("Workload F", CLAMPED, CLAMPED_HEAD, "decode-clamped"),
    "l": Workload("Workload L", LATENT, None, "decode-latent"),
    "m": Workload("Workload M", LATENT_SMALL, None, "decode-latent-small"),
}
PROMPT, OUTPUT = 512, 257
RATES = (0.75, 0.55, 0.40)


def write_configs(directory: Path, workload: Workload = WORKLOADS["a"]) -> tuple[str, str]:
    for name, config in (("target", workload.target), ("head", workload.head)):
        if config is None:
            continue
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps(config))
    return str(directory / "target"), str(directory / "head")


def make(
    directory: Path,
    drafter: str,
    max_num_seqs: int,
    *,
    num_speculative_tokens: int = 3,
    is_synthetic: bool = False,
    **options: Any,
) -> LLM:
    """An engine on the configs of `directory`; synthetic: drafts are accepted at the workloads' rates."""
    target, head = str(directory / "target"), str(directory / "head")
    speculative: dict[str, Any] | None = None
    method, _, variant = drafter.partition("-")
    if method == "mtp":
        num_speculative_tokens = int(variant)
        speculative = {"method": "mtp"}
    elif method == "eagle3":
        speculative = {"method": "eagle3", "model": head, "adaptive": variant == "adaptive"}
    if speculative is not None:
        speculative["num_speculative_tokens"] = num_speculative_tokens
        if is_synthetic:
            rates = list(RATES[:num_speculative_tokens])
            speculative |= {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": rates}
    options = {"max_model_len": 4096, "max_num_batched_tokens": 8192} | options
    return LLM(
        target,
        load_format="dummy",
        skip_tokenizer_init=True,
        max_num_seqs=max_num_seqs,
        enable_prefix_caching=False,
        speculative_config=speculative,
        **options,
    )


def timed(llm: LLM, count: int, num_tokens: int, **params: Any) -> tuple[float, int, int]:
    """Seconds, tokens and target steps of one run."""
    rng = random.Random(0)
    num_ids = min(128000, llm.engine.worker.model_config.vocab_size)
    prompts = [{"prompt_token_ids": [rng.randrange(num_ids) for _ in range(PROMPT)]} for _ in range(count)]
    sampling = SamplingParams(**({"temperature": 0.0, "max_tokens": num_tokens, "ignore_eos": True} | params))
    before = llm.engine.scheduler.num_steps
    torch.cuda.synchronize()
    start = time.perf_counter()
    outputs = llm.generate(prompts, sampling)
    seconds = time.perf_counter() - start
    return seconds, sum(len(o.outputs[0].token_ids) for o in outputs), llm.engine.scheduler.num_steps - before


@contextmanager
def spread_drafts() -> Iterator[None]:
    """Makes engines built inside the context draft tokens that differ from position to position."""
    original = ChainDrafter.choose_drafts

    def pick(drafter: ChainDrafter, logits: torch.Tensor, batch: StepBatch, position: torch.Tensor) -> torch.Tensor:
        return (original(drafter, logits, batch, position) + position * 7919) % drafter.table.vocab_size

    ChainDrafter.choose_drafts = pick  # type: ignore[method-assign]
    try:
        yield
    finally:
        ChainDrafter.choose_drafts = original  # type: ignore[method-assign]


def skew_routers(llm: LLM) -> None:
    """Make most tokens choose the first experts; changes weights in place, so that captured graphs see it."""
    for module in llm.engine.worker.model.modules():
        if isinstance(module, (MoE, GroupedMoE)):
            count = module.config.num_experts
            weight = (module.router if isinstance(module, MoE) else module.gate).weight
            scale = torch.linspace(0.0, -SKEW, count, device=weight.device).exp().unsqueeze(1)
            weight.data[:count] *= scale.to(weight.dtype)


def distinct_experts(llm: LLM, count: int) -> float:
    """Distinct experts of a layer, on average over the decoding steps of a short run without graphs."""
    worker = llm.engine.worker
    kernels, num_tokens = worker.kernels, count * (1 + llm.engine.config.num_speculative_tokens)
    moe = worker.model_config.moe
    name = "route" if moe is None or moe.grouped is None else "route_grouped"
    route, graphs = getattr(kernels, name), worker.graphs
    seen: list[torch.Tensor] = []

    def counting(logits: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        routing = route(logits, *arguments, **options)
        if logits.shape[0] == num_tokens:
            is_chosen = torch.zeros(logits.shape[1], device=logits.device)
            seen.append(is_chosen.index_fill_(0, routing.ids.flatten().long(), 1.0).sum())
        return routing

    setattr(kernels, name, counting)
    worker.graphs = None
    try:
        timed(llm, count, 25)
    finally:
        setattr(kernels, name, route)
        worker.graphs = graphs
    return torch.stack(seen).mean().item()


def profile(llm: LLM, count: int, path: str) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as prof:
        timed(llm, count, 24)
    with open(path, "a") as file:
        file.write(f"\n{count} requests\n")
        file.write(prof.key_averages().table(sort_by="cuda_time_total", row_limit=60, max_name_column_width=70))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, default="a")
    parser.add_argument("--concurrency", default="1,8,64")
    parser.add_argument("--drafter", default="none,eagle3")
    parser.add_argument("--profile")
    parser.add_argument("--random", action="store_true", help="also temperature 0.8 with top-p 0.95")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.concurrency.split(",")]
    samplings: dict[str, dict[str, Any]] = {"greedy": {}}
    if arguments.random:
        samplings["T 0.8, top-p 0.95"] = {"temperature": 0.8, "top_p": 0.95, "seed": 1}
    workload = WORKLOADS[arguments.workload]
    tables = []
    with tempfile.TemporaryDirectory() as name:
        write_configs(Path(name), workload)
        for drafter in arguments.drafter.split(","):
            with spread_drafts() if drafter == "eagle3-spread" else nullcontext():
                tables.append(decoding(Path(name), drafter, counts, samplings, profile_path=arguments.profile))
            gc.collect()
            torch.cuda.empty_cache()
    has_experts = bool({"num_experts", "num_local_experts", "n_routed_experts"} & workload.target.keys())
    save(
        workload.results,
        workload.title,
        tables,
        " ".join((__doc__ or "").split("\n\n")[1 : 3 if has_experts else 2]),
        f"python3 -m benchmarks.decode --workload {arguments.workload} --drafter {arguments.drafter}",
    )


def decoding(
    directory: Path,
    drafter: str,
    counts: Sequence[int],
    samplings: Mapping[str, dict[str, Any]],
    *,
    profile_path: str | None,
) -> Table:
    """One drafter, all numbers of requests."""
    start = time.perf_counter()
    llm = make(directory, drafter, max(counts), is_synthetic=True)
    print(f"ready in {time.perf_counter() - start:.1f} s", flush=True)
    for key, value in describe(llm.engine.worker):
        print(f"  {key}: {value}")
    has_experts = llm.engine.worker.model_config.moe is not None
    columns = ["requests", "sampling", "tokens/s", "ms a step", "tokens a step and request", "prefill + first, s"]
    if has_experts:
        columns[2:2] = ["routing", "distinct experts"]
    else:
        columns.append("% of the byte limit")
    table = Table(f"Decoding, {drafter}", columns)
    for routing in ("even", "skewed") if has_experts else ("",):
        if routing == "skewed":
            skew_routers(llm)
        for count in counts:
            for label, params in samplings.items():
                experts = [routing, f"{distinct_experts(llm, count):.1f}"] if has_experts else []
                figures = measured(llm, count, params)
                if not has_experts:
                    num_bytes = bytes_per_step(llm.engine, num_requests=count, mean_length=PROMPT + OUTPUT / 2)
                    figures.append(f"{num_bytes / READ_BANDWIDTH / float(figures[1]) * 1e5:.0f}")
                table.add(count, label, *experts, *figures)
                if profile_path and label == "greedy":
                    profile(llm, count, profile_path)
    return table


def measured(llm: LLM, count: int, params: dict[str, Any]) -> list[str]:
    """tokens/s, ms a step, tokens a step and request, seconds to the first token: medians of three runs."""
    timed(llm, count, OUTPUT, **params)
    timed(llm, count, 1, **params)
    rates, steps_ms, firsts, per_step = [], [], [], []
    for _ in range(3):
        first, _, first_steps = timed(llm, count, 1, **params)
        seconds, num_tokens, steps = timed(llm, count, OUTPUT, **params)
        decoding = seconds - first
        rates.append((num_tokens - count) / decoding)
        steps_ms.append(decoding / (steps - first_steps) * 1e3)
        per_step.append((num_tokens - count) / (steps - first_steps) / count)
        firsts.append(first)
    medians = [statistics.median(values) for values in (rates, steps_ms, per_step, firsts)]
    return [f"{value:.{digits}f}" for value, digits in zip(medians, (1, 3, 3, 3), strict=True)]


if __name__ == "__main__":
    main()
