"""Training of the small models and drafters in `zoo/`. Nothing here is imported when a model is served.

It imports only itself, torch, numpy, tokenizers, transformers, safetensors (matplotlib for the plot).
"""
