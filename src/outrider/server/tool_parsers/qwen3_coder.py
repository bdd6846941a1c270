"""Another name, known from vLLM, for the format of `qwen3_xml`."""

from outrider.server.tool_parsers.qwen3_xml import Parser

__all__ = ["Parser"]
