"""Every example of CONTRIBUTING.md is put into its folder, in a copy on the path, and used."""

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import SeedOssConfig, SeedOssForCausalLM

from outrider import LLM, ConfigError, RequestError, SamplingParams, UnsupportedError
from outrider.attention.caches.paged_kv import PagedKV
from outrider.core import plugins
from outrider.kernels import load_kernels
from outrider.platforms.base import Capability, select_platform
from outrider.sampling.operation import find_operations
from outrider.server.answer_events import Arguments, CallEnd, Text, joined
from tests.attention.backend_check import check_formula
from tests.support import request_mix, tiny_models

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = {
    title: re.findall(r"^```diff\n(.*?)^```", body, flags=re.DOTALL | re.MULTILINE)
    for title, body in re.findall(r"^## … an? ([\w ]+)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
}
CPU = torch.device("cpu")


def changed_files(title: str) -> dict[str, str]:
    """Path to content after a section's diff. In an existing file, added lines go before the unchanged one below."""
    (diff,) = SECTIONS[title]
    files: dict[str, str] = {}
    path, added = "", ""
    for line in [*diff.splitlines(), "+++ b/"]:
        if line.startswith("+++ b/"):
            if path and not (ROOT / path).exists():
                files[path] = added
            else:
                assert not added, f"{title}: lines at the end of {path} stand before nothing"
            path, added = line.removeprefix("+++ b/"), ""
        elif line.startswith("+"):
            added += line[1:] + "\n"
        else:
            assert line.startswith(" "), f"{title}: {line!r} is neither added nor unchanged"
            content = files.get(path) or (ROOT / path).read_text()
            assert content.count(f"\n{line[1:]}\n") == 1, f"{path} has the line {line[1:]!r} not once"
            files[path] = content.replace(f"\n{line[1:]}\n", f"\n{added}{line[1:]}\n")
            added = ""
    return files


def new_files(title: str) -> dict[str, str]:
    """Those of the changed files that did not exist."""
    return {path: text for path, text in changed_files(title).items() if not (ROOT / path).exists()}


def overlay(titles: Sequence[str], folder: Path) -> dict[str, str]:
    """Writes the new files of some sections under `folder`: package to the directory that extends its path."""
    extended = {}
    for path, content in (item for title in titles for item in new_files(title).items()):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        place = target.parent
        while not (ROOT / place.relative_to(folder)).exists():
            place = place.parent
        extended[".".join(place.relative_to(folder / "src").parts)] = str(place)
    return extended


@pytest.fixture
def added(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plug-ins of the section named by the parameter are where they belong, until the test ends."""
    before = set(sys.modules)
    for name, place in overlay([request.param], tmp_path).items():
        package = importlib.import_module(name)
        monkeypatch.setattr(package, "__path__", [*package.__path__, place])
    yield
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
            parent, _, last = name.rpartition(".")
            vars(sys.modules[parent]).pop(last, None)


NEW = {
    "attention backend": ["attention/backends/plain.py"],
    "drafter": ["speculation/drafters/periodic.py"],
    "kernel stack": ["kernels/portable/__init__.py", "kernels/portable/activation.py"],
    "model": ["models/seed_oss.py"],
    "platform": ["platforms/ampere.py"],
    "sampling operation": ["sampling/operations/logit_gap.py"],
    "tool parser": ["server/tool_parsers/function_tag.py"],
    "weight format": ["layers/formats/int8_rows.py"],
}
"""Section to the new files of its diff; one that exists by now needs another example."""


def example(title: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("added", [title], indirect=True)


def module_of(package: str, name: str) -> ModuleType:
    return plugins.find(importlib.import_module(package), name, what="example")


def test_there_is_a_section_with_one_diff_for_each_kind_of_plug_in() -> None:
    assert {title: len(diffs) for title, diffs in SECTIONS.items()} == dict.fromkeys(NEW, 1)
    for title, paths in NEW.items():
        assert sorted(new_files(title)) == [f"src/outrider/{path}" for path in paths]


@example("model")
@pytest.mark.usefixtures("added")
def test_the_model_computes_what_transformers_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = (SeedOssConfig, SeedOssForCausalLM, {"attention_bias": True, "attention_out_bias": False})
    monkeypatch.setitem(tiny_models._FAMILIES, "seed_oss", family)
    oracle = tiny_models.write_tiny_model(tmp_path / "model", "seed_oss")
    prompt = list(range(20, 50))
    expected = oracle.generate(torch.tensor([prompt]), max_new_tokens=12, eos_token_id=None, pad_token_id=0)
    llm = LLM(str(tmp_path / "model"), skip_tokenizer_init=True)
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, detokenize=False)
    (output,) = llm.generate([{"prompt_token_ids": prompt}], params)
    assert output.outputs[0].token_ids == expected[0, len(prompt) :].tolist()

    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_out_bias": True}))
    with pytest.raises(UnsupportedError, match="attention_out_bias=True"):
        LLM(str(tmp_path / "model"), skip_tokenizer_init=True)


@example("weight format")
@pytest.mark.usefixtures("added")
def test_the_weight_format_keeps_the_contract() -> None:
    suite = importlib.import_module("tests.layers.test_weight_formats")
    suite.test_a_format_keeps_the_contract("int8_rows")
    form = module_of("outrider.layers.formats", "int8_rows").Format()
    kernels = load_kernels(("reference",))
    weight = form.empty(kernels, 48, 64, dtype=torch.float32, device=CPU)
    wanted, x = torch.randn(48, 64), torch.randn(5, 64)
    views = form.rows(weight, 0, 48)
    views["weight_scale"].copy_(wanted.abs().amax(dim=1, keepdim=True) / 127)
    views["weight"].copy_((wanted / views["weight_scale"]).round())
    error = (form.linear(kernels, x, weight, None, out_dtype=None) - x @ wanted.T).norm() / (x @ wanted.T).norm()
    assert error < 0.02


@pytest.mark.slow
@example("drafter")
@pytest.mark.usefixtures("added")
def test_the_drafter_drafts_and_changes_no_token(tmp_path: Path) -> None:
    suite = importlib.import_module("tests.speculation.test_conformance")
    sizes = {"num_hidden_layers": 2, "eos_token_id": request_mix.EOS, "max_position_embeddings": 512}
    tiny_models.write_tiny_model(tmp_path / "target", "qwen3", vocab_size=request_mix.VOCAB, seed=3, **sizes)
    target = tmp_path / "target"
    some = request_mix.make_cases()[1:5]
    expected = request_mix.truth(target, some)
    suite.check_changes_speed_only(target, {"method": "periodic", "period": 3}, some, expected)
    with pytest.raises(ConfigError, match=r"speculative_config\['period'\]=0"):
        request_mix.make(target, speculative_config={"method": "periodic", "period": 0})


@example("attention backend")
@pytest.mark.usefixtures("added")
def test_the_backend_computes_attention() -> None:
    made = module_of("outrider.attention.backends", "plain").Backend
    spec = PagedKV(num_kv_heads=2, head_dim=32, value_dim=32, dtype=torch.float32)
    assert made.refuses(spec, select_platform("cpu")) is None and "not over str" in made.refuses("x", None)
    check_formula(made(load_kernels(("reference",))), spec, CPU)


INTERPRETED = """
import importlib, json, sys, torch
for name, place in json.loads(sys.argv[1]).items():
    importlib.import_module(name).__path__.append(place)
from outrider.kernels import load_kernels
ours, plain = load_kernels(("portable", "reference")), load_kernels(("reference",))
assert ours.origins["silu_and_mul"] == "portable" and ours.origins["linear"] == "reference"
for rows, width in ((1, 8), (5, 1500), (0, 16)):
    x = torch.randn(rows, 2 * width)
    torch.testing.assert_close(ours.silu_and_mul(x), plain.silu_and_mul(x), rtol=1e-5, atol=1e-6)
"""


@pytest.mark.slow
def test_the_kernel_stack_has_the_function_and_computes_it(tmp_path: Path) -> None:
    """In a process of its own, because Triton's interpreter is chosen before Triton is imported."""
    places = json.dumps(overlay(["kernel stack"], tmp_path))
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", textwrap.dedent(INTERPRETED), places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@example("platform")
@pytest.mark.usefixtures("added")
def test_the_platform_takes_its_gpus_only() -> None:
    platform_class = module_of("outrider.platforms", "ampere").Platform

    def gpu(major: int) -> Capability:
        return Capability(name="A GPU", version=(major, 0), arch=f"sm_{major}0", runtime="13.0")

    platform = platform_class(gpu(8))
    assert platform.resolve_dtype("auto") == torch.bfloat16 and not platform.is_exact
    assert platform.key(torch.bfloat16)["capability"] == "8.0"
    with pytest.raises(ConfigError, match=r"compute capability is 9\.0, not 8\.x"):
        platform_class(gpu(9))
    with pytest.raises(ConfigError, match="Leave it at 'auto'"):
        platform.resolve_dtype("float16")


@example("tool parser")
@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_tool_parser_finds_calls_and_loses_nothing(size: int) -> None:
    text = 'Let me see. <function=add>{"a": 1, "b": 2}</function> and <function=add>{"a": </function> <fun'
    reader: Any = module_of("outrider.server.tool_parsers", "function_tag").Parser({"add": {}})
    events = [event for at in range(0, len(text), size) for event in reader.feed(text[at : at + size])]
    events += reader.finish()
    begin, *arguments, end = joined([event for event in events if not isinstance(event, Text)])
    assert begin.name == "add" and end == CallEnd()
    assert arguments == [Arguments('{"a": 1, "b": 2}')]
    said = "".join(event.text for event in events if isinstance(event, Text))
    assert said == 'Let me see.  and <function=add>{"a": </function> <fun'


def patched_module(path: str, text: str) -> ModuleType:
    """A module of the package as a diff changes it, beside the real one."""
    module = ModuleType("patched_" + Path(path).stem)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(text, path, "exec"), vars(module))
    return module


@example("sampling operation")
@pytest.mark.usefixtures("added")
def test_the_operation_reads_its_parameter_and_cuts_each_row_alone() -> None:
    changed = changed_files("sampling operation")
    (params_path,) = (path for path in changed if path.endswith("sampling_params.py"))
    (fields_path,) = (path for path in changed if path.endswith("fields.py"))
    params_class = patched_module(params_path, changed[params_path]).SamplingParams
    with pytest.raises(RequestError, match="max_logit_gap=-1"):
        params_class(max_logit_gap=-1)
    fields = patched_module(fields_path, changed[fields_path])
    assert "max_logit_gap" in fields._PASSED_ON and "max_logit_gap" in fields.SamplingFields.model_fields

    operation = find_operations(503)["logit_gap"]
    assert operation.is_needed(params_class(max_logit_gap=2.5)) and not operation.is_needed(params_class())
    given, none = (SimpleNamespace(params=params_class(max_logit_gap=gap)) for gap in (2.5, 0.0))
    assert operation.values(given) == {"max_logit_gap": 2.5} and operation.values(none) == {"max_logit_gap": torch.inf}
    logits = torch.randn(4, 503) * 3
    gaps = {"max_logit_gap": torch.tensor([2.5, 0.5, torch.inf, 2.5])}
    cut = operation.apply(logits, gaps)
    for row, gap in enumerate(gaps["max_logit_gap"]):
        is_kept = logits[row] >= logits[row].max() - gap
        assert torch.equal(cut[row], logits[row].where(is_kept, -torch.inf))
        alone = operation.apply(logits[row : row + 1], {"max_logit_gap": gap.reshape(1)})
        assert torch.equal(alone[0], cut[row])
