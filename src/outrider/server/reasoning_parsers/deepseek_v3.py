"""Reasoning of DeepSeek-V3.1 and later, whose prompts open it with <think> or close it with </think>."""

from outrider.server.think_tags import ThinkReader


class Parser(ThinkReader):
    """The end of the prompt says whether the answer reasons."""
