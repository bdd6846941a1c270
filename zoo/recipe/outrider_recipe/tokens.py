"""Documents as one long row of token ids, and windows drawn from it on the training device.

Knows nothing of what the documents are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from outrider_recipe.vocabulary import END_OF_TEXT, special_id

CHUNK = 2000  # documents encoded at a time


def encode(documents: Iterable[str], tokenizer: Tokenizer, path: Path) -> int:
    """Write `path`.tokens.npy (uint16) and `path`.starts.npy; every document ends with end-of-text. The token count."""
    end = special_id(tokenizer, END_OF_TEXT)
    pieces: list[np.ndarray] = []
    lengths: list[int] = []
    stream = iter(documents)
    while chunk := list(islice(stream, CHUNK)):
        for encoding in tokenizer.encode_batch_fast(chunk):
            ids = encoding.ids
            ids.append(end)
            pieces.append(np.asarray(ids, dtype=np.uint16))
            lengths.append(len(ids))
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, np.uint16)
    starts = np.cumsum([0, *lengths[:-1]]) if lengths else np.zeros(0)
    np.save(path.with_suffix(".tokens.npy"), tokens)
    np.save(path.with_suffix(".starts.npy"), starts.astype(np.int64))
    return len(tokens)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """All documents of one kind, on the training device."""

    tokens: Tensor  # [num_tokens] int32
    starts: Tensor  # [num_documents] int64

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "TokenRow":
        tokens = torch.from_numpy(np.load(path.with_suffix(".tokens.npy")).astype(np.int32))
        starts = torch.from_numpy(np.load(path.with_suffix(".starts.npy")))
        return cls(tokens.to(device), starts.to(device))

    def windows(self, num_rows: int, *, length: int, aligned: float, random: torch.Generator) -> Tensor:
        """[num_rows, length] int64. The first `aligned` part of the rows begins at the start of a document."""
        last = self.tokens.numel() - length
        assert last >= 0, f"{self.tokens.numel()} tokens are too few for windows of {length}"
        device = self.tokens.device
        num_aligned = round(num_rows * aligned)
        chosen = torch.randint(self.starts.numel(), (num_aligned,), generator=random, device=device)
        free = torch.randint(last + 1, (num_rows - num_aligned,), generator=random, device=device)
        begin = torch.cat((self.starts[chosen].clamp(max=last), free))
        return self.tokens[begin[:, None] + torch.arange(length, device=device)].long()


@dataclass(frozen=True, slots=True)
class Share:
    """Number of windows that a batch takes from one kind of document."""

    row: TokenRow
    num_rows: int
    aligned: float


def draw_batch(shares: Sequence[Share], *, length: int, random: torch.Generator) -> Tensor:
    """[sum of num_rows, length] int64."""
    parts = [s.row.windows(s.num_rows, length=length, aligned=s.aligned, random=random) for s in shares if s.num_rows]
    return torch.cat(parts)
