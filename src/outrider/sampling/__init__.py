"""From logits to tokens: noise, request parameters, sampler, verifier, log-probabilities and digests."""
