"""Tiny random models with a prediction module, saved as their families save it, and what transformers makes of it."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.modeling_layers import MtpLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5RMSNorm
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeDecoderLayer, Qwen3_5MoeRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextDecoderLayer, Qwen3NextRMSNorm

from tests.support.tiny_models import write_tiny_model

MIMO = {
    "enorm.": "token_layernorm.",
    "hnorm.": "hidden_layernorm.",
    "eh_proj.": "input_proj.",
    "mtp_block.": "",
    "post_norm.": "final_layernorm.",
}
"""Names in transformers' generic layer -> behind `model.mtp_layers.0.` in a release."""


def write_mimo(directory: str | Path, *, seed: int = 0, **overrides: Any) -> tuple[PreTrainedModel, MtpLayer]:
    """A random MiMo in float32; returns Qwen2, which is its backbone, and the module, both in eval mode."""
    backbone = write_tiny_model(directory, "qwen2", seed=seed, **overrides)
    torch.manual_seed(seed + 1)
    config = backbone.config
    config.mtp_hidden_states_first = True
    module = MtpLayer(config, Qwen2DecoderLayer, Qwen2RMSNorm, 0).eval()
    randomize(module)
    path = Path(directory) / "model.safetensors"
    save_file(load_file(path) | released(module, MIMO, prefix="model.mtp_layers.0."), path)
    values = json.loads((Path(directory) / "config.json").read_text())
    values |= {"architectures": ["MiMoForCausalLM"], "model_type": "mimo", "attention_bias": True}
    values |= {"num_nextn_predict_layers": 1}
    values.pop("layer_types", None)
    (Path(directory) / "config.json").write_text(json.dumps(values))
    return backbone, module


QWEN = {
    "enorm.": "pre_fc_norm_embedding.",
    "hnorm.": "pre_fc_norm_hidden.",
    "eh_proj.": "fc.",
    "mtp_block.": "layers.0.",
    "post_norm.": "norm.",
}
"""Names in transformers' generic layer -> behind `mtp.` in a release."""

_PARTS = {
    "qwen3_5": (Qwen3_5DecoderLayer, Qwen3_5RMSNorm),
    "qwen3_5_moe": (Qwen3_5MoeDecoderLayer, Qwen3_5MoeRMSNorm),
    "qwen3_next": (Qwen3NextDecoderLayer, Qwen3NextRMSNorm),
}
"""Layer and norm of each hybrid."""


def write_hybrid(
    directory: str | Path, family: str, *, seed: int = 0, **overrides: Any
) -> tuple[PreTrainedModel, MtpLayer]:
    """A random hybrid with its module, whose layer attends; its experts are packed as in Qwen3.6, those of Qwen3-Next
    one by one."""
    model = write_tiny_model(directory, family, seed=seed, **overrides)
    torch.manual_seed(seed + 1)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.layer_types = 1, ["full_attention"]
    layer, norm = _PARTS[family]
    module = MtpLayer(config, layer, norm, 0).eval()
    randomize(module, center=0.0)
    path = Path(directory) / "model.safetensors"
    tensors = released(module, QWEN, prefix="mtp.")
    save_file(load_file(path) | (one_by_one(tensors) if family == "qwen3_next" else tensors), path)
    values = json.loads((Path(directory) / "config.json").read_text())
    (Path(directory) / "config.json").write_text(json.dumps(values | {"mtp_num_hidden_layers": 1}))
    return model, module


def randomize(module: torch.nn.Module, *, center: float = 1.0) -> None:
    """Widely spread weights, random norms and biases."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(center if "norm" in name else 0.0, 0.3)
            else:
                parameter.normal_(0.0, 0.15)


def released(module: torch.nn.Module, renames: dict[str, str], *, prefix: str) -> dict[str, torch.Tensor]:
    """The module's tensors under a release's names."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        old = next(old for old in renames if name.startswith(old))
        tensors[prefix + renames[old] + name[len(old) :]] = tensor.contiguous().clone()
    return tensors


def one_by_one(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Packed experts under names of their own."""
    found = {}
    for name, tensor in tensors.items():
        head, is_packed, kind = name.partition(".experts.")
        if not is_packed:
            found[name] = tensor
            continue
        names = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
        for expert, weight in enumerate(tensor):
            for part, rows in zip(names, weight.chunk(len(names)), strict=True):
                found[f"{head}.experts.{expert}.{part}.weight"] = rows.contiguous().clone()
    return found


def oracle_logits(
    model: PreTrainedModel, module: MtpLayer, token_ids: list[int], *, anchor: int, num_steps: int
) -> list[torch.Tensor]:
    """Draft logits [vocab] of each pass behind `anchor` known tokens, fed the true tokens from there on.

    Row j joins the target's hidden state of token j with token j + 1; each pass after the first joins the last output.
    """
    logits = []
    with torch.no_grad():
        hidden = model.model(torch.tensor([token_ids[: anchor - 1]])).last_hidden_state
        for step in range(num_steps):
            ids = torch.tensor([token_ids[1 : anchor + step]])
            count = ids.shape[1]
            positions = torch.arange(count)[None]
            cos_sin = model.model.rotary_emb(hidden, positions)
            mask = torch.full((count, count), float("-inf")).triu(1)[None, None]
            out = module(model.model.embed_tokens(ids), hidden, cos_sin, mask, positions, None)
            logits.append(model.lm_head(out[0, -1]))
            hidden = torch.cat([hidden, out[:, -1:]], dim=1)
    return logits
