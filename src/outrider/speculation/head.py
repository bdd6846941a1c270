"""The common part of EAGLE heads: weights in a directory of their own, and an embedding that may be the target's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor, nn

from outrider.attention.batch import ForwardBatch
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.core.model_config import ModelConfig
from outrider.core.quantization.while_loading import quantised_while_loading
from outrider.layers.assignment import assign_formats
from outrider.layers.context import LayerContext
from outrider.layers.embedding import Embedding
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.dummy import fill_randomly
from outrider.loading.load import load_into
from outrider.loading.names import bare_name, modules_in_files
from outrider.loading.sizes import sizes_that_fit
from outrider.speculation.drafter import DrafterContext

H = TypeVar("H", bound="Head")

Embed = Callable[[ForwardBatch], Tensor]
"""Embeds the tokens of a batch: [num_tokens, hidden_size]."""


class Head(nn.Module):
    """The weights of a head, named as in the checkpoint."""

    def __init__(self, layer: ModelConfig, context: LayerContext, *, embed: Embed | None) -> None:
        """`layer`: shape of the head's layer. `embed`: the target's embedding; None: the head has its own."""
        super().__init__()
        if embed is None:
            self.embed_tokens = Embedding(layer.vocab_size, layer.hidden_size, context)
        self._target_embed = embed

    def embed(self, batch: ForwardBatch) -> Tensor:
        """Embeddings of the batch's tokens, [num_tokens, width of the table]."""
        embedded: Tensor = self._target_embed(batch) if self._target_embed else self.embed_tokens(batch.token_ids)
        return embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFiles:
    """Contents of a head's directory."""

    names: frozenset[str]
    """Names of its tensors, without prefixes of wrappers; empty if weights are random."""
    embed: Embed | None
    """The target's embedding; None: the head has its own."""
    layers: LayerContext
    """The context to build layers with."""


def check_one_layer(layer: ModelConfig, reader: ConfigReader) -> None:
    """Refuses a head of several layers."""
    if layer.num_layers != 1:
        raise UnsupportedError(
            f"{reader.where}: num_hidden_layers={layer.num_layers} is not supported for an EAGLE head. Supported: 1."
        )


def load_head(
    directory: str,
    make: Callable[[HeadFiles], H],
    *,
    layer: ModelConfig,
    context: DrafterContext,
    renames: Mapping[str, str],
) -> H:
    """Make a head and fill it from its directory; one without an embedding shares the target's.

    layer: shape of the head's layer. renames: prefixes in the files to prefixes of the head. Raises CheckpointError
    if a weight is missing, unused, or of another shape.
    """
    checkpoint = None if context.engine.load_format == "dummy" else Checkpoint(directory)
    names = frozenset(bare_name(name) for name in checkpoint.names) if checkpoint else frozenset()
    has_embedding = "embed_tokens.weight" in names
    if not has_embedding and layer.hidden_size != context.target_config.hidden_size:
        raise CheckpointError(
            f"{directory}: the head's width {layer.hidden_size} is not the target's "
            f"{context.target_config.hidden_size}, and it has no embed_tokens.weight of its own."
        )
    quantization = quantised_while_loading(layer.quantization, context.config.quantization, where=directory)
    layers = replace(context.layers, assigns_formats=quantization is not None)
    with sizes_that_fit(directory):
        head = make(HeadFiles(names=names, embed=None if has_embedding else context.target.embed, layers=layers))
    if quantization is not None:
        in_files = modules_in_files(checkpoint.names if checkpoint else (), renames)
        assign_formats(
            head, quantization, layers.kernels, where=directory, name_of=lambda name: in_files.get(name, name)
        )
    if checkpoint is None:
        fill_randomly(head, context.engine.seed)
    else:
        load_into(head, checkpoint.tensors(), where=directory, renames=renames)
    return head
