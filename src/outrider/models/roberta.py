"""RoBERTa and XLM-RoBERTa: BERT whose positions begin after the padding token's row, and a classifier of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.core.config_reader import ConfigReader
from outrider.core.encoder_config import read_encoder, read_encoder_pooler
from outrider.core.errors import ConfigError
from outrider.core.model_config import EncoderConfig, ModelConfig
from outrider.core.pooler_config import PoolerConfig
from outrider.models.bert import Model as Bert

ARCHITECTURES = (
    "RobertaModel",
    "RobertaForSequenceClassification",
    "XLMRobertaModel",
    "XLMRobertaForSequenceClassification",
)


class Model(Bert):
    """`XLMRobertaModel`, `XLMRobertaForSequenceClassification`, and those of RoBERTa."""

    renames: Mapping[str, str] = {"roberta.": ""}
    parts: Mapping[str, str] = {
        **{old: new for old, new in Bert.parts.items() if old != "pooler.dense"},
        "classifier.dense": "head_dense",
        "classifier.out_proj": "classifier",
    }
    skips: tuple[str, ...] = (
        "lm_head.",
        *(f"{prefix}{name}" for prefix in ("", "roberta.") for name in ("embeddings.position_ids", "pooler.")),
    )

    def position_rows(self, batch: ForwardBatch) -> Tensor:
        """Tokens are counted from the row after the padding token's. A padding token in the text has its own row, and
        is not counted."""
        counts = torch.ne(batch.token_ids, self.shape.first_position - 1).long()
        through = counts.cumsum(0)
        before = torch.where(batch.positions == 0, through - counts, 0).cummax(0).values
        return self.shape.first_position - 1 + (through - before) * counts


def read_pooler(reader: ConfigReader, *, architecture: str) -> PoolerConfig:
    """A classifier reads the first token."""
    return read_encoder_pooler(reader, architecture=architecture)


def read_config(reader: ConfigReader) -> ModelConfig:
    """The table of positions has a row for each id up to the padding token's, which texts do not reach."""
    num_positions = reader.integer("max_position_embeddings")
    padding_id = reader.integer("pad_token_id", default=1, minimum=0)
    if padding_id + 1 >= num_positions:
        raise ConfigError(
            f"{reader.said('max_position_embeddings')} leaves no position: those up to pad_token_id={padding_id} are"
            " not used. Use the config.json that came with the weights."
        )
    reader.choice("position_embedding_type", ("absolute",), default="absolute")
    encoder = EncoderConfig(
        num_positions=num_positions,
        first_position=padding_id + 1,
        num_token_types=reader.integer("type_vocab_size"),
    )
    return read_encoder(
        reader,
        model_types=("xlm-roberta", "roberta"),
        encoder=encoder,
        max_length=num_positions - padding_id - 1,
        eps_key="layer_norm_eps",
    )
