"""Kernel stacks: found by listing folders, joined in an order, refused by name; a third one is a folder."""

import inspect
import sys
from pathlib import Path

import pytest
import torch

import outrider.kernels as package
from outrider import LLM, SamplingParams
from outrider.core.errors import ConfigError
from outrider.kernels import FUNCTIONS, Kernels, describe_stacks, load_kernels, stack_names
from outrider.kernels.reference import norm
from outrider.platforms.cpu import Platform
from outrider.runtime.describe import describe

ZOO = Path(__file__).parents[2] / "zoo"

NORM = """
from outrider.kernels.reference.norm import add_rms_norm as plain_add
from outrider.kernels.reference.norm import rms_norm as plain

calls = []

def rms_norm(x, weight, eps, *, plus_one=False, casts_last=False):
    calls.append(tuple(x.shape))
    return plain(x, weight, eps, plus_one=plus_one)
"""


def test_a_stack_is_a_folder() -> None:
    assert stack_names() == ["hopper", "reference", "triton"]


@pytest.mark.parametrize("order", [("reference",), ("triton",), ("hopper", "triton")], ids=" ".join)
def test_orders_are_complete_and_have_the_signatures_of_the_interface(order: tuple[str, ...]) -> None:
    kernels = load_kernels(order)
    assert len(FUNCTIONS) > 30 and set(kernels.origins.values()) == set(order)
    for name in FUNCTIONS:
        promised = list(inspect.signature(getattr(Kernels, name)).parameters.values())[1:]
        built = inspect.signature(getattr(kernels, name)).parameters.values()
        expected = [(p.name, p.kind, p.default) for p in promised]
        assert [(p.name, p.kind, p.default) for p in built] == expected, name


def test_a_third_stack_with_one_function_runs_an_engine(third: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=12)
    expected = LLM(str(ZOO / "tiny"), device="cpu").generate("Once", params)[0].outputs[0].token_ids
    (third / "norm.py").write_text(NORM)
    monkeypatch.setattr(Platform, "kernel_stack", ("third", "reference"))
    llm = LLM(str(ZOO / "tiny"), device="cpu")
    assert llm.generate("Once", params)[0].outputs[0].token_ids == expected
    described = dict(describe(llm.engine.worker))
    assert sys.modules[f"{package.__name__}.third.norm"].calls, "the engine called another stack's rms_norm"
    assert described["kernels"] == f"third (rms_norm), reference (the other {len(FUNCTIONS) - 1})"
    assert "kernel_stack third, reference" in described["platform"]


def test_an_order_takes_each_function_from_the_first_stack_that_has_it(third: Path) -> None:
    (third / "norm.py").write_text(NORM)
    kernels = load_kernels(("third", "reference"))
    assert [name for name, stack in kernels.origins.items() if stack == "third"] == ["rms_norm"]
    assert kernels.rms_norm.__module__ == f"{package.__name__}.third.norm"
    last = load_kernels(("reference", "third"))
    assert set(last.origins.values()) == {"reference"} and describe_stacks(last) == "reference"


def test_functions_in_a_folder_of_the_stack_are_found(third: Path) -> None:
    (third / "deep").mkdir()
    (third / "deep" / "__init__.py").write_text("")
    (third / "deep" / "norm.py").write_text(NORM)
    assert load_kernels(("third", "reference")).origins["rms_norm"] == "third"


def test_imported_functions_are_not_exports_unless_named_so(third: Path) -> None:
    (third / "norm.py").write_text(NORM + "\nadd_rms_norm = plain_add\n")
    assert load_kernels(("third", "reference")).origins["add_rms_norm"] == "reference"
    (third / "norm.py").unlink()
    (third / "plain.py").write_text(NORM + '\nadd_rms_norm = plain_add\n__all__ = ["add_rms_norm"]\n')
    origins = load_kernels(("third", "reference")).origins
    assert (origins["add_rms_norm"], origins["rms_norm"]) == ("third", "reference")


def test_a_replaced_function_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "rms_norm", lambda *_, **__: None)
    assert load_kernels(("reference",)).rms_norm(torch.ones(1, 2), torch.ones(2), 1e-6) is None


def test_two_functions_of_one_name_are_refused(third: Path) -> None:
    (third / "norm.py").write_text(NORM)
    (third / "other.py").write_text(NORM)
    with pytest.raises(ConfigError, match=r"'third' has two functions 'rms_norm', in .*third\.norm and .*third\.other"):
        load_kernels(("third", "reference"))


def test_a_missing_function_is_refused_by_name(third: Path) -> None:
    (third / "norm.py").write_text(NORM)
    with pytest.raises(ConfigError, match=r"kernel_stack=\('third',\) has no empty_weight, linear, .*Name another"):
        load_kernels(("third",))


ROUTING = """
from outrider.kernels.reference.routing import route as plain

def route(logits, *, top_k, is_normalized):
    return plain(logits, top_k=top_k, is_normalized=is_normalized)
"""


def test_functions_that_work_together_come_from_one_stack(third: Path) -> None:
    (third / "routing.py").write_text(ROUTING)
    with pytest.raises(
        ConfigError, match=r"takes route from 'third' and experts from 'reference', which work together"
    ):
        load_kernels(("third", "reference"))


@pytest.mark.parametrize("order", [("vulkan",), ("reference", "vulkan"), ("interface",)])
def test_an_unknown_stack_is_refused_by_name(order: tuple[str, ...]) -> None:
    with pytest.raises(
        ConfigError, match=rf"kernel stack {order[-1]!r} is not known\. Known: hopper, reference, triton"
    ):
        load_kernels(order)


def test_a_layer_runs_on_a_mixed_order(third: Path) -> None:
    (third / "norm.py").write_text(NORM.replace("return plain(", "return 2 * plain("))
    x, weight = torch.randn(3, 8), torch.ones(8)
    mixed, plain = load_kernels(("third", "reference")), load_kernels(("reference",))
    assert torch.equal(mixed.rms_norm(x, weight, 1e-6), 2 * plain.rms_norm(x, weight, 1e-6))
    assert torch.equal(mixed.silu_and_mul(x), plain.silu_and_mul(x))
