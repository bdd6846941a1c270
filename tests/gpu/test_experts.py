"""The mixture of experts: a token has the bits of its experts' dense layers, in every batch and every routing."""

import pytest
import torch
from torch import Tensor

from outrider.kernels.triton import routing as routing_module
from outrider.kernels.triton.activation import silu_and_mul
from outrider.kernels.triton.routing import Routing, route
from tests.kernels import interpreted_routing

from .comparison import relative_rms, replayed
from .stack import kernel_module

module = kernel_module("experts")
empty_expert_weights, experts = module.empty_expert_weights, module.experts
linear = kernel_module("linear").linear

# name: (experts, experts of a token, hidden, width)
SHAPES = {
    "qwen3 moe": (128, 8, 2048, 768),
    "gpt-oss": (32, 4, 2880, 2880),
    "odd": (5, 3, 200, 72),
    "one expert": (1, 1, 128, 64),
    "more for a token than are read from the choice": (40, 20, 256, 136),
    "ten of each, odd": (30, 10, 328, 200),
}
COUNTS = (1, 2, 7, 8, 9, 16, 33, 64, 100, 257)


class Layer:
    """Random weights, tokens and router logits."""

    def __init__(self, shape: tuple[int, int, int, int], num_tokens: int) -> None:
        self.num_experts, self.top_k, self.hidden, self.width = shape
        device, dtype = torch.device("cuda"), torch.bfloat16
        make = {"dtype": dtype, "device": device}
        self.gate_up = empty_expert_weights(self.num_experts, 2 * self.width, self.hidden, **make)
        self.down = empty_expert_weights(self.num_experts, self.hidden, self.width, **make)
        self.gate_up.normal_(std=self.hidden**-0.5)
        self.down.normal_(std=self.width**-0.5)
        self.x = torch.randn(num_tokens, self.hidden, device=device).to(dtype)
        self.logits = torch.randn(num_tokens, self.num_experts, device=device)

    def route(self, logits: Tensor) -> Routing:
        return route(logits, top_k=self.top_k, is_normalized=True)

    def run(self, x: Tensor, logits: Tensor) -> Tensor:
        return experts(x, self.gate_up, self.down, self.route(logits))

    def dense(self, x: Tensor, logits: Tensor) -> Tensor:
        """Expert by expert through the dense kernels; the sum in double, each step rounded to fp32 as in an fma."""
        routing = self.route(logits)
        of_slots = x.new_full((*routing.ids.shape, self.hidden), float("nan"))
        for i in range(self.num_experts):
            tokens, slots = (routing.ids == i).nonzero(as_tuple=True)
            inner = silu_and_mul(linear(x[tokens], self.gate_up[i]))
            of_slots[tokens, slots] = linear(inner, self.down[i])
        total = torch.zeros(len(x), self.hidden, device=x.device)
        for i in range(self.top_k):
            total = (routing.weights[:, i : i + 1].double() * of_slots[:, i].double() + total.double()).float()
        return total.to(x.dtype)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def layer(request: pytest.FixtureRequest) -> Layer:
    torch.manual_seed(1)
    return Layer(request.param, 1000)


def test_a_token_has_the_bits_of_dense_layers_in_every_batch(layer: Layer) -> None:
    expected = layer.dense(layer.x, layer.logits)
    assert not expected.isnan().any()
    assert torch.equal(layer.run(layer.x, layer.logits), expected)
    for num_tokens in COUNTS:
        rows = torch.randperm(1000, device="cuda")[:num_tokens]
        assert torch.equal(layer.run(layer.x[rows], layer.logits[rows]), expected[rows]), f"{num_tokens} tokens"


def test_no_routing_of_others_changes_a_bit(layer: Layer) -> None:
    """Token 3 keeps its experts; the others crowd on the same ones, on one, or spread."""
    for num_tokens in (4, 8, 24, 64, 300):
        x = layer.x[:num_tokens]
        alone = layer.run(x[3:4], layer.logits[3:4])
        spread = (torch.arange(layer.num_experts) - torch.arange(num_tokens).unsqueeze(1)) % layer.num_experts
        for others in (layer.logits[3:4], torch.eye(layer.num_experts)[-1:] * 50, -spread.float()):
            logits = others.cuda().expand(num_tokens, -1).clone()
            logits[3] = layer.logits[3]
            out = layer.run(x, logits)
            assert torch.equal(out[3:4], alone), f"{num_tokens} tokens"
            assert torch.equal(out, layer.dense(x, logits)), f"{num_tokens} tokens"


def test_no_choice_of_tile_changes_a_bit(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = layer.run(layer.x, layer.logits)
    for tile in (16, 32, 64, 128):
        monkeypatch.setattr(routing_module, "choose_tile", lambda *_, tile=tile, **__: tile)
        for num_tokens in (9, 64, 1000):
            out = layer.run(layer.x[:num_tokens], layer.logits[:num_tokens])
            assert torch.equal(out, expected[:num_tokens]), f"tiles of {tile}, {num_tokens} tokens"


def test_the_same_again_and_again(layer: Layer) -> None:
    """Rows of down wait for those of gate and up inside one kernel: a race would show in some run."""
    for num_tokens in (1, 8, 64, 300):
        x, logits = layer.x[:num_tokens], layer.logits[:num_tokens]
        expected = layer.run(x, logits)
        outs = [layer.run(x, logits) for _ in range(40)]
        assert all(torch.equal(out, expected) for out in outs), f"{num_tokens} tokens"


def test_a_token_of_nan_touches_no_other(layer: Layer) -> None:
    for num_tokens in (5, 40, 300):
        x, logits = layer.x[:num_tokens].clone(), layer.logits[:num_tokens].clone()
        expected = layer.run(x, logits)
        x[2], logits[2] = float("nan"), float("nan")
        out = layer.run(x, logits)
        others = torch.arange(num_tokens) != 2
        assert out[2].isnan().all()
        assert torch.equal(out[others], expected[others])


def test_strided_and_unaligned_input(layer: Layer) -> None:
    for num_tokens in (6, 40):
        x, logits = layer.x[:num_tokens], layer.logits[:num_tokens]
        expected = layer.run(x, logits)
        nan = float("nan")
        wide = torch.full((num_tokens, layer.hidden + 19), nan, device="cuda", dtype=torch.bfloat16)
        wide_logits = torch.full((num_tokens, layer.num_experts + 5), nan, device="cuda")[:, 3 : 3 + layer.num_experts]
        for place in (0, 8, 3):
            view = wide[:, place : place + layer.hidden]
            assert torch.equal(layer.run(view.copy_(x), wide_logits.copy_(logits)), expected)
            wide.fill_(nan)


def test_no_tokens(layer: Layer) -> None:
    assert layer.run(layer.x[:0], layer.logits[:0]).shape == (0, layer.hidden)


@pytest.mark.parametrize("num_tokens", [1, 8, 9, 64, 300])
def test_a_captured_chain_of_layers_with_other_tokens_and_routings(layer: Layer, num_tokens: int) -> None:
    x, logits = layer.x[:num_tokens].clone(), layer.logits[:num_tokens].clone()
    other, other_logits = layer.x[-num_tokens:], layer.logits[-num_tokens:]

    def run(x: Tensor, logits: Tensor) -> Tensor:
        for i in range(4):
            x = layer.run(x, logits.roll(i, dims=1))
        return x

    expected = other
    for i in range(4):
        expected = layer.dense(expected, other_logits.roll(i, dims=1))
        torch.cuda.synchronize()

    def change() -> None:
        x.copy_(other)
        logits.copy_(other_logits)

    assert torch.equal(replayed(lambda: run(x, logits), change), expected)


def test_close_to_double_precision() -> None:
    layer = Layer((16, 4, 512, 384), 77)
    routing = layer.route(layer.logits)
    total = torch.zeros(77, 512, device="cuda", dtype=torch.float64)
    for slot in range(4):
        for i in range(77):
            expert = routing.ids[i, slot]
            gate, up = (layer.gate_up[expert].double() @ layer.x[i].double()).chunk(2)
            row = layer.down[expert].double() @ (torch.nn.functional.silu(gate) * up)
            total[i] += routing.weights[i, slot].double() * row
    assert relative_rms(layer.run(layer.x, layer.logits), total) <= 6e-3


def test_the_router_and_its_lists() -> None:
    assert interpreted_routing.check_routing(torch.device("cuda"), interpreted_routing.CASES) == {}


def test_weights_over_all_experts_have_the_same_bits_in_every_batch() -> None:
    logits = torch.randn(1000, 128, device="cuda")
    for is_normalized in (True, False):
        expected = route(logits, top_k=8, is_normalized=is_normalized)
        for num_tokens in (1, 3, 8, 9, 100):
            rows = torch.randperm(1000, device="cuda")[:num_tokens]
            made = route(logits[rows], top_k=8, is_normalized=is_normalized)
            assert torch.equal(made.weights, expected.weights[rows])
            assert torch.equal(made.ids, expected.ids[rows])
