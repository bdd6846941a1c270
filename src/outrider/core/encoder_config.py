"""Parts of config.json that encoders share. No torch.

A model's file states its own keys: it calls `read_encoder`, and reads what is its own from the same `ConfigReader`.
"""

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError
from outrider.core.ignored_keys import ignore_leftovers
from outrider.core.model_config import (
    EncoderConfig,
    ModelConfig,
    RopeConfig,
    read_architecture,
    read_dtype,
    read_num_layers,
)
from outrider.core.pooler_config import (
    CLS,
    MEAN,
    PoolerConfig,
    classifier,
    embedder,
    read_activation,
    read_labels,
    read_matryoshka,
)

CLASSIFIER = "ForSequenceClassification"
"""Last part of the name of an architecture that has a classifier."""

CLASSIFIER_HEAD = "classifier"
"""Name of a head that the model's own file builds."""


def read_encoder(
    reader: ConfigReader, *, model_types: tuple[str, ...], encoder: EncoderConfig, max_length: int, eps_key: str
) -> ModelConfig:
    """An encoder of attention and MLPs with biases, from the keys that all such models have.

    model_types: values of model_type that go with the architecture; the first where the config has none. encoder: the
    parts that the caller has read. max_length: tokens of a text at most. eps_key: name of the epsilon of norms.
    """
    ignore_leftovers(reader)
    reader.choice("model_type", model_types, default=model_types[0])
    for key in ("is_decoder", "add_cross_attention"):
        reader.refuse(key, "the model is read as an encoder. Set it to false.")
    reader.ignore("tie_word_embeddings", reason="no head shares the embedding")
    reader.ignore("eos_token_id", reason="an encoder writes no tokens")
    hidden_size, num_heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    if hidden_size % num_heads:
        raise ConfigError(
            f"{reader.said('hidden_size')} is not a multiple of num_attention_heads={num_heads}. Heads share the width"
            " in equal parts."
        )
    return ModelConfig(
        architecture=read_architecture(reader),
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden_size,
        num_layers=read_num_layers(reader),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=reader.integer("intermediate_size"),
        norm_eps=reader.number(eps_key),
        max_position_embeddings=max_length,
        rope=RopeConfig(),
        attention_bias=True,
        mlp_bias=True,
        encoder=encoder,
        is_causal=False,
        hidden_act=reader.choice("hidden_act", ("gelu",), default="gelu"),
        dtype=read_dtype(reader),
    )


def read_encoder_pooler(reader: ConfigReader, *, architecture: str, pooling: str = CLS) -> PoolerConfig:
    """The pooler of an encoder: a classifier, where its architecture has one, or else the mean of all tokens.

    pooling: the vector that the classifier reads.
    """
    if not architecture.endswith(CLASSIFIER):
        return embedder(pooling=MEAN, matryoshka_dimensions=read_matryoshka(reader))
    labels = read_labels(reader)
    activation = read_activation(reader, num_labels=len(labels))
    return classifier(labels=labels, activation=activation, head=CLASSIFIER_HEAD, pooling=pooling)
