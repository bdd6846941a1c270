"""No line on the step's path may wait for the device: a guard on the source, beside the run-time tests.

It sees calls by name. What it cannot see (`if tensor:`, mask indexing, int(tensor)) is for tests that run steps
under PyTorch's sync-debug mode.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "outrider"

ON_THE_PATH = (
    "attention",
    "device",
    "kernels",
    "layers",
    "models",
    "runtime",
    "sampling",
    "speculation",
)

WAITING = {
    "argwhere",
    "begin_memory_measurement",
    "cpu",
    "end_memory_measurement",
    "item",
    "masked_select",
    "nonzero",
    "numpy",
    "pin_memory",
    "pinned",
    "synchronize",
    "tolist",
    "unique",
}
"""Calls that read a device value on the host, make a shape that depends on one, or pin memory off the ring."""

ALLOWED = {
    ("device/graphs.py", "_median_seconds", "synchronize"): "once, before there are requests",
    ("device/readback.py", "unpack", "tolist"): "of data that is on the host: `Handle.wait` has waited",
    ("device/readback.py", "_extras", "tolist"): "likewise",
    ("device/readback.py", "PooledNumbers.read", "numpy"): "likewise",
    ("device/readback.py", "Handle.wait", "synchronize"): "the one place that waits, one step late",
    ("device/staging.py", "PinnedSlot.__init__", "numpy"): "of pinned memory, which is on the host",
    (
        "device/staging.py",
        "PinnedSlot.__init__",
        "pinned",
    ): "the ring's own memory, allocated before there are requests",
    (
        "kernels/triton/attention_plan.py",
        "_to_device",
        "pin_memory",
    ): "tiles of a new shape of step, kept for the next one; PyTorch's cache gives the page back without waiting",
    ("kernels/reference/host_counts.py", "host_counts", "tolist"): "plain PyTorch on a CPU, where nothing waits",
    ("kernels/reference/text_attention.py", "plan_texts", "tolist"): "likewise",
    ("kernels/reference/experts.py", "mixture", "nonzero"): "plain PyTorch on a CPU, where nothing waits",
    ("runtime/memory.py", "MemoryMeasurement.__init__", "begin_memory_measurement"): "once, before there are requests",
    ("runtime/memory.py", "MemoryMeasurement.kv_budget", "end_memory_measurement"): "once, before there are requests",
    ("speculation/drafters/eagle3.py", "_draft_token_ids", "cpu"): "once, when the head is loaded",
    ("layers/formats/pack_quantized.py", "Format.slots.check_shape", "tolist"): "once, when weights are loaded",
    ("speculation/drafters/eagle3.py", "_draft_token_ids", "nonzero"): "once, when the head is loaded",
}
"""(file, function, call) to the reason."""


def calls_of(node: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(qualified name of the function, name called) for every call that waits."""
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            inner = (*scope, child.name)
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            name = child.func.attr
            is_one_argument_where = name == "where" and len(child.args) == 1 and not child.keywords
            if name in WAITING or is_one_argument_where:
                yield ".".join(scope), name
            if any(keyword.arg == "pin_memory" for keyword in child.keywords):
                yield ".".join(scope), "pin_memory"
            if name == "to" and any(isinstance(entry, ast.Constant) and entry.value == "cpu" for entry in child.args):
                yield ".".join(scope), "to cpu"
        yield from calls_of(child, inner)


@cache
def found() -> set[tuple[str, str, str]]:
    calls = set()
    for folder in ON_THE_PATH:
        assert (SOURCE / folder).is_dir(), f"{folder} has moved: follow it here"
        for path in sorted((SOURCE / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            calls |= {(str(path.relative_to(SOURCE)), *call) for call in calls_of(tree)}
    return calls


def test_nothing_on_the_path_waits_for_the_device() -> None:
    assert found() <= ALLOWED.keys(), sorted(found() - ALLOWED.keys())


def test_the_list_of_exceptions_has_no_dead_entries() -> None:
    assert ALLOWED.keys() <= found(), sorted(ALLOWED.keys() - found())


def test_the_guard_sees_what_it_is_for() -> None:
    source = """
class Step:
    def run(self, x):
        def inner():
            return torch.nonzero(x)
        pinned = x.pin_memory(), torch.empty(4, pin_memory=True)
        return x.item(), x[0].tolist(), x.to("cpu"), torch.where(x), torch.where(x, x, x), inner()
"""
    assert sorted(calls_of(ast.parse(source))) == [
        ("Step.run", "item"),
        ("Step.run", "pin_memory"),
        ("Step.run", "pin_memory"),
        ("Step.run", "to cpu"),
        ("Step.run", "tolist"),
        ("Step.run", "where"),
        ("Step.run.inner", "nonzero"),
    ]
