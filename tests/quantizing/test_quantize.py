"""`outrider quantize`: its files load here with the bits of rounding while loading, and in transformers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from outrider import LLM, SamplingParams
from outrider.cli import app
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.layers.assignment import count_formats
from outrider.quantizing.target import TARGETS, find_target
from outrider.quantizing.write import quantize
from tests.support.paged_runner import PagedRunner, load_tiny
from tests.support.quantised_models import CONFIGS, quantise, rewrite_config
from tests.support.tiny_models import write_tiny_model

ZOO = Path(__file__).parents[2] / "zoo"
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "vocab_size": 199}
IDS = list(range(5, 40))


def ignore(done: int, total: int) -> None:
    pass


def logits(model) -> torch.Tensor:
    runner = PagedRunner(model)
    return runner.logits(runner.feed([(0, IDS)])[0])


def quantized(source: Path, name: str, output: Path) -> Path:
    quantize(source, find_target(name), output, done=ignore)
    return output


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_written_checkpoint_is_near_the_plain_one(name: str, family: str, tmp_path: Path) -> None:
    experts = {"moe_intermediate_size": 128, "num_experts": 4} if family == "qwen3_moe" else {}
    write_tiny_model(tmp_path / "plain", family, max_shard_size="200KB", **SIZES, **experts)
    (tmp_path / "plain" / "tokenizer.txt").write_text("copied")
    found = load_tiny(quantized(tmp_path / "plain", name, tmp_path / "out"))
    assert set(count_formats(found)) == {TARGETS[name].scheme.format, "plain"}
    wanted = logits(load_tiny(tmp_path / "plain"))
    assert 0 < (logits(found) - wanted).norm() / wanted.norm() < (0.3 if "fp8" in name else 0.9)
    assert (tmp_path / "out" / "tokenizer.txt").read_text() == "copied"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    sizes = [tensor.nbytes for file in (tmp_path / "out").glob("*.safetensors") for tensor in load_file(file).values()]
    assert index["metadata"]["total_size"] == sum(sizes)


def run(model: Path, prompt, **options) -> tuple[list[int], str | None]:
    """Tokens, and the digest of their logits."""
    params = SamplingParams(temperature=0.7, seed=3, max_tokens=16, detokenize=isinstance(prompt, str))
    (output,) = LLM(str(model), device="cpu", logits_digest=True, **options).generate([prompt], params)
    return output.outputs[0].token_ids, output.outputs[0].logits_digest


def test_rounding_while_loading_gives_the_bits_of_the_written_checkpoint(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "plain", **SIZES)
    result = CliRunner().invoke(app, ["quantize", str(tmp_path / "plain"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    prompt, options = {"prompt_token_ids": IDS}, {"skip_tokenizer_init": True}
    wanted = run(tmp_path / "out", prompt, **options)
    assert run(tmp_path / "plain", prompt, quantization="fp8", **options) == wanted
    assert run(tmp_path / "plain", prompt, **options) != wanted


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "fp8", "fp8-dynamic"])
def test_drafts_of_a_head_change_no_token_of_a_quantised_target(kind: str | None, tmp_path: Path) -> None:
    """The head is plain, rounded while loading, or quantised in its files."""
    head = tmp_path / "head"
    shutil.copytree(ZOO / "tiny-eagle3", head)
    if kind in CONFIGS:
        quantise(head, CONFIGS[kind])
    drafter = {"method": "eagle3", "model": str(head)} | ({"quantization": kind} if kind == "fp8" else {})
    wanted = run(ZOO / "tiny", "Once upon a time", quantization="fp8")
    assert run(ZOO / "tiny", "Once upon a time", quantization="fp8", speculative_config=drafter) == wanted
    plain = run(ZOO / "tiny", "Once upon a time")
    assert run(ZOO / "tiny", "Once upon a time", speculative_config=drafter) == plain
    llm = LLM(str(ZOO / "tiny"), device="cpu", speculative_config=drafter)
    counts = count_formats(llm.engine.worker.drafter._head)
    assert (counts["fp8"] > 0) == (kind is not None), counts


def test_what_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format 'int3' is not known; it takes fp8-dynamic, fp8-block, w4a16"):
        find_target("int3")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(ConfigError, match=r"full is not empty. Give a new directory"):
        quantized(ZOO / "tiny", "fp8-block", tmp_path / "full")
    write_tiny_model(tmp_path / "narrow")
    with pytest.raises(UnsupportedError, match=r"q_proj .* groups of 128 do not divide an input of 64"):
        quantized(tmp_path / "narrow", "w4a16", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    rewrite_config(tmp_path / "narrow", quantization_config=CONFIGS["fp8-dynamic"])
    with pytest.raises(ConfigError, match=r"is quantised already \(compressed-tensors\). Give the plain checkpoint"):
        quantized(tmp_path / "narrow", "fp8-block", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"quantization='fp8': the weights of .* are quantised already"):
        LLM(str(tmp_path / "narrow"), quantization="fp8", skip_tokenizer_init=True)
    with pytest.raises(ConfigError, match=r"quantization='int4' is not known; it takes 'fp8'"):
        LLM(str(tmp_path / "narrow"), quantization="int4")
    with pytest.raises(ConfigError, match=r"speculative_config\['quantization'\]='fp8' has no effect"):
        LLM(str(ZOO / "tiny"), device="cpu", speculative_config={"method": "ngram", "quantization": "fp8"})


@pytest.mark.slow
def test_a_hybrid_keeps_its_gates_plain_and_its_module_drafts(tmp_path: Path) -> None:
    out = quantized(ZOO / "tiny-hybrid", "fp8-dynamic", tmp_path / "out")
    layer = load_tiny(out).layers[0].linear_attn.in_proj
    assert [segment.weight.format.name for segment in layer.segments] == ["fp8", "plain"]
    params = SamplingParams(temperature=0.0, max_tokens=24)
    tokens = []
    for drafter in (None, {"method": "mtp"}, {"method": "mtp", "quantization": "fp8"}, {"method": "ngram"}):
        (output,) = LLM(str(out), device="cpu", speculative_config=drafter).generate("Once upon a time", params)
        tokens.append(output.outputs[0].token_ids)
    assert all(found == tokens[0] for found in tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_transformers_reads_what_is_written(name: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="pip install compressed-tensors")
    from transformers import AutoModelForCausalLM

    write_tiny_model(tmp_path / "plain", **SIZES)
    out = quantized(tmp_path / "plain", name, tmp_path / "out")
    oracle = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.inference_mode():
        wanted = oracle(torch.tensor([IDS])).logits[0]
    found = logits(load_tiny(out))
    assert (found - wanted).norm() / wanted.norm() < 0.05
