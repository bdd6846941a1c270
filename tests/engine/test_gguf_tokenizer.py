"""Tokenizers made from the metadata of GGUF files: ids of varied texts against the tokenizer that the metadata was
made from, in the form in which the family publishes it, and against transformers' tokenizer of the same file."""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
from transformers.tokenization_utils_base import generate_merges

from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer as EngineTokenizer
from outrider.loading.gguf.vocabulary import TokenType
from tests.engine.tokenizers_made_here import SENTENCES
from tests.support.gguf_files import add_values
from tests.support.varied_texts import texts

PLAIN, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = TokenType
SPACE = "▁"
CORPUS = [*SENTENCES * 4, *Path(__file__).read_text().splitlines(), "year 2024, 1234567 and 3.14159"]
SPECIAL = ("<|end|>", "<|user|>")
WHOLE = ("<think>", "\n\n\n")
"""Added tokens that are not special."""
UNMERGED = "xyzzy"
"""A token that no merges make: Llama 3 takes a whole word as it is."""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)
"""The pattern of Llama 3, as published."""

DIGITS = pre_tokenizers.Digits(individual_digits=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
KINDS: dict[str, tuple[Any, Any]] = {
    "gpt-2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "smollm": (None, pre_tokenizers.Sequence([DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=False)])),
    "llama-bpe": (None, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), BYTES])),
    "qwen2": (
        normalizers.NFC(),
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT.replace("{1,3}", "")), "isolated"), BYTES]),
    ),
}
"""tokenizer.ggml.pre -> normalizer and pre-tokenizer of the family's tokenizer.json."""


def write_metadata(path: Path, values: dict[str, Any], *, architecture: str = "llama") -> Path:
    """A file without tensors; `values` are by their keys below "tokenizer."."""
    writer = GGUFWriter(path, architecture)
    add_values(writer, {f"tokenizer.{key}": value for key, value in values.items()})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(kind: str) -> tuple[Tokenizer, dict[str, Any]]:
    """A trained tokenizer in its published form, and its metadata; the last tokens are fillers."""
    normalizer, split = KINDS[kind]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    vocabulary = trained.get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), UNMERGED, *SPECIAL, *WHOLE]
    merges = merges_of(trained)
    made = Tokenizer(
        models.BPE({text: index for index, text in enumerate(tokens)}, merges, ignore_merges=kind == "llama-bpe")
    )
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer, made.decoder = split, decoders.ByteLevel()
    add_whole(made)
    types = [*[PLAIN] * (len(vocabulary) + 1), *[CONTROL] * len(SPECIAL), *[ADDED] * len(WHOLE), UNUSED]
    return made, {
        "ggml.model": "gpt2",
        "ggml.pre": kind,
        "ggml.tokens": [*tokens, "[PAD999]"],
        "ggml.token_type": [int(one) for one in types],
        "ggml.merges": [" ".join(merge) for merge in merges],
        "ggml.bos_token_id": tokens.index("<|user|>"),
        "ggml.eos_token_id": tokens.index("<|end|>"),
    }


def merges_of(trained: Tokenizer) -> list[tuple[str, str]]:
    """The merges of a tokenizer, which only its JSON shows."""
    return [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]


def add_whole(made: Tokenizer) -> None:
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    made.add_tokens([AddedToken(text, normalized=False) for text in WHOLE])


def sentence_piece(*, is_gemma: bool) -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer in the published form of Llama 2 or Gemma 3, and its metadata."""
    mark = normalizers.Replace(" ", SPACE)
    trained = Tokenizer(models.BPE())
    trained.normalizer = mark
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SPACE}*[^{SPACE}]+"), "isolated")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    plain = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    plain = [text for text in plain if text not in "你好🙂"]  # their bytes are used
    first = ["<unk>", "<s>", "</s>", *SPECIAL, *WHOLE, *(f"<0x{byte:02X}>" for byte in range(256))]
    spaces = [SPACE * count for count in range(2, 9)] if is_gemma else []
    tokens = list(dict.fromkeys([*first, *spaces, *plain]))
    kinds = (
        {"<unk>": UNKNOWN} | dict.fromkeys(["<s>", "</s>", *SPECIAL], CONTROL) | dict.fromkeys([*WHOLE, *spaces], ADDED)
    )
    types = [kinds.get(text, BYTE if text.startswith("<0x") else PLAIN) for text in tokens]
    scores = [float(-index) if kind == PLAIN else 0.0 for index, kind in enumerate(types)]
    if is_gemma:
        scores = [-1000.0 if kind == ADDED else score for score, kind in zip(scores, types, strict=True)]
    ids = {text: index for index, text in enumerate(tokens)}
    order = {text: float(-index) for text, index in ids.items()} if is_gemma else dict(zip(tokens, scores, strict=True))
    fixed = {text for text, kind in kinds.items() if not set(text) <= {SPACE}} | set(first)
    merges = generate_merges(ids, order, skip_tokens=fixed - set(WHOLE))
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = mark if is_gemma else normalizers.Sequence([normalizers.Prepend(SPACE), mark])
    strip = [] if is_gemma else [decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    made.add_special_tokens(["<s>", "</s>"])
    add_whole(made)
    return made, {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.tokens": [" " * len(text) if text in spaces else text for text in tokens],  # as converters write them
        "ggml.token_type": [int(kind) for kind in types],
        "ggml.scores": scores,
        "ggml.add_space_prefix": not is_gemma,
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
    }


def made(kind: str) -> tuple[Tokenizer, dict[str, Any]]:
    return byte_level(kind) if kind in KINDS else sentence_piece(is_gemma=kind == "gemma3")


def read(tmp_path: Path, values: dict[str, Any], *, kind: str = "") -> EngineTokenizer:
    architecture = "gemma3" if kind == "gemma3" else "llama"
    return EngineTokenizer(write_metadata(tmp_path / "model.gguf", values, architecture=architecture))


def differences(found: Iterable[list[int]], wanted: Iterable[list[int]]) -> list[str]:
    return [text for text, ours, theirs in zip(texts(), found, wanted, strict=True) if ours != theirs]


@pytest.mark.parametrize("kind", [*KINDS, "llama", "gemma3"])
def test_ids_and_texts_are_those_of_the_published_form(tmp_path: Path, kind: str) -> None:
    original, values = made(kind)
    tokenizer = read(tmp_path, values, kind=kind)
    wanted = [original.encode(text, add_special_tokens=False).ids for text in texts()]
    found = [tokenizer.encode(text, add_special_tokens=False) for text in texts()]
    assert not differences(found, wanted)
    for skips in (True, False):
        assert [tokenizer.decode(ids, skip_special_tokens=skips) for ids in wanted] == [
            original.decode(ids, skip_special_tokens=skips) for ids in wanted
        ]
    assert tokenizer.is_special(values["ggml.eos_token_id"]) and tokenizer.eos_token_id == values["ggml.eos_token_id"]
    assert len({token for ids in wanted for token in ids}) > 120  # the texts use much of the vocabulary


@pytest.mark.parametrize("kind", [*KINDS, "llama", "gemma3"])
def test_ids_are_those_of_transformers_from_the_same_file(tmp_path: Path, kind: str) -> None:
    """Except where its own form is another than the published one: it splits no digits of SmolLM, composes nothing
    for Qwen, finds no added tokens of line ends, merges whole words for Llama 3, and for Llama 2 adds no space before a
    text that begins with one or follows a special token."""
    _, values = made(kind)
    tokenizer = read(tmp_path, values, kind=kind)
    name, metadata, _ = get_gguf_tokenizer(str(tmp_path / "model.gguf"))
    oracle, _ = convert_gguf_tokenizer(name, metadata)
    found = [tokenizer.encode(text, add_special_tokens=False) for text in texts()]
    wanted = [oracle.encode(text, add_special_tokens=False).ids for text in texts()]
    differ = differences(found, wanted)
    if kind in KINDS:
        differ = [text for text in differ if "\n\n\n" not in text and not (kind == "llama-bpe" and UNMERGED in text)]
    if kind == "smollm":
        differ = [text for text in differ if not any(unicodedata.category(letter)[0] == "N" for letter in text)]
    if kind == "qwen2":
        differ = [text for text in differ if unicodedata.is_normalized("NFC", text)]
    if kind == "llama":
        parts = (" ", SPACE, *SPECIAL, *WHOLE)
        differ = [
            text for text in differ if not text.startswith(parts[:2]) and not any(one in text for one in parts[2:])
        ]
    assert not differ


def test_bos_and_eos_are_added_as_the_file_says(tmp_path: Path) -> None:
    for kind, begins in (("gpt-2", False), ("llama-bpe", True), ("llama", True)):
        original, values = made(kind)
        plain = original.encode("the fox", add_special_tokens=False).ids
        bos, eos = values["ggml.bos_token_id"], values["ggml.eos_token_id"]
        assert read(tmp_path, values).encode("the fox") == [bos] * begins + plain
        for adds_bos in (False, True):
            said = values | {"ggml.add_bos_token": adds_bos, "ggml.add_eos_token": not adds_bos}
            wanted = [bos, *plain] if adds_bos else [*plain, eos]
            assert read(tmp_path, said).encode("the fox") == wanted
            assert read(tmp_path, said).encode("the fox", add_special_tokens=False) == plain


def test_templates_come_from_the_file(tmp_path: Path) -> None:
    _, values = made("gpt-2")
    assert read(tmp_path, values).chat_template is None
    template = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
    tokenizer = read(tmp_path, values | {"chat_template": template})
    ids = encode_chat(tokenizer, [{"role": "user", "content": "hi"}], ChatOptions())
    assert tokenizer.decode(ids, skip_special_tokens=False) == "hi<|end|>"
    several = values | {"chat_template": template, "chat_template.tool_use": "tools", "chat_templates": ["tool_use"]}
    assert read(tmp_path, several).chat_template == template


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"ggml.model": "t5"},
            UnsupportedError,
            r"tokenizer\.ggml\.model='t5' is not supported\. Supported: gpt2, llama",
        ),
        ({"ggml.model": None}, UnsupportedError, r"tokenizer\.ggml\.model='none' is not supported"),
        ({"ggml.pre": "tekken"}, UnsupportedError, r"tokenizer\.ggml\.pre='tekken' .* Supported: gpt-2, smollm"),
        ({"ggml.pre": None}, UnsupportedError, r"tokenizer\.ggml\.pre='missing' is not supported"),
        ({"ggml.add_space_prefix": True}, UnsupportedError, "add_space_prefix=True"),
        ({"ggml.remove_extra_whitespaces": True}, UnsupportedError, "remove_extra_whitespaces=True"),
        ({"ggml.precompiled_charsmap": [1, 2]}, UnsupportedError, "precompiled_charsmap"),
        ({"ggml.tokens": None}, CheckpointError, "has no tokenizer.ggml.tokens"),
        ({"ggml.tokens": ["a"] * 706}, CheckpointError, "the token 'a' occurs twice"),
        ({"ggml.token_type": [1]}, CheckpointError, "is not a number for each of 706 tokens"),
        ({"ggml.merges": ["zz qq"]}, CheckpointError, "has 'zz qq', which does not make a token of two"),
        ({"ggml.merges": ["a"]}, CheckpointError, "has 'a', which does not make"),
        ({"ggml.eos_token_id": 706}, CheckpointError, r"eos_token_id=706 is not one of 706 tokens"),
        ({"ggml.eos_token_id": "x"}, ConfigError, r"eos_token_id='x' must be"),
        ({"chat_template": 3}, ConfigError, r"tokenizer\.chat_template=3 must be a string"),
        ({"ggml.normalizer": "lower"}, UnsupportedError, r"tokenizer\.ggml\.normalizer='lower'"),
    ],
)
def test_what_cannot_be_made_exactly_is_named(tmp_path: Path, changes: dict, error: type, says: str) -> None:
    _, values = made("gpt-2")
    with pytest.raises(error, match=says):
        read(tmp_path, values | changes)


def test_scores_must_fit_the_tokens(tmp_path: Path) -> None:
    _, values = made("llama")
    for scores in (None, [1.0], ["x"] * len(values["ggml.tokens"])):
        with pytest.raises(CheckpointError, match="scores is not a number for each token"):
            read(tmp_path, values | {"ggml.scores": scores})
