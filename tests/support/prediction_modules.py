"""Prediction modules as the DeepSeek-V3 paper defines them (arXiv 2412.19437, 2.2), apart from the engine's own.

    u_k[i] = M_k [norm(E[t[i+k]]) ‖ norm(h_{k-1}[i])]      h_0: the model's states after its final norm
    h_k    = norm(TRM_k(u_k))                               logits for t[i+k+1] = head(h_k[i])

Whole sequences, no cache and no index but the paper's. TRM_k is transformers' decoder layer. Beyond the last module, it
goes on with its own state of the row before.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from tests.support.tiny_models import write_tiny_model
from tests.support.tiny_mtp import one_by_one, randomize


class PredictionModule(nn.Module):
    """M_k, its norms, and TRM_k."""

    def __init__(self, config: Any, layer: type[nn.Module], *, index: int, is_hidden_first: bool = False) -> None:
        super().__init__()
        size = config.hidden_size
        self.eps, self.is_hidden_first = config.rms_norm_eps, is_hidden_first
        self.embedding_norm, self.hidden_norm, self.norm = (nn.Parameter(torch.ones(size)) for _ in range(3))
        self.joined = nn.Parameter(torch.zeros(size, 2 * size))
        self.block = layer(config, index).eval()
        randomize(self)
        with torch.no_grad():
            for name, buffer in self.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    buffer.normal_(0.0, 0.3)

    def rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * weight

    def forward(self, model: PreTrainedModel, token_ids: Tensor, hidden: Tensor) -> Tensor:
        """token_ids [S], hidden [S, H] -> [S, H]."""
        embedded = model.model.embed_tokens(token_ids)
        parts = [self.rms(embedded, self.embedding_norm), self.rms(hidden, self.hidden_norm)]
        joined = torch.cat(parts[::-1] if self.is_hidden_first else parts, dim=1) @ self.joined.T
        count = len(token_ids)
        positions = torch.arange(count)[None]
        out = self.block(
            joined[None],
            attention_mask=torch.full((count, count), float("-inf")).triu(1)[None, None],
            position_ids=positions,
            position_embeddings=model.model.rotary_emb(joined[None], positions),
        )
        return self.rms(out[0], self.norm)


def draft_logits(
    model: PreTrainedModel, modules: list[PredictionModule], token_ids: list[int], *, anchor: int, num_steps: int
) -> list[Tensor]:
    """Logits [vocab] of each draft after `anchor` known tokens, fed the true tokens from there on."""
    tokens, logits = torch.tensor(token_ids), []
    with torch.no_grad():
        hidden = model.model(tokens[None, : anchor - 1]).last_hidden_state[0]
        for step in range(1, num_steps + 1):
            if step <= len(modules):
                first, features = step, hidden
                state = modules[step - 1](model, tokens[first : first + anchor - 1], features)
            else:
                features = torch.cat([features, state[-1:]])
                state = modules[-1](model, tokens[first : first + len(features)], features)
            logits.append(model.lm_head(state[-1]))
            hidden = state
    return logits


def write_latent(
    directory: str | Path, *, num_modules: int = 1, seed: int = 0, **overrides: Any
) -> tuple[PreTrainedModel, list[PredictionModule]]:
    """A random DeepSeek-V3 with its modules, numbered as layers behind the last, as it is released: with copies of
    embedding and head in each."""
    model = write_tiny_model(
        directory, "deepseek_v3", seed=seed, num_nextn_predict_layers=num_modules, **overrides
    )  # fmt: skip
    torch.manual_seed(seed + 1)
    num_layers = model.config.num_hidden_layers
    modules = [PredictionModule(model.config, DeepseekV3DecoderLayer, index=num_layers + i) for i in range(num_modules)]
    names = {"embedding_norm": "enorm.", "hidden_norm": "hnorm.", "joined": "eh_proj.", "norm": "shared_head.norm."}
    tensors: dict[str, Tensor] = {}
    for i, module in enumerate(modules):
        prefix = f"model.layers.{num_layers + i}."
        tensors |= one_by_one(_released(module, names, prefix=prefix))
        tensors[f"{prefix}embed_tokens.weight"] = model.model.embed_tokens.weight.detach().clone()
        tensors[f"{prefix}shared_head.head.weight"] = model.lm_head.weight.detach().clone()
    path = Path(directory) / "model.safetensors"
    save_file(load_file(path) | tensors, path)
    return model, modules


def write_deep_mimo(
    directory: str | Path, *, num_modules: int, seed: int = 0, **overrides: Any
) -> tuple[PreTrainedModel, list[PredictionModule]]:
    """A random MiMo with several modules."""
    model = write_tiny_model(directory, "qwen2", seed=seed, **overrides)
    torch.manual_seed(seed + 1)
    modules = [
        PredictionModule(model.config, Qwen2DecoderLayer, index=0, is_hidden_first=True) for _ in range(num_modules)
    ]
    names = {
        "embedding_norm": "token_layernorm.", "hidden_norm": "hidden_layernorm.", "joined": "input_proj.",
        "norm": "final_layernorm.",
    }  # fmt: skip
    path = Path(directory) / "model.safetensors"
    tensors = load_file(path)
    for i, module in enumerate(modules):
        tensors |= _released(module, names, prefix=f"model.mtp_layers.{i}.")
    save_file(tensors, path)
    values = json.loads((Path(directory) / "config.json").read_text())
    values |= {"architectures": ["MiMoForCausalLM"], "model_type": "mimo", "attention_bias": True}
    values |= {"num_nextn_predict_layers": num_modules}
    values.pop("layer_types", None)
    (Path(directory) / "config.json").write_text(json.dumps(values))
    return model, modules


def _released(module: PredictionModule, names: dict[str, str], *, prefix: str) -> dict[str, Tensor]:
    """The module's tensors under a release's names; those of the block have their own."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        released = f"{names[name]}weight" if name in names else name.removeprefix("block.")
        tensors[prefix + released] = tensor.contiguous().clone()
    return tensors
