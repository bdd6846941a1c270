"""A tiny random model that speaks the byte-level tokenizer: its outputs are full of unfinished characters."""

from pathlib import Path

from tests.support.tiny_models import write_tiny_model

from .tokenizers_made_here import save_byte_level

END = 0
"""Id of <|end|>, a special token."""


def write_text_model(directory: Path) -> Path:
    write_tiny_model(
        directory, "qwen3", vocab_size=420, num_hidden_layers=2, eos_token_id=END, max_position_embeddings=512, seed=4
    )
    return save_byte_level(directory)
