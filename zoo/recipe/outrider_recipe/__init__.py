"""Training of the small models and drafters in `zoo/`. The engine never imports it.

It imports nothing of the engine either, only torch, numpy, tokenizers, transformers, safetensors and matplotlib.
"""
