"""From logits to tokens: sampling parameters on the device, the sampler, synthetic acceptance.

The arithmetic of all of it (noise, top-k and top-p, log-probabilities, hashes, verifying drafts) is in `kernels/`.
"""
