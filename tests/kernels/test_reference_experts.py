"""The mixture of experts in plain PyTorch: against transformers, ties, and rows that do not see each other.

And the router's Triton kernels in the interpreter: their lists of work against what they must say.
"""

import json

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from outrider.kernels.interface.clamped import ClampedForm
from outrider.kernels.reference.experts import clamped_experts, empty_expert_weights, experts
from outrider.kernels.reference.linear import linear
from outrider.kernels.reference.routing import route
from tests.kernels.interpreter import run_interpreted

HIDDEN, WIDTH, NUM_EXPERTS, TOP_K = 64, 48, 8, 3


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _weights(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    device = torch.device("cpu")
    gate_up = empty_expert_weights(NUM_EXPERTS, 2 * WIDTH, HIDDEN, dtype=dtype, device=device)
    down = empty_expert_weights(NUM_EXPERTS, HIDDEN, WIDTH, dtype=dtype, device=device)
    gate_up.copy_(_random(*gate_up.shape, seed=1) * HIDDEN**-0.5)
    down.copy_(_random(*down.shape, seed=2) * WIDTH**-0.5)
    return gate_up, down


@pytest.mark.parametrize("is_normalized", [True, False])
def test_equals_the_block_of_transformers(is_normalized):
    config = Qwen3MoeConfig(
        hidden_size=HIDDEN,
        moe_intermediate_size=WIDTH,
        num_experts=NUM_EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=is_normalized,
    )
    block = Qwen3MoeSparseMoeBlock(config)
    gate_up, down = _weights()
    router, x = _random(NUM_EXPERTS, HIDDEN, seed=3), _random(37, HIDDEN)
    with torch.no_grad():
        block.gate.weight.copy_(router)
        block.experts.gate_up_proj.copy_(gate_up)
        block.experts.down_proj.copy_(down)
        expected = block(x.unsqueeze(0))
    expected = expected[0] if isinstance(expected, tuple) else expected
    routing = route(linear(x, router), top_k=TOP_K, is_normalized=is_normalized)
    actual = experts(x, gate_up, down, routing)
    torch.testing.assert_close(actual, expected.squeeze(0), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("is_normalized", [True, False])
def test_ties_go_to_the_lower_expert(is_normalized):
    logits = torch.tensor([[1.0, 3.0, 3.0, -0.0, 3.0, 0.0], [0.0, -0.0, 0.0, -0.0, -0.0, 0.0]])
    routing = route(logits, top_k=4, is_normalized=is_normalized)
    assert routing.ids.tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]
    probabilities = logits.double().softmax(dim=1).gather(1, routing.ids.long())
    if is_normalized:
        probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    torch.testing.assert_close(routing.weights.double(), probabilities, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_normalized", [True, False])
def test_rows_do_not_see_each_other(rows_are_invariant, dtype, is_normalized):
    gate_up, down = _weights(dtype)
    router = _random(NUM_EXPERTS, HIDDEN, seed=3).to(dtype)

    def run(x: Tensor) -> Tensor:
        logits = linear(x, router, out_dtype=torch.float32)
        return experts(x, gate_up, down, route(logits, top_k=TOP_K, is_normalized=is_normalized))

    rows_are_invariant(run, _random(110, HIDDEN).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_with_biases_do_not_see_each_other(rows_are_invariant, dtype):
    gate_up, down = _weights(dtype)
    router = _random(NUM_EXPERTS, HIDDEN, seed=3).to(dtype)
    biases = {"gate_up_bias": _random(NUM_EXPERTS, 2 * WIDTH, seed=4).to(dtype)}
    biases["down_bias"] = _random(NUM_EXPERTS, HIDDEN, seed=5).to(dtype)
    form = ClampedForm(**biases, alpha=1.702, limit=1.5)

    def run(x: Tensor) -> Tensor:
        logits = linear(x, router, out_dtype=torch.float32)
        return clamped_experts(x, gate_up, down, route(logits, top_k=TOP_K, is_normalized=True), form)

    rows_are_invariant(run, _random(110, HIDDEN).to(dtype))


def test_a_crowded_expert_drops_nothing_and_changes_nothing():
    gate_up, down = _weights()
    x = _random(50, HIDDEN)
    logits = _random(50, NUM_EXPERTS, seed=5)
    crowded = logits.clone()
    crowded[1:] = torch.arange(NUM_EXPERTS).float()
    alone = experts(x[:1], gate_up, down, route(logits[:1], top_k=TOP_K, is_normalized=True))
    together = experts(x, gate_up, down, route(crowded, top_k=TOP_K, is_normalized=True))
    assert torch.equal(together[:1], alone)
    for i in (1, 30, 49):
        routing = route(crowded[i : i + 1], top_k=TOP_K, is_normalized=True)
        assert torch.equal(together[i : i + 1], experts(x[i : i + 1], gate_up, down, routing))


def test_a_token_of_nan_touches_no_other():
    gate_up, down = _weights()
    x, logits = _random(20, HIDDEN), _random(20, NUM_EXPERTS, seed=5)
    expected = experts(x, gate_up, down, route(logits, top_k=TOP_K, is_normalized=True))
    x[7], logits[7] = float("nan"), float("nan")
    routing = route(logits, top_k=TOP_K, is_normalized=True)
    assert routing.ids[7].tolist() == [0, 1, 2]
    actual = experts(x, gate_up, down, routing)
    assert actual[7].isnan().all()
    others = torch.arange(20) != 7
    assert torch.equal(actual[others], expected[others])


def test_no_tokens():
    gate_up, down = _weights()
    routing = route(torch.empty(0, NUM_EXPERTS), top_k=TOP_K, is_normalized=True)
    assert experts(torch.empty(0, HIDDEN), gate_up, down, routing).shape == (0, HIDDEN)


@pytest.fixture(scope="module")
def failed() -> dict[str, str]:
    return json.loads(run_interpreted("interpreted_routing.py"))


@pytest.mark.slow
@pytest.mark.parametrize("check", ["choice", "records", "gather", "combine"])
def test_the_interpreted_router_is_right(check, failed):
    assert check not in failed, failed[check]
