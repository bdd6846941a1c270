"""Reasoning of DeepSeek-R1, its distilled models and QwQ: text up to </think>, with or without the first mark."""

from outrider.server.think_tags import ThinkReader


class Parser(ThinkReader):
    """An answer reasons from its first token on, unless the prompt has closed the reasoning."""

    reasons_unless_closed = True
