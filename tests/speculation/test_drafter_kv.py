"""The drafter's KV at every known index equals, bit for bit, what a clean prefill of the same tokens gives.

Whatever happened before: drafts rejected after 0 … k, prompts in chunks, a prefix-cache hit, preemption.
"""

import functools

import pytest
import torch

from outrider import LLM, SamplingParams
from outrider.core import plugins
from outrider.scheduler.request_state import RequestState
from outrider.speculation import drafters
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.module_chain import ModuleChain
from tests.support import request_mix, tiny_drafters
from tests.support.changing_drafts import change_drafts
from tests.support.half_right_drafts import make_half_right
from tests.support.prediction_modules import write_deep_mimo, write_latent
from tests.support.tiny_drafters import TinyDrafter

K = 3
GREEDY = SamplingParams(temperature=0.0, max_tokens=120, ignore_eos=True)


CHAIN_DRAFTERS = [
    name
    for name in plugins.names(drafters)
    if issubclass(plugins.find(drafters, name, what="drafter").Drafter, ChainDrafter)
]


SIZES = {"vocab_size": request_mix.VOCAB, "eos_token_id": request_mix.EOS, "seed": 3, "max_position_embeddings": 512}
MODULES = {
    "mtp, 3 modules": lambda directory: write_deep_mimo(directory, num_modules=3, **SIZES),
    "mtp, 2 modules of latent attention": lambda directory: write_latent(directory, num_modules=2, **SIZES),
}
"""Other targets of the drafter mtp."""
LIKE_ANOTHER = ("eagle",)
"""Drafters that differ from a faster one in the features that they read only."""
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (*LIKE_ANOTHER, *MODULES)]
FAST = [name for name in CHAIN_DRAFTERS if name not in LIKE_ANOTHER]


@pytest.fixture(scope="module", params=[*FAST, *SLOW])
def tiny(request, tmp_path_factory) -> TinyDrafter:
    directory = tmp_path_factory.mktemp(request.param.partition(",")[0])
    if request.param in MODULES:
        MODULES[request.param](directory)
        return TinyDrafter(target=directory, config={"method": "mtp"})
    return tiny_drafters.write(request.param, directory)


def _make(tiny: TinyDrafter, **options) -> LLM:
    config = tiny.config | {"num_speculative_tokens": K}
    options = {"overlap_depth": 0, "max_num_seqs": 4} | options
    return LLM(str(tiny.target), skip_tokenizer_init=True, speculative_config=config, **options)


def _prompt(count: int, seed: int) -> list[int]:
    return torch.randint(3, request_mix.VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module")
def answers(tiny):
    """Outputs of the target for prompts, each generated once."""
    plain = LLM(str(tiny.target), skip_tokenizer_init=True)
    params = SamplingParams(temperature=0.0, max_tokens=90, ignore_eos=True)

    @functools.cache
    def ask(*prompts: tuple[int, ...]) -> list[tuple[tuple[int, ...], list[int]]]:
        outputs = plain.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], params)
        return [(prompt, output.outputs[0].token_ids) for prompt, output in zip(prompts, outputs, strict=True)]

    return ask


@pytest.fixture
def half_right(answers, monkeypatch):
    """Makes drafts right or wrong by position, so that every accepted count occurs; told the prompts."""

    def know(*prompts: list[int]) -> None:
        make_half_right(monkeypatch, answers(*map(tuple, prompts)))

    return know


def _start(llm: LLM, prompt: list[int]) -> RequestState:
    request = llm.engine.new_request({"prompt_token_ids": prompt}, GREEDY)
    llm.engine.add(request)
    state = llm.engine.scheduler.find(request.request_id)
    assert state is not None
    return state


def _run_until(llm: LLM, request: RequestState, num_output: int) -> None:
    while request.num_output_tokens < num_output:
        assert llm.engine.has_work, f"the request ended after {request.num_output_tokens} tokens"
        llm.engine.step()


def _parts(cache: object) -> list[torch.Tensor]:
    """K and V of a layer, or its latent rows."""
    return [part for name in cache.__dataclass_fields__ if isinstance(part := getattr(cache, name), torch.Tensor)]


def _drafter_kv(llm: LLM, request: RequestState) -> list[torch.Tensor]:
    """K and V of every layer at the indices up to num_tokens - 1 of a running request. Each module of several has a
    first index of its own."""
    drafter = llm.engine.worker.drafter
    num_masked = range(len(drafter.caches)) if isinstance(drafter, ModuleChain) else [0] * len(drafter.caches)
    found = []
    for count, cache in zip(num_masked, drafter.caches, strict=True):
        index = torch.arange(drafter.first_index + count, request.num_tokens)
        slots = torch.tensor(request.block_ids)[index // 16] * 16 + index % 16
        found += [part.flatten(0, 1)[slots] for part in _parts(cache)]
    return found


def _stale_parts(tiny, llm: LLM, request: RequestState) -> list[int]:
    """Numbers of the parts (K and V by layer) that differ from those of an engine that prefills the same tokens."""
    clean = _make(tiny, enable_prefix_caching=False)
    fresh = _start(clean, list(request.token_ids))
    _run_until(clean, fresh, 1)
    pairs = zip(_drafter_kv(llm, request), _drafter_kv(clean, fresh), strict=True)
    return [part for part, (ours, wanted) in enumerate(pairs) if not torch.equal(ours, wanted[: len(ours)])]


@pytest.mark.parametrize("budget", [512, 7])
def test_after_partial_acceptance(tiny, half_right, budget):
    prompt = _prompt(41, 1)
    half_right(prompt)
    llm = _make(tiny, max_num_batched_tokens=budget)
    request = _start(llm, prompt)
    accepted = set()
    for num_output in range(1, 70):
        before = request.speculation.num_accepted_tokens
        _run_until(llm, request, num_output)
        accepted.add(request.speculation.num_accepted_tokens - before)
    assert accepted == set(range(K + 1))
    assert _stale_parts(tiny, llm, request) == []


def test_kv_of_drafted_states_is_found(tiny, half_right, monkeypatch):
    """A leak put in: rows of accepted drafts keep what the loop wrote from its own states (vLLM #14649, #21799)."""
    if tiny.config["method"] == "draft_model":
        pytest.skip("its KV depends on tokens alone")
    originals = {ModuleChain: ModuleChain.propose, ChainDrafter: ChainDrafter.propose}

    def propose(drafter, batch, *, hidden, verified):
        parts = [part for cache in drafter.caches for part in _parts(cache)]
        before = [part.clone() for part in parts]
        original = next(function for kind, function in originals.items() if isinstance(drafter, kind))
        drafts = original(drafter, batch, hidden=hidden, verified=verified)
        for row, start, count in zip(batch.rows, batch.row_starts, verified.num_accepted.tolist(), strict=True):
            for index in range(1, min(count, K - 1) + 1):
                place = int(batch.forward.positions[start]) + index
                block = drafter.table.block_tables[0][row, place // 16]
                for part, old in zip(parts, before, strict=True):
                    part[block, place % 16] = old[block, place % 16]
        return drafts

    for kind in originals:
        monkeypatch.setattr(kind, "propose", propose)
    prompt = _prompt(41, 1)
    half_right(prompt)
    llm = _make(tiny)
    request = _start(llm, prompt)
    _run_until(llm, request, 40)
    assert _stale_parts(tiny, llm, request)


@pytest.mark.parametrize("num_shared", [pytest.param(16, marks=pytest.mark.slow), 30, 48])
def test_behind_a_prefix_hit(tiny, half_right, num_shared):
    """The block's last token is followed by another token than the one it was first computed with."""
    first = _prompt(60, 2)
    second = first[:num_shared] + _prompt(20, 3)
    half_right(first, second)
    llm = _make(tiny)
    running = _start(llm, first)
    _run_until(llm, running, 20)
    hit = _start(llm, second)
    _run_until(llm, hit, 20)
    assert hit.num_cached_tokens == num_shared // 16 * 16
    assert _stale_parts(tiny, llm, hit) == []
    assert _stale_parts(tiny, llm, running) == []


def test_after_preemption(tiny, half_right):
    prompts = [_prompt(30, seed) for seed in (4, 5, 6)]
    half_right(*prompts)
    llm = _make(tiny, num_gpu_blocks_override=14)
    requests = [_start(llm, prompt) for prompt in prompts]
    _run_until(llm, requests[0], 85)
    while llm.engine.scheduler.num_preemptions == 0 or requests[2].num_output_tokens < 70:
        llm.engine.step()
    assert _stale_parts(tiny, llm, requests[2]) == []
    assert requests[2].num_preemptions > 0


@pytest.mark.parametrize(
    ("depth", "budget"),
    [(0, 7), (1, 512), pytest.param(0, 512, marks=pytest.mark.slow), pytest.param(1, 7, marks=pytest.mark.slow)],
)
def test_with_another_number_of_drafts_in_every_step(tiny, half_right, depth, budget):
    """0 drafts write no row ahead, and the true rows all the same."""
    first = _prompt(41, 7)
    second = first[:16] + _prompt(20, 8)
    half_right(first, second)
    llm = _make(tiny, overlap_depth=depth, max_num_batched_tokens=budget)
    policy = change_drafts(llm, K)
    running = _start(llm, first)
    _run_until(llm, running, 30)
    hit = _start(llm, second)
    _run_until(llm, hit, 40)
    assert hit.num_cached_tokens == 16
    assert {0, 1, 2, 3} == set(policy.chosen)
    assert running.speculation.num_accepted_tokens > 0 and hit.speculation.num_accepted_tokens > 0
    assert _stale_parts(tiny, llm, hit) == []
    assert _stale_parts(tiny, llm, running) == []
