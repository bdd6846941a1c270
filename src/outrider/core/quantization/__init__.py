"""Schemes of quantised checkpoints: each module's is read from the config. No torch."""
