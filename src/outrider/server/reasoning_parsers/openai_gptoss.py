"""Another name, known from vLLM, for the parser `openai`."""

from outrider.server.reasoning_parsers.openai import Parser

__all__ = ["Parser"]
