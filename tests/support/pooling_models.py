"""Tiny random models that pool, in the layouts of released checkpoints, and transformers' own models of them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import processors
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.engine.tokenizers_made_here import save_byte_level
from tests.support.tiny_models import SIZES, tiny_config, write_tiny_model

VOCAB = 420
END = 0
"""Id of <|end|>, which the tokenizer of an embedder appends."""


def write_classifier(directory: Path, family: str, **overrides: Any) -> PreTrainedModel:
    """A model of the form …ForSequenceClassification."""
    return _write(directory, family, AutoModelForSequenceClassification, **overrides)


def write_token_classifier(directory: Path, family: str, **overrides: Any) -> PreTrainedModel:
    """A model of the form …ForTokenClassification."""
    return _write(directory, family, AutoModelForTokenClassification, **overrides)


def _write(directory: Path, family: str, model_class: Any, **overrides: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = model_class.from_config(tiny_config(family, pad_token_id=0, **overrides)).eval()
    model.save_pretrained(directory)
    return model


class Reward(nn.Module):
    """The reward models of Qwen2: hidden states -> a number for each label and token."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        size = SIZES["hidden_size"]
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, num_labels))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] -> [..., num_labels]."""
        scored: Tensor = self.score(hidden)
        return scored


def write_reward(directory: Path, *, architecture: str, num_labels: int) -> tuple[PreTrainedModel, Reward]:
    """A model of a form that transformers does not have: body and head."""
    model = write_tiny_model(directory, "qwen2")
    torch.manual_seed(1)
    head = Reward(num_labels)
    path = directory / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("lm_head.")}
    save_file(tensors | dict(head.state_dict()), path)
    change_config(directory, architectures=[architecture], num_labels=num_labels)
    return model, head


def write_embedder(directory: Path, *, pooling: str = "lasttoken", normalizes: bool = True) -> PreTrainedModel:
    """A model in the layout of Qwen3-Embedding: bare names, the files of sentence-transformers, and a tokenizer that
    appends <|end|>."""
    model = write_tiny_model(directory, "qwen3", vocab_size=VOCAB, eos_token_id=END, tie_word_embeddings=True)
    path = directory / "model.safetensors"
    save_file({name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}, path)
    save_byte_level(directory)
    fast = PreTrainedTokenizerFast.from_pretrained(directory)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", pair="$A <|end|> $B:1 <|end|>:1", special_tokens=[("<|end|>", END)]
    )
    fast.save_pretrained(directory)
    write_modules(directory, pooling=pooling, normalizes=normalizes)
    return model


def write_modules(directory: Path, *, pooling: str, normalizes: bool) -> None:
    """modules.json and the config of a pooling, as sentence-transformers saves them."""
    names = ["Transformer", "Pooling", *(["Normalize"] if normalizes else [])]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name}" if index else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(names)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    modes = ("cls_token", "mean_tokens", "lasttoken", "max_tokens")
    config = {f"pooling_mode_{mode}": mode.removesuffix("_tokens").removesuffix("_token") == pooling for mode in modes}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64, **config}))


def write_reranker(directory: Path, *, tie_word_embeddings: bool) -> PreTrainedModel:
    """A language model in a directory whose name says that it judges pairs; its tokenizer has no and yes."""
    directory.mkdir(parents=True)
    save_byte_level(directory)
    fast = PreTrainedTokenizerFast.from_pretrained(directory)
    fast.add_tokens(["no", "yes"])
    fast.save_pretrained(directory)
    return write_tiny_model(
        directory,
        "qwen3",
        vocab_size=len(fast),
        tie_word_embeddings=tie_word_embeddings,
        max_position_embeddings=512,
    )


def change_config(directory: Path, **values: Any) -> None:
    """Set keys of config.json; None removes one."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
