"""Reasoning of gpt-oss, in OpenAI's harmony format: `harmony.py` has the whole format."""

from outrider.server.harmony import HarmonyReader


class Parser(HarmonyReader):
    """Reads the channel "analysis" as reasoning, and the channel "final" as content."""
