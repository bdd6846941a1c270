"""Writes a quantised copy of a checkpoint, file by file: weights rounded to nearest, without data.

One file of weights is in memory at a time.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from outrider.core.errors import ConfigError, UnsupportedError
from outrider.kernels import load_kernels
from outrider.layers.assignment import assign_formats
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.layers.linear import Linear
from outrider.layers.moe import Experts
from outrider.layers.weight_format import WeightFormat
from outrider.loading.checkpoint import INDEX, Checkpoint
from outrider.loading.hf import read_json
from outrider.models import find_model, modules_of, read_model_config
from outrider.quantizing.target import Target


def quantize(source: str | Path, target: Target, output: str | Path, *, done: Callable[[int, int], None]) -> None:
    """Write the checkpoint `source` in the format `target` to the new directory `output`.

    done: called after each file with the number of files done and of all. Raises ConfigError if `source` is quantised
    or `output` is not empty, UnsupportedError if the format does not fit a layer.
    """
    source, output = Path(source), Path(output)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty. Give a new directory.")
    checkpoint = Checkpoint(source)
    formats, ignored = _formats(source, checkpoint, target)
    output.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    weight_map: dict[str, str] = {}
    files = checkpoint.files
    for number, file in enumerate(files, 1):
        written = Path(file).with_suffix(".safetensors").name
        tensors = {
            name: part.contiguous()
            for name, tensor in checkpoint.tensors_of(file)
            for name, part in _encoded(name, tensor, formats)
        }
        save_file(tensors, output / written, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, written)
        sizes |= {name: tensor.nbytes for name, tensor in tensors.items()}
        done(number, len(files))
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (output / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    for entry in source.iterdir():
        is_weights = entry.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf") or entry.name == INDEX
        if entry.is_file() and not is_weights and entry.name != "config.json":
            shutil.copyfile(entry, output / entry.name)
    config = read_json(source, "config.json") | {"quantization_config": target.config(ignored)}
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _formats(source: Path, checkpoint: Checkpoint, target: Target) -> tuple[dict[str, WeightFormat], list[str]]:
    """The format of each module that is quantised, by its name in the files, and the names of those that stay plain."""
    config = read_model_config(source)
    if config.quantization is not None:
        raise ConfigError(f"{source} is quantised already ({config.quantization.method}). Give the plain checkpoint.")
    model_class = find_model(config)
    if model_class.split is not CausalLM.split:
        raise UnsupportedError(
            f"{source}: checkpoints of {config.architecture} hold several layers in one tensor, which is not quantised"
            " here. Use quantization='fp8', which rounds weights while they are loaded."
        )
    context = LayerContext(
        kernels=load_kernels(("reference",)), dtype=torch.float32, device=torch.device("meta"), assigns_formats=True
    )
    model = model_class(replace(config, tie_word_embeddings=True), context, max_positions=1)
    name_of = modules_of(checkpoint, model)
    assign_formats(model, target.quantization, context.kernels, where=str(source), name_of=name_of)
    formats: dict[str, WeightFormat] = {}
    ignored = {"lm_head"} | {f"re:.*{prefix.rstrip('.')}.*" for prefix in model.skips}
    if model.mtp is not None:
        ignored |= {f"re:.*{prefix.rstrip('.')}.*" for prefix in model.mtp.all_prefixes}
    for prefix, child in model.named_modules():
        if isinstance(child, Linear):
            pieces = [(segment.weight.format, rows) for segment in child.segments for rows in segment.pieces]
            for name, (form, _) in zip(child.modules_in_checkpoint(prefix), pieces, strict=False):
                if form.name == "plain":
                    ignored.add(name_of(name))
                else:
                    formats[name_of(name)] = form
        elif isinstance(child, Experts):
            formats |= {name_of(name): child.gate_up.format for name in child.modules_in_checkpoint(prefix)}
    return formats, sorted(ignored)


def _encoded(name: str, tensor: Tensor, formats: dict[str, WeightFormat]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that stand for one of the source; experts that are packed become one by one."""
    module, _, last = name.rpartition(".")
    if last == "weight" and module in formats:
        for key, part in formats[module].encode(tensor).items():
            yield f"{module}.{key}", part
    elif tensor.ndim == 3 and last in ("gate_up_proj", "down_proj"):
        for i, matrix in enumerate(tensor):
            parts = {"down_proj": matrix}
            if last == "gate_up_proj":
                gate, up = matrix.chunk(2)
                parts = {"gate_proj": gate, "up_proj": up}
            for projection, dense in parts.items():
                yield from _encoded(f"{module}.{i}.{projection}.weight", dense, formats)
    else:
        yield name, tensor
