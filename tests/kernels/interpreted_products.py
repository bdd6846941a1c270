"""Products of 16-bit numbers of the portable stack in the interpreter: near the exact ones, and a token's bits the
same for every number of tokens, tile and way of working.

A program, not a test file: the interpreter is chosen by an environment variable before Triton is imported.
`test_interpreter_products.py` runs it.
"""

import torch

from outrider.kernels import Kernels, load_kernels
from outrider.kernels.interface.clamped import ClampedForm
from outrider.kernels.triton import linear as module
from outrider.kernels.triton.experts import empty_expert_weights
from outrider.kernels.triton.linear import Work, empty_weight, linear, num_segments
from tests.kernels.ordered_products import use_ordered_products

CPU = torch.device("cpu")
PORTABLE, PLAIN = load_kernels(("triton",)), load_kernels(("reference",))


def error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


def check_linear(output_size: int, input_size: int, dtype: torch.dtype) -> None:
    weight = empty_weight(output_size, input_size, dtype=dtype, device=CPU)
    weight.copy_(torch.randn(output_size, input_size) * input_size**-0.5)
    x, bias = torch.randn(70, input_size).to(dtype), torch.randn(output_size).to(dtype)
    everything = linear(x, weight, bias, out_dtype=torch.float32)
    assert error(everything, x.double() @ weight.double().T + bias.double()) < 1e-6
    for num_tokens in (1, 17, 33):
        out = linear(x[:num_tokens], weight, bias, out_dtype=torch.float32)
        assert torch.equal(out, everything[:num_tokens]), f"{num_tokens} tokens"
    segments, choose = num_segments(output_size, input_size), module.choose_work
    works = [Work(tile, across) for tile in module._LARGE[:3] for across in range(1, segments + 1)]
    for work in works:
        module.choose_work = lambda *_, work=work, **__: work
        out = linear(x, weight, bias, out_dtype=torch.float32)
        assert torch.equal(out, everything), f"{work}"
    module.choose_work = choose


def check_experts(dtype: torch.dtype, *, is_clamped: bool) -> None:
    """Tokens alone, in a crowd that needs no gathering, and in one that does."""
    num_experts, top_k, hidden_size, width = 5, 2, 96, 40
    gate_up = empty_expert_weights(num_experts, 2 * width, hidden_size, dtype=dtype, device=CPU)
    down = empty_expert_weights(num_experts, hidden_size, width, dtype=dtype, device=CPU)
    gate_up.copy_(torch.randn(gate_up.shape) * hidden_size**-0.5)
    down.copy_(torch.randn(down.shape) * width**-0.5)
    x, logits = torch.randn(30, hidden_size).to(dtype), torch.randn(30, num_experts)

    biases = [torch.randn(num_experts, columns).to(dtype) for columns in (2 * width, hidden_size)]
    form = ClampedForm(gate_up_bias=biases[0], down_bias=biases[1], alpha=1.702, limit=1.5)

    def outputs(start: int, stop: int, stack: Kernels = PORTABLE) -> torch.Tensor:
        weights = (x[start:stop], gate_up, down, stack.route(logits[start:stop], top_k=top_k, is_normalized=True))
        return stack.clamped_experts(*weights, form) if is_clamped else stack.experts(*weights)

    everything = outputs(0, 30)
    # plain PyTorch rounds where these do
    assert error(everything, outputs(0, 30, PLAIN).double()) < 1e-3
    assert torch.equal(outputs(3, 10), everything[3:10]), "seven tokens"
    for i in (0, 3, 29):
        assert torch.equal(outputs(i, i + 1), everything[i : i + 1]), f"token {i} alone"


torch.manual_seed(0)
use_ordered_products()
for wide_or_not in (torch.float16, torch.bfloat16):
    check_linear(70, 100, wide_or_not)
check_linear(64, 2100, torch.bfloat16)
for clamped_or_not in (False, True):
    check_experts(torch.float16, is_clamped=clamped_or_not)  # the interpreter cuts bf16 off instead of rounding to it
print("all equal")
