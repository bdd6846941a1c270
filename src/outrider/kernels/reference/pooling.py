"""Reductions of a model that pools: sums over the tokens of a text, lengths of vectors, activations of labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.kernels.reference.row_sum import row_sum

_LEAST_LENGTH = 1e-12


def add_tokens(sums: Tensor, x: Tensor, *, rows: Tensor, starts: Sequence[int], counts: Sequence[int]) -> None:
    """Each pass of the loop adds one token to every row that still has one: longest rows first."""
    order = sorted(range(len(counts)), key=lambda row: -counts[row])
    place = torch.tensor(order, dtype=torch.int64, device=x.device)
    first = torch.tensor([starts[row] for row in order], dtype=torch.int64, device=x.device)
    total = sums[rows[place]]
    num_left = len(order)
    for offset in range(max(counts, default=0)):
        while counts[order[num_left - 1]] <= offset:
            num_left -= 1
        total[:num_left] += x[first[:num_left] + offset].to(torch.float32)
    sums[rows[place]] = total


def normalize_vectors(vectors: Tensor, *, sizes: Tensor, is_wanted: Tensor) -> Tensor:
    """Numbers after the first sizes[i] count as 0 in the sum of squares."""
    is_kept = torch.arange(vectors.shape[1], device=vectors.device) < sizes.unsqueeze(1)
    kept = torch.where(is_kept, vectors, 0.0)
    length = torch.sqrt(row_sum(kept * kept)).clamp(min=_LEAST_LENGTH)
    return torch.where((is_wanted > 0).unsqueeze(1), kept / length, kept)


def activate_labels(logits: Tensor, *, activation: str, is_wanted: Tensor) -> Tensor:
    """sigmoid is written with exp, as everywhere here."""
    if activation == "identity":
        return logits
    if activation == "sigmoid":
        activated = 1.0 / (1.0 + torch.exp(-logits))
    else:
        assert activation == "softmax", f"{activation!r} is not an activation"
        raised = torch.exp(logits - logits.amax(dim=1, keepdim=True))
        activated = raised / row_sum(raised)
    return torch.where((is_wanted > 0).unsqueeze(1), activated, logits)
