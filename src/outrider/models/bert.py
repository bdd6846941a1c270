"""BERT, and models of the same shape (MiniLM, BGE, E5, GTE): a norm after each sum, tables of positions and of token
types, exact gelu, and a pooler that only the classifier reads.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from outrider.core.config_reader import ConfigReader
from outrider.core.encoder_config import read_encoder, read_encoder_pooler
from outrider.core.model_config import EncoderConfig, ModelConfig
from outrider.core.pooler_config import TEXT_HEAD, PoolerConfig
from outrider.layers.encoder import Encoder
from outrider.layers.linear import Linear

ARCHITECTURES = ("BertModel", "BertForSequenceClassification", "HF_ColBERT")

LATE_INTERACTION = {"HF_ColBERT": "linear.weight"}
"""Architectures with a vector for each token -> name of the linear layer that makes it from a hidden state."""


class Model(Encoder):
    """`BertModel`, `BertForSequenceClassification`, and ColBERT's body with the linear layer on each token."""

    renames: Mapping[str, str] = {"bert.": ""}
    parts: Mapping[str, str] = {
        "embeddings.word_embeddings": "embed_tokens",
        "embeddings.position_embeddings": "embed_positions",
        "embeddings.token_type_embeddings": "embed_types",
        "embeddings.LayerNorm": "embed_norm",
        "encoder.layer": "layers",
        "attention.self.query": "self_attn.q_proj",
        "attention.self.key": "self_attn.k_proj",
        "attention.self.value": "self_attn.v_proj",
        "attention.output.dense": "self_attn.o_proj",
        "attention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "mlp.up_proj",
        "output.dense": "mlp.down_proj",
        "output.LayerNorm": "mlp_norm",
        "pooler.dense": "head_dense",
        "linear": f"{TEXT_HEAD}.0",
        "gamma": "weight",
        "beta": "bias",
    }

    skips: tuple[str, ...] = ("cls.", "embeddings.position_ids", "bert.embeddings.position_ids")

    def build_head(self) -> None:
        """The pooler of a model without labels is not read: vectors are hidden states."""
        if not self.num_labels:
            self.skips += ("head_dense.", "bert.head_dense.")
            return
        size, context = self.config.hidden_size, self.context
        self.head_dense = Linear(size, size, context, bias=True)
        self.classifier = Linear(size, self.num_labels, context, bias=True)

    def pool(self, vectors: Tensor) -> Tensor:
        if not self.num_labels:
            return super().pool(vectors)
        return self.classifier(torch.tanh(self.head_dense(vectors))).float()


def read_pooler(reader: ConfigReader, *, architecture: str) -> PoolerConfig:
    """A classifier reads the first token."""
    return read_encoder_pooler(reader, architecture=architecture)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Absolute positions only."""
    num_positions = reader.integer("max_position_embeddings")
    reader.choice("position_embedding_type", ("absolute",), default="absolute")
    encoder = EncoderConfig(
        num_positions=num_positions,
        num_token_types=reader.integer("type_vocab_size"),
    )
    return read_encoder(
        reader, model_types=("bert",), encoder=encoder, max_length=num_positions, eps_key="layer_norm_eps"
    )
