"""Caches in which layers keep earlier tokens, one file per kind: a spec (shape and bytes) allocates the memory.

A layer gives its spec; `model_caches.py` collects those of a model. The scheduler decides which request owns which
block or row.
"""
