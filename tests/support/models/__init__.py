"""Model files that only tests use."""
