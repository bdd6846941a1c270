"""Random EAGLE heads: of version 3 made and saved by the `speculators` library, and the same in the original format; of
version 1 composed of transformers' own layers, which no library has."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

from speculators import SpeculatorsConfig, VerifierConfig
from speculators.models.eagle3 import Eagle3DraftModel, Eagle3SpeculatorConfig
from speculators.proposals.greedy import GreedyTokenProposalConfig


def random_head(
    *,
    vocab_size: int,
    draft_vocab_size: int,
    hidden_size: int = 64,
    tap_layers: tuple[int, ...] = (1, 2, 4),
    layer: str = "llama",
    num_layers: int = 1,
    seed: int = 0,
    **variant: bool,
) -> Eagle3DraftModel:
    """A head for a target of this width and vocabulary. `variant`: norm_before_residual, norm_before_fc, …"""
    torch.manual_seed(seed)
    config_class = {"llama": LlamaConfig, "qwen3": Qwen3Config}[layer]
    layer_config = config_class(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=96,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    layer_config._attn_implementation = "eager"
    config = Eagle3SpeculatorConfig(
        transformer_layer_config=layer_config,
        draft_vocab_size=draft_vocab_size,
        eagle_aux_hidden_state_layer_ids=list(tap_layers),
        speculators_config=SpeculatorsConfig(
            algorithm="eagle3",
            proposal_methods=[GreedyTokenProposalConfig(speculative_tokens=3)],
            default_proposal_method="greedy",
            verifier=VerifierConfig(name_or_path=None, architectures=["Qwen3ForCausalLM"]),
        ),
        **variant,
    )
    model = Eagle3DraftModel(config).eval()
    chosen = torch.randperm(vocab_size)[:draft_vocab_size].sort().values
    t2d = torch.zeros(vocab_size, dtype=torch.bool)
    t2d[chosen] = True
    model.load_vocab_mappings(t2d, chosen - torch.arange(draft_vocab_size))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0, 0.3) if parameter.ndim == 1 else parameter.normal_(0.0, 0.2)
            assert torch.isfinite(parameter).all(), name
    return model


def save_speculators(model: Eagle3DraftModel, directory: Path) -> Path:
    """Saves a head the way the speculators library does."""
    model.save_pretrained(directory)
    return directory


def save_original(model: Eagle3DraftModel, directory: Path, *, with_embedding: bool = True) -> Path:
    """The original release's names and config."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("verifier_") or (name.startswith("embed_tokens") and not with_embedding):
            continue
        tensors[name.replace("layers.0.", "midlayer.")] = tensor.contiguous().clone()
    save_file(tensors, directory / "model.safetensors")
    layer: dict[str, Any] = model.config.transformer_layer_config.to_dict()
    config = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        **{
            key: layer[key]
            for key in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "head_dim",
                "max_position_embeddings",
                "rms_norm_eps",
            )
        },
        "rope_theta": 10000.0,
        "draft_vocab_size": model.config.draft_vocab_size,
        "eagle_aux_hidden_state_layer_ids": list(model.config.eagle_aux_hidden_state_layer_ids),
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def oracle_logits(
    model: Eagle3DraftModel, taps: torch.Tensor, token_ids: list[int], *, num_steps: int
) -> list[torch.Tensor]:
    """Draft logits [S, draft_vocab] of each step, all anchors, fed the true tokens.

    taps [S, 3 × H] of tokens 0 … S - 1; token_ids has S + 1 tokens: row j joins taps[j] with token j + 1.
    """
    seen: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output[0].detach()))
    ids = torch.tensor([token_ids[1:]])
    with torch.no_grad():
        model(taps[None], ids, torch.zeros_like(ids), ttt_steps=num_steps)
    hook.remove()
    return seen


class EagleOracle(nn.Module):
    """EAGLE-1: fc, and a decoder layer without its first norm."""

    def __init__(self, config: LlamaConfig | Qwen2Config, *, has_fc_bias: bool) -> None:
        super().__init__()
        size = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, size)
        self.fc = nn.Linear(2 * size, size, bias=has_fc_bias)
        layer_class = Qwen2DecoderLayer if isinstance(config, Qwen2Config) else LlamaDecoderLayer
        self.layers = nn.ModuleList([layer_class(config, 0)])
        self.layers[0].input_layernorm = nn.Identity()
        self.rotary = LlamaRotaryEmbedding(config)

    def forward(self, token_ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """token_ids [S], hidden [S, H]: row j joins the hidden state of token j with token j + 1 -> [S, H]."""
        x = self.fc(torch.cat([self.embed_tokens(token_ids), hidden], dim=1))[None]
        count = x.shape[1]
        positions = torch.arange(count)[None]
        mask = torch.full((count, count), float("-inf")).triu(1)[None, None]
        return self.layers[0](
            x, attention_mask=mask, position_ids=positions, position_embeddings=self.rotary(x, positions)
        )[0]


def random_eagle_head(
    directory: Path,
    *,
    vocab_size: int,
    hidden_size: int = 64,
    layer: str = "llama",
    has_fc_bias: bool = True,
    embedding: torch.Tensor | None = None,
    as_pickle: bool = False,
    seed: int = 0,
) -> EagleOracle:
    """A head in the format of the release. `embedding`: the target's, which is then left out of the files."""
    torch.manual_seed(seed)
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[layer](
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 20000.0},
    )
    config._attn_implementation = "eager"
    head = EagleOracle(config, has_fc_bias=has_fc_bias).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(1.0, 0.3) if parameter.ndim == 1 else parameter.normal_(
                0.0, 0.1
            )  # or attention is so sharp that it amplifies rounding
        if embedding is not None:
            head.embed_tokens.weight.copy_(embedding)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.clone() for name, tensor in head.state_dict().items() if "rotary" not in name}
    if embedding is not None:
        del tensors["embed_tokens.weight"]
    if as_pickle:
        torch.save(tensors, directory / "pytorch_model.bin")
    else:
        save_file(tensors, directory / "model.safetensors")
    values = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 20000.0, "bias": has_fc_bias}
    values |= {"qkv_bias": True} if layer == "qwen2" else {}
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"):  # fmt: skip
        values[key] = getattr(config, key)
    (directory / "config.json").write_text(json.dumps(values))
    return head


def eagle_oracle_logits(
    model: PreTrainedModel, head: EagleOracle, token_ids: list[int], *, anchor: int, num_steps: int
) -> list[torch.Tensor]:
    """Draft logits [vocab] of each pass behind `anchor` known tokens, fed the true tokens from there on."""
    logits = []
    with torch.no_grad():
        hidden = model.model(torch.tensor([token_ids[: anchor - 1]])).last_hidden_state[0]
        for step in range(num_steps):
            out = head(torch.tensor(token_ids[1 : anchor + step]), hidden)
            logits.append(model.lm_head(out[-1]))
            hidden = torch.cat([hidden, out[-1:]])
    return logits
