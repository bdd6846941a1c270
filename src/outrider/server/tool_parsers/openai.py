"""Tool calls of gpt-oss, in OpenAI's harmony format: `harmony.py` has the whole format."""

from outrider.server.harmony import HarmonyReader


class Parser(HarmonyReader):
    """Reads the calls of the functions that the request offers, and the reasoning around them."""
