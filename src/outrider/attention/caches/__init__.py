"""What layers keep of earlier tokens, one file per kind: each states a spec (shape and bytes) and allocates its memory.

A layer gives its spec; `model_caches.py` collects those of a model. Who owns which block or row is not known here.
"""
