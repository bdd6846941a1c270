"""Varied short texts for comparing tokenizers: scripts, spaces, digits, code, special tokens, odd characters."""

import random

PIECES = (
    "the quick brown fox", "don't we'll I'M", " ", "  ", "   \t ", "\n", "\n\n", "\n\n\n", "\r\n", "0", "42", "1234567",
    "3.14", "1,000,000", "Grüße aus Köln", "e\u0301te\u0301", "привет", "你好,世界。", "日本語テキスト", "שלום",
    "हिन्दी", "👩‍🚀🎉", "🇩🇪", "\u00a0", "\u200b", "²½٣", "def f(x):\n    return x[1:] + 1\n", "if (a != b) { c++; }",
    "https://a.b/c?d=e&f=%20", "<|end|>", "<|user|>", "<think>", "<thin", "'S", "...", "!!!", "--", "_under_score",
    "CamelCaseWord", "a" * 9, "xyzzy", "\\n", "▁", "\x00",
)  # fmt: skip


def texts(count: int = 300) -> list[str]:
    """Varied texts, each several pieces with and without spaces between."""
    draw = random.Random(0)
    return [*PIECES, *(draw.choice(["", " "]).join(draw.choices(PIECES, k=draw.randint(1, 8))) for _ in range(count))]
