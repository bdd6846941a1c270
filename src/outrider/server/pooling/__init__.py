"""Embeddings, scores, ranks and classes over HTTP: the endpoints of a server that runs a pooling model."""
