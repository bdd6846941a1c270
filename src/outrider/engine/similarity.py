"""Similarity of two texts from their vectors: a function of the two alone, whatever else was asked for.

Sums of products are exact before they are rounded (`math.fsum`), or a fixed tree in fp32 where there are many.
"""

import math

import numpy as np

from outrider.core.pooling import PoolingOutput


def similarity(query: PoolingOutput, document: PoolingOutput) -> float:
    """Cosine of two vectors; of vectors by token, the sum over the query's of the largest cosine with a document's."""
    if len(query.shape) == 1:
        return _cosine(query.values.tolist(), document.values.tolist())
    first, second = (_unit_rows(output) for output in (query, document))
    best = [float(_row_sum(row * second).max()) for row in first]
    return math.fsum(best)


def _cosine(first: list[float], second: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(first, second, strict=True))
    squares = math.fsum(a * a for a in first) * math.fsum(b * b for b in second)
    return product / math.sqrt(squares) if squares > 0 else 0.0


def _unit_rows(output: PoolingOutput) -> np.ndarray:
    """[num_tokens, size] fp32, each row divided by its length."""
    rows = np.frombuffer(output.values, dtype=np.float32).reshape(output.shape)
    lengths = np.sqrt(_row_sum(rows * rows))[:, None]
    return rows / np.maximum(lengths, np.float32(1e-12))


def _row_sum(rows: np.ndarray) -> np.ndarray:
    """[num_rows] fp32: the sum of each row, padded with zeros to a power of two and folded."""
    width = 1 << (rows.shape[1] - 1).bit_length()
    rows = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
    while width > 1:
        width //= 2
        rows = rows[:, :width] + rows[:, width:]
    return rows[:, 0]
