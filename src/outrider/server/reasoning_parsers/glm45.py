"""Reasoning of GLM-4.5 and later: <think> … </think>, if the model or the prompt writes the first mark."""

from outrider.server.think_tags import ThinkReader


class Parser(ThinkReader):
    """An answer without marks is content: its prompt turned reasoning off, or the model did not reason."""
