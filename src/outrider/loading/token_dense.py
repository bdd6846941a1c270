"""The linear layer that makes a token's vector from its hidden state; config.json does not say its size."""

from pathlib import Path

from outrider.core.errors import CheckpointError
from outrider.core.pooler_config import IDENTITY, Dense
from outrider.loading.names import bare_name
from outrider.loading.weights import open_weights


def token_dense(directory: Path, name: str) -> Dense:
    """The layer whose weight is called `name` among the model's own, without a bias."""
    shapes = {bare_name(found): header.shape for found, header in open_weights(str(directory)).headers()}
    shape = shapes.get(name)
    if shape is None or len(shape) != 2:
        raise CheckpointError(
            f"{directory} has no matrix {name!r}, which makes the vectors of tokens. Download it again."
        )
    return Dense(in_features=shape[1], out_features=shape[0], has_bias=False, activation=IDENTITY, folder=None)
