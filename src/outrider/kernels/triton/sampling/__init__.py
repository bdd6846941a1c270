"""Kernels of the sampler: logits processors, noise, top-k and top-p, log-probabilities, verification."""
