"""Tiny random encoders in the Hugging Face layout, written by transformers, and passes over texts by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from outrider.attention.batch import ForwardBatch

_ROBERTA: dict[str, Any] = {
    "max_position_embeddings": 202,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}
_MODERN: dict[str, Any] = {
    "num_hidden_layers": 4,
    "local_attention": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "norm_bias": True,
}
_FAMILIES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "bert": (BertConfig, BertModel, BertForSequenceClassification, {}),
    "roberta": (RobertaConfig, RobertaModel, RobertaForSequenceClassification, _ROBERTA),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel, XLMRobertaForSequenceClassification, _ROBERTA),
    "modernbert": (ModernBertConfig, ModernBertModel, ModernBertForSequenceClassification, _MODERN),
}
"""Config, model, classifier, and what the family needs besides `SIZES`."""

FAMILIES = tuple(_FAMILIES)

SIZES: dict[str, Any] = {
    "vocab_size": 503,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 200,
    "initializer_range": 0.15,
}


def write_tiny_encoder(
    directory: str | Path, family: str, *, num_labels: int | None = None, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """Saves a random encoder in float32 and returns it, in eval mode. num_labels: of a classifier; None: the encoder
    alone. `overrides`: fields of its config."""
    config_class, model_class, classifier_class, needs = _FAMILIES[family]
    torch.manual_seed(seed)
    labels = {} if num_labels is None else {"num_labels": num_labels}
    config = config_class(**(SIZES | needs | labels | overrides))
    model = (model_class if num_labels is None else classifier_class)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.3)
            elif "initializer_cutoff_factor" in config.to_dict():
                parameter.normal_(0.0, 0.15)
    model.save_pretrained(directory)
    return model


def write_encoder_tokenizer(directory: str | Path, family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of an encoder: words and pieces of them, with the family's own template of pairs."""
    is_bert = family == "bert"
    cls, sep, pad, unk = ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if is_bert else ("<s>", "</s>", "<pad>", "<unk>")
    specials = (pad, unk, cls, sep) if is_bert else (cls, pad, sep, unk)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*specials, *letters, *(f"##{letter}" for letter in letters), *WORDS]
    backend = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token=unk))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    ids = [(token, pieces.index(token)) for token in (cls, sep)]
    single = f"{cls} $A {sep}"
    pair = f"{cls} $A {sep} $B:1 {sep}:1" if is_bert else f"{cls} $A {sep} {sep} $B {sep}"
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, model_max_length=200
    )
    fast.save_pretrained(directory)
    return fast


WORDS = ("what", "is", "the", "capital", "of", "france", "paris", "a", "river", "city", "runs", "through", "it")


def batch_of(
    texts: Sequence[Sequence[int]], *, token_types: Sequence[Sequence[int]] | None = None, num_padding: int = 0
) -> ForwardBatch:
    """A pass over whole texts. num_padding: tokens of padding at the end."""
    padding = [0] * num_padding
    counts = [len(text) for text in texts]
    counts[-1] += num_padding
    places = [place for text in texts for place in range(len(text))]
    types = None if token_types is None else [one for text in token_types for one in text] + padding
    return ForwardBatch(
        token_ids=torch.tensor([token for text in texts for token in text] + padding),
        positions=torch.tensor(places + padding),
        kv_lengths=torch.tensor([place + 1 for place in places] + padding),
        groups={},
        row_counts=tuple(counts),
        kv_length_bound=max(counts),
        token_types=None if types is None else torch.tensor(types),
    )


def hidden_states(model: Any, texts: Sequence[Sequence[int]], **options: Any) -> list[Tensor]:
    """The hidden states of each text of one pass, [length, hidden_size]."""
    with torch.inference_mode():
        hidden = model(batch_of(texts, **options)).last
    return list(hidden[: sum(map(len, texts))].split([len(text) for text in texts]))
