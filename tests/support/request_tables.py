"""Request tables on the CPU, for tests that fill rows and read their columns."""

from collections.abc import Sequence

import torch

from outrider.core.kv_groups import BlockGroup
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.kernels import Kernels, load_kernels
from outrider.platforms.base import select_platform


def make_request_table(
    num_rows: int,
    vocab_size: int,
    *,
    max_model_len: int = 64,
    num_drafts: int = 0,
    groups: Sequence[BlockGroup] = (BlockGroup(block_size=16),),
    kernels: Kernels | None = None,
) -> RequestTable:
    """Rows 0 … num_rows - 1, and the padding row."""
    return RequestTable(
        max_rows=num_rows,
        max_model_len=max_model_len,
        num_drafts=num_drafts,
        groups=groups,
        vocab_size=vocab_size,
        kernels=kernels or load_kernels(("reference",)),
        staging=Staging(select_platform("cpu")),
        device=torch.device("cpu"),
    )
