"""The model's tokenizer and chat template, through transformers and its `tokenizers` backend.

Knows directories and text; nothing of requests.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer

from outrider.core.errors import CheckpointError, RequestError

_FILES = ("tokenizer.json", "tokenizer_config.json")


class Tokenizer:
    """Text to ids and back, for one model directory."""

    def __init__(self, directory: Path) -> None:
        if not any((directory / name).is_file() for name in _FILES):
            raise CheckpointError(
                f"{directory} has no tokenizer ({' or '.join(_FILES)}). Add one, or pass skip_tokenizer_init=True and "
                "prompts as token ids."
            )
        self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        if not self._tokenizer.is_fast:
            raise CheckpointError(f"{directory} has no tokenizer.json. Convert the tokenizer to that form.")
        self._backend = self._tokenizer.backend_tokenizer
        self._num_ids = len(self._tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a prompt."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def encode_chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> list[int]:
        """Ids of chat messages under the model's template, with the assistant's header behind them."""
        if not self._tokenizer.chat_template:
            raise RequestError("The model has no chat template. Use generate() with plain text.")
        text = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **options
        )
        return self.encode(text, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out; ids that the tokenizer does not have give nothing."""
        known = [token_id for token_id in token_ids if token_id < self._num_ids]
        return self._tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def stream(self) -> "TextStream":
        """A decoder for the tokens of one output."""
        return TextStream(self)

    def new_decoder(self) -> DecodeStream:
        return DecodeStream(skip_special_tokens=True)

    def step(self, decoder: DecodeStream, token_id: int) -> str:
        """Text that `token_id` completes; empty while bytes of a character are missing."""
        if token_id >= self._num_ids:
            return ""
        return decoder.step(self._backend, token_id) or ""


class TextStream:
    """Incremental text of one output: bytes of an unfinished character are held back until it is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.new_decoder()
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """Text completed by one more token."""
        self._pending.append(token_id)
        text = self._tokenizer.step(self._decoder, token_id)
        if text:
            self._pending.clear()
        return text

    def flush(self) -> str:
        """What was held back, as the tokenizer renders it when nothing more comes."""
        text = self._tokenizer.decode(self._pending)
        self._pending.clear()
        return text
