"""Qwen3 dense: Llama with RMSNorm on the heads of q and k, before rope."""

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense, read_switched_windows
from outrider.core.pooler_config import Reranker
from outrider.core.pooling import PairTemplate
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Qwen3ForCausalLM",)

MATRYOSHKA = ("qwen3-embedding",)
"""Parts of the names of checkpoints whose vectors may be cut to any size, in lower case: no key of theirs says it."""

RERANKER = Reranker(
    marks=("qwen3-reranker",),
    keys=("is_original_qwen3_reranker",),
    template=PairTemplate(
        before=(
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct"
            ' provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        ),
        instruction_label="<Instruct>: ",
        query_label="\n<Query>: ",
        document_label="\n<Document>: ",
        after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        instruction="Given a web search query, retrieve relevant passages that answer the query",
    ),
)
"""The token that follows this prompt is "no" or "yes"."""


class Model(CausalLM):
    """`Qwen3ForCausalLM`."""

    qk_norm = True


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys; head_dim is 128 where the config has none, whatever the width."""
    windows = read_switched_windows(reader)
    return read_dense(reader, model_types=("qwen3",), windows=windows, default_head_dim=128)
