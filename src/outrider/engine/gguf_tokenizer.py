"""Builds the tokenizer of a GGUF file from its metadata: byte-level BPE ("gpt2") or BPE of SentencePiece ("llama").

A file names how a text is split into words (`tokenizer.ggml.pre`). One that is not known here is refused, because a
wrong split gives other tokens for the same text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.loading.gguf.file import GgufFile
from outrider.loading.gguf.vocabulary import SPACE, TokenType, Vocabulary, read_vocabulary

_REMEDY = (
    "Use the model's directory with its tokenizer.json, or pass skip_tokenizer_init=True and prompts as token ids."
)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """The way in which a text is split into words before merges are applied."""

    pattern: str
    has_single_digits: bool = False
    """Each digit is a word, before the pattern is applied."""
    is_nfc: bool = False
    """Characters are composed first."""
    ignores_merges: bool = False
    """A word that is a token is taken as it is."""
    has_bos: bool = False
    """A prompt begins with bos where the file does not say it."""


_LLAMA3_SPLIT = _Split(pattern=_LLAMA3, ignores_merges=True, has_bos=True)
_SPLITS = {
    "gpt-2": _Split(pattern=_GPT2),
    "smollm": _Split(pattern=_GPT2, has_single_digits=True),
    "llama-bpe": _LLAMA3_SPLIT,
    "llama3": _LLAMA3_SPLIT,
    "llama-v3": _LLAMA3_SPLIT,
    "qwen2": _Split(pattern=_QWEN2, is_nfc=True),
}

_NO_EFFECT = (
    "ggml.token_type_count", "ggml.eot_token_id", "ggml.eom_token_id", "ggml.seperator_token_id", "ggml.cls_token_id",
    "ggml.mask_token_id", "ggml.prefix_token_id", "ggml.suffix_token_id", "ggml.middle_token_id",
    *(f"ggml.fim_{name}_token_id" for name in ("pre", "suf", "mid", "pad", "rep", "sep")),
    "huggingface.json", "chat_templates",
)  # fmt: skip
_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""Special tokens -> their keys in a file."""
_TEMPLATE = "chat_template"


def gguf_tokenizer(path: Path) -> Any:
    """The tokenizer of a GGUF file with its chat templates, as transformers' PreTrainedTokenizerFast.

    Raises UnsupportedError for a kind that cannot be made exactly, CheckpointError for metadata that contradicts
    itself.
    """
    from transformers import PreTrainedTokenizerFast

    file = GgufFile(path)
    reader = ConfigReader(file.section("tokenizer."), where=str(path), prefix="tokenizer.")
    kind = reader.text("ggml.model", default="none")
    if kind not in ("gpt2", "llama"):
        raise UnsupportedError(
            f"{path}: tokenizer.ggml.model={kind!r} is not supported. Supported: gpt2, llama. {_REMEDY}"
        )
    vocabulary = read_vocabulary(file)
    special = _special_tokens(reader, vocabulary)
    for key in ("ggml.remove_extra_whitespaces", "ggml.add_sep_token"):
        reader.neutral(key, False, reason="nothing is removed or added")
    reader.neutral("ggml.precompiled_charsmap", [], reason="nothing is replaced")
    reader.ignore("ggml.tokens", "ggml.token_type", *_NO_EFFECT, reason="read before, or not for texts")
    build = _byte_level if kind == "gpt2" else _sentence_piece
    backend, has_bos = build(file, reader, vocabulary)
    _add_ends(backend, reader, special, has_bos=has_bos)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{name: text for name, (text, _) in special.items()},
    )
    tokenizer.chat_template = _templates(reader)
    reader.finish()
    return tokenizer


def _special_tokens(reader: ConfigReader, vocabulary: Vocabulary) -> dict[str, tuple[str, int]]:
    """Name -> (text, id) of the special tokens that the file names."""
    found = {}
    for name, key in _NAMES.items():
        if reader.has(f"ggml.{key}_token_id"):
            token_id = reader.integer(f"ggml.{key}_token_id", minimum=0)
            if token_id >= len(vocabulary.texts):
                raise CheckpointError(
                    f"{reader.said(f'ggml.{key}_token_id')} is not one of {len(vocabulary.texts)} tokens. Download it"
                    " again."
                )
            found[name] = vocabulary.texts[token_id], token_id
    return found


def _templates(reader: ConfigReader) -> str | dict[str, str] | None:
    """The chat template; several by name where the file has others beside it, such as one with tools."""
    named = [key for key in reader.keys if key.startswith(f"{_TEMPLATE}.")]
    found = {key.partition(".")[2]: reader.text(key) for key in named}
    if reader.has(_TEMPLATE):
        found = {"default": reader.text(_TEMPLATE)} | found
    return found if len(found) > 1 else next(iter(found.values()), None)


def _byte_level(file: GgufFile, reader: ConfigReader, vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    """A tokenizer whose words are bytes in the letters of GPT-2, and whether prompts begin with bos by default."""
    name = reader.text("ggml.pre", default="missing")
    split = _SPLITS.get(name)
    if split is None:
        raise UnsupportedError(
            f"{file.path}: tokenizer.ggml.pre={name!r} is not supported: it says how texts are split into words."
            f" Supported: {', '.join(_SPLITS)}. {_REMEDY}"
        )
    reader.neutral("ggml.add_space_prefix", False, reason="no space is added")
    reader.ignore("ggml.scores", reason="merges say the order")
    merges = _merges_of(reader, vocabulary)
    backend = Tokenizer(models.BPE(_ids(vocabulary), merges, ignore_merges=split.ignores_merges))
    if split.is_nfc:
        backend.normalizer = normalizers.NFC()
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split.has_single_digits else []
    words = pre_tokenizers.Split(Regex(split.pattern), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*digits, words, letters])
    backend.decoder = decoders.ByteLevel()
    _add_whole_tokens(backend, vocabulary.of_types(TokenType.CONTROL, TokenType.USER_DEFINED), vocabulary)
    return backend, split.has_bos


def _merges_of(reader: ConfigReader, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges, in order. CheckpointError for one that makes no token."""
    merges = []
    known = set(vocabulary.texts)
    for merge in reader.texts("ggml.merges"):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= known:
            raise CheckpointError(
                f"{reader.where}: tokenizer.ggml.merges has {merge!r}, which does not make a token of two. Download it"
                " again."
            )
        merges.append((left, right))
    return merges


def _sentence_piece(file: GgufFile, reader: ConfigReader, vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    """A tokenizer with a mark for spaces, and bytes for characters without a token. Prompts begin with bos."""
    reader.ignore("ggml.pre", reason="the model says it")
    unknown = [text for _, text in vocabulary.of_types(TokenType.UNKNOWN)]
    merges = [merge for _, merge in sorted(_scored_merges(file, reader, vocabulary), key=lambda one: one[0])]
    model = models.BPE(
        _ids(vocabulary), merges, unk_token=unknown[0] if unknown else None, fuse_unk=True, byte_fallback=True
    )
    backend = Tokenizer(model)
    has_prefix = reader.flag("ggml.add_space_prefix", default=True)
    prefix = [normalizers.Prepend(SPACE)] if has_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    found = vocabulary.of_types(TokenType.CONTROL, TokenType.USER_DEFINED)
    _add_whole_tokens(backend, [(index, text) for index, text in found if SPACE not in text], vocabulary)
    return backend, True


_Order = tuple[float, int]


def _scored_merges(
    file: GgufFile, reader: ConfigReader, vocabulary: Vocabulary
) -> list[tuple[_Order, tuple[str, str]]]:
    """(place in the order, pair) for each pair of tokens that together are a token; the pair whose left part is
    longest comes first, as in tokenizer.json files.

    The token with the highest score is made first. Gemma's come in the order of their ids: scores of tokens that its
    converter calls added, runs of spaces among them, are overwritten.
    """
    scores = file.get("tokenizer.ggml.scores")
    reader.ignore("ggml.scores", "ggml.merges", reason="made from the scores")
    texts = vocabulary.texts
    if file.architecture.startswith("gemma"):
        scores = range(0, -len(texts), -1)
    elif not isinstance(scores, list) or len(scores) != len(texts) or not all(isinstance(one, float) for one in scores):
        raise CheckpointError(f"{file.path}: tokenizer.ggml.scores is not a number for each token. Download it again.")
    parts = frozenset(texts)
    return [
        ((-scores[index], -cut), (text[:cut], text[cut:]))
        for index, text in vocabulary.of_types(TokenType.NORMAL, TokenType.USER_DEFINED)
        for cut in range(1, len(text))
        if text[:cut] in parts and text[cut:] in parts
    ]


def _ids(vocabulary: Vocabulary) -> dict[str, int]:
    return {text: index for index, text in vocabulary.used.items()}


def _add_ends(backend: Tokenizer, reader: ConfigReader, special: dict[str, tuple[str, int]], *, has_bos: bool) -> None:
    """bos before and eos after a prompt, as the file says."""
    begin, end = reader.flag("ggml.add_bos_token", default=has_bos), reader.flag("ggml.add_eos_token")
    before = [special["bos_token"]] if begin and "bos_token" in special else []
    after = [special["eos_token"]] if end and "eos_token" in special else []
    if before or after:
        texts = [*(text for text, _ in before), "$A", *(text for text, _ in after)]
        backend.post_processor = processors.TemplateProcessing(
            single=texts, pair=[*texts, "$B"], special_tokens=before + after
        )


def _add_whole_tokens(backend: Tokenizer, found: list[tuple[int, str]], vocabulary: Vocabulary) -> None:
    """Tokens that are found in a text as a whole, before anything else: special ones, and those that were added."""
    control = TokenType.CONTROL
    backend.add_tokens(
        [
            AddedToken(text, normalized=False, special=vocabulary.types[index] == control)
            for index, text in found
            if text
        ]
    )
