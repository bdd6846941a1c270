"""The model's tokenizer and chat template, through transformers and its `tokenizers` backend.

Knows directories and text; nothing of requests.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import decoders

from outrider.core.errors import CheckpointError, RequestError
from outrider.engine.gguf_tokenizer import gguf_tokenizer
from outrider.engine.pair_encoding import Cut, Encoded, cut_text, encode
from outrider.engine.template import render
from outrider.engine.token_bytes import TokenBytes, prompt_pieces
from outrider.loading.files import check_kinds
from outrider.loading.gguf.file import is_gguf

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""Character that decoders write in place of bytes that do not form a character, or not yet."""


class Tokenizer:
    """Text to ids and back, for one model: a directory or a GGUF file."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = gguf_tokenizer(directory) if is_gguf(directory) else _read(directory)
        self._backend = self._tokenizer.backend_tokenizer
        self._backend.no_truncation()  # limits come with a request, and a prompt is never padded
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self._special_ids = {token_id for token_id, token in added.items() if token.special}
        self._special_texts = {token.content for token in added.values() if token.special}
        self.token_bytes = TokenBytes(self._backend)
        self._own_texts = {skips: OwnTexts(self, skip_special_tokens=skips) for skips in (False, True)}

    def own_texts(self, *, skip_special_tokens: bool = True) -> "OwnTexts":
        """Text that each token adds, if it does not depend on the token's neighbours."""
        return self._own_texts[skip_special_tokens]

    @property
    def is_by_bytes(self) -> bool:
        """True if a text is the concatenated bytes of its tokens, which do not depend on the tokens' neighbours."""
        return isinstance(self._backend.decoder, decoders.ByteLevel)

    @cached_property
    def longest_token(self) -> int:
        """Maximum number of characters that a token stands for."""
        return max(map(len, self._backend.get_vocab()), default=1)

    def check_length(self, text: str, *, max_tokens: int) -> None:
        """Raises RequestError if `text` certainly has more than `max_tokens` tokens, without making them."""
        if len(text) > max_tokens and len(text) > max_tokens * self.longest_token:
            raise RequestError(
                f"the text has {len(text)} characters, which are more than {max_tokens} tokens, the most that "
                f"max_model_len allows: no token is longer than {self.longest_token}. Shorten the prompt."
            )

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a prompt."""
        # not verbose: who takes the ids checks their number, and says more than the library's warning
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens, verbose=False))

    def encode_cut(
        self, first: str, second: str | None = None, *, cut: Cut | None = None, add_special_tokens: bool = True
    ) -> Encoded:
        """Token ids of a text, or of two in one prompt, cut to a number of tokens (`engine/pair_encoding.py`)."""
        return encode(self._backend, first, second, cut=cut, add_special_tokens=add_special_tokens)

    def cut_text(self, text: str, max_tokens: int) -> str:
        """The text up to the end of its first `max_tokens` tokens; 0 cuts nothing."""
        return cut_text(self._backend, text, max_tokens)

    @property
    def truncation_side(self) -> str:
        """The end at which this tokenizer cuts texts, "left" or "right"."""
        side: str = self._tokenizer.truncation_side
        return side

    @property
    def eos_token_id(self) -> int | None:
        """The end of a text, as tokenizer_config.json names it; None if it names none."""
        token_id: int | None = self._tokenizer.eos_token_id
        return token_id

    @property
    def chat_template(self) -> str | None:
        """The model's own Jinja template, if it has one."""
        template = self._tokenizer.chat_template
        assert template is None or isinstance(template, (str, dict))
        return template.get("default") if isinstance(template, dict) else template

    def render_chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        """Render chat messages as text; options are those of `template.render`, and chat_template."""
        source = self._tokenizer.get_chat_template(options.pop("chat_template", None), options.get("tools"))
        return render(source, messages, **(self._tokenizer.special_tokens_map | options))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids, without special tokens if asked for; ids that the tokenizer does not have give no text."""
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    def has_text(self, token_id: int, *, skip_special_tokens: bool = True) -> bool:
        """False for special tokens, if these are skipped, and for ids that the tokenizer does not have."""
        if skip_special_tokens and token_id in self._special_ids:
            return False
        return self._backend.id_to_token(token_id) is not None

    def has_special_token(self, text: str) -> bool:
        """True if `text` is the text of a special token."""
        return text in self._special_texts

    def is_special(self, token_id: int) -> bool:
        """True for a special token, such as eos."""
        return token_id in self._special_ids

    def prompt_pieces(self, token_ids: Sequence[int], text: str) -> list[bytes]:
        """The bytes that each token of a prompt adds to `text`, the prompt as it was given."""
        return prompt_pieces(self.token_bytes, token_ids, special_ids=self._special_ids, text=text)

    @property
    def plain_ids(self) -> list[int]:
        """Every id that is an ordinary token: neither special nor added."""
        return sorted(set(self._backend.get_vocab(with_added_tokens=False).values()) - self._special_ids)

    def vocabulary_for_grammars(self, vocab_size: int, eos_token_ids: Sequence[int]) -> "LLTokenizer":
        """The vocabulary in llguidance's form: the bytes of each token, and which tokens end an output."""
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._tokenizer, n_vocab=vocab_size, eos_token=list(eos_token_ids))

    def stream(self, *, skip_special_tokens: bool = True) -> "TextStream":
        """A decoder for the tokens of one output."""
        return TextStream(self, skip_special_tokens=skip_special_tokens)


def _read(directory: Path) -> Any:
    """The tokenizer of a directory. Raises CheckpointError if it has none."""
    if not (directory / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{directory} has no tokenizer.json. Add one (convert a slow tokenizer to that form), or pass "
            "skip_tokenizer_init=True and prompts as token ids."
        )
    check_kinds(directory)
    from transformers import PreTrainedTokenizerFast

    # this class and not AutoTokenizer: tokenizer.json is enough, and AutoTokenizer imports modelling code
    return PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)


class OwnTexts(dict[int, str | None]):
    """Text that a token adds after a whole character, by token id; None if it depends on the token's neighbours.

    Filled as tokens occur. "" for tokens without text.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._skips = skip_special_tokens

    def __missing__(self, token_id: int) -> str | None:
        text: str | None = None
        if not self._tokenizer.has_text(token_id, skip_special_tokens=self._skips):
            text = ""
        elif self._tokenizer.is_by_bytes:
            text = self._tokenizer.decode([token_id], skip_special_tokens=self._skips)
            if not text or _UNFINISHED in text:
                text = None
        self[token_id] = text
        return text


class TextStream:
    """Incremental text of one output. Bytes of an unfinished character are held back, the text before them is not.

        ids:  | ........ | context: the tokens settled last | fresh: their text may end inside a character |

    Text that was returned is final. So after invalid bytes the joined pieces may differ from `decode` of all ids, if
    a decoder looks back (byte fallback: an invalid byte spoils its valid neighbours).
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skips = skip_special_tokens
        self._own_texts = tokenizer.own_texts(skip_special_tokens=skip_special_tokens)
        self._context: list[int] = []
        self._context_text = ""
        self._fresh: list[int] = []
        self._num_given = 0  # characters of the fresh text that were returned

    def push(self, token_id: int) -> str:
        """Append one token. Returns the text that it completes."""
        own = self._own_texts[token_id]
        if own is not None and (not own or not self._fresh):
            return own  # the context need not change: tokens with a text of their own do not read it
        self._fresh.append(token_id)
        text = self._fresh_text()
        whole = text.rstrip(_UNFINISHED)
        piece = whole[self._num_given :]
        self._num_given += len(piece)
        if whole and whole == text:
            self._settle()
        return piece

    def extend(self, token_ids: Sequence[int]) -> str:
        """Append several tokens. Returns the text that they complete: the joined pieces of `push`."""
        if not self._fresh:
            own_texts = self._own_texts
            pieces = [own_texts[token_id] for token_id in token_ids]
            if None not in pieces:
                return "".join(pieces)  # type: ignore[arg-type]
        return "".join([self.push(token_id) for token_id in token_ids])

    def flush(self) -> str:
        """Return the held-back text, as the tokenizer renders it when no token follows."""
        piece = self._fresh_text()[self._num_given :]
        self._settle()
        return piece

    def _settle(self) -> None:
        self._context, self._fresh, self._num_given = self._fresh, [], 0
        self._context_text = self._decode(self._context)

    def _fresh_text(self) -> str:
        text = self._decode(self._context + self._fresh)
        if text.startswith(self._context_text):  # the context shows whether a space belongs in front
            return text[len(self._context_text) :]
        return self._decode(self._fresh)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=self._skips)
