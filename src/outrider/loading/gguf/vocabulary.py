"""The vocabulary of a GGUF file: the text of each token, in the spelling of tokenizer.json, and its type."""

from dataclasses import dataclass
from enum import IntEnum

from outrider.core.errors import CheckpointError
from outrider.loading.gguf.file import GgufFile

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""The mark of a space in vocabularies of SentencePiece."""

_ENDS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
)  # fmt: skip
"""Tokens that end a turn or a text. Files name one of a model's ends as a rule, and llama.cpp finds the others so."""


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id."""

    texts: list[str]
    types: list[int]
    """A TokenType each."""

    def of_types(self, *types: TokenType) -> list[tuple[int, str]]:
        """(id, text) of the tokens of these types, in the order of ids."""
        return [(index, text) for index, text in enumerate(self.texts) if self.types[index] in types]

    @property
    def used(self) -> dict[int, str]:
        """Text by id of all tokens but fillers, which a tokenizer.json does not have."""
        return {index: text for index, text in enumerate(self.texts) if self.types[index] != TokenType.UNUSED}


def read_vocabulary(file: GgufFile) -> Vocabulary:
    """The vocabulary of a file. Raises CheckpointError if tokens and types do not fit together, or a token occurs
    twice."""
    texts, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    if not _is_list(texts, str):
        raise CheckpointError(
            f"{file.path} has no tokenizer.ggml.tokens. Convert the model again, or pass skip_tokenizer_init=True and"
            " prompts as token ids."
        )
    if types is None:
        types = [TokenType.NORMAL] * len(texts)
    if not _is_list(types, int) or len(types) != len(texts):
        raise CheckpointError(
            f"{file.path}: tokenizer.ggml.token_type is not a number for each of {len(texts)} tokens. Convert the"
            " model again."
        )
    if file.get("tokenizer.ggml.model") == "llama":  # converters write tokens of spaces alone as they are
        texts = [SPACE * len(text) if text and not text.strip(" ") else text for text in texts]
    if len(set(texts)) != len(texts):
        twice = next(text for index, text in enumerate(texts) if text in texts[:index])
        raise CheckpointError(
            f"{file.path}: the token {twice!r} occurs twice in tokenizer.ggml.tokens. Download it again."
        )
    return Vocabulary(texts, types)


def end_ids(file: GgufFile) -> list[int]:
    """Ids of the tokens that end an output: those that the file names, and those that are known to end a turn."""
    named = [file.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    texts = file.get("tokenizer.ggml.tokens")
    ids = {text: index for index, text in enumerate(texts)} if _is_list(texts, str) else {}
    every = [*(token_id for token_id in named if token_id is not None), *(ids[text] for text in _ENDS if text in ids)]
    return [token_id for place, token_id in enumerate(every) if token_id not in every[:place]]


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)
