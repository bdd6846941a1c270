"""Attention over the paged KV cache: the batch, the cache, and one file per backend."""
