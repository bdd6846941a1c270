"""Time to make a grammar's mask with xgrammar and with llguidance: `python benchmarks/grammar_masks.py`.

On the zoo's vocabulary of 3072 and on a synthetic byte-level one of 128 256: all bytes, and the most common words and
word pieces in the Python files of the standard library. Each library walks the same text token by token.
"""

import argparse
import collections
import itertools
import json
import re
import sysconfig
import tempfile
import time
from pathlib import Path

import llguidance
import llguidance.hf
import llguidance.torch
import numpy as np
import torch
import xgrammar
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ZOO = Path(__file__).parents[1] / "zoo" / "tiny"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 5},
        "kind": {"enum": ["cat", "dog", "bird"]},
        "place": {
            "type": "object",
            "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
            "required": ["x", "y"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "kind", "place"],
    "additionalProperties": False,
}
TEXT = json.dumps(
    {
        "name": "A name with several words in it",
        "age": 42,
        "tags": ["first", "the second tag", "another one"],
        "kind": "dog",
        "place": {"x": 1.5, "y": -20.25},
    }
)
CASES = {
    "JSON schema": (SCHEMA, TEXT),
    "any JSON object": ({"type": "object"}, TEXT),
    "regex": (r"[A-Z][a-z]+( [a-z]+)*: -?[0-9]{1,6}(\.[0-9]+)?", "Some words of text and a number: -1234.5678"),
}


def synthetic(size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level tokens without merges: `longest_match` does the encoding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    counts: collections.Counter[str] = collections.Counter()
    for path in itertools.islice(sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")), 200):
        for word in re.findall(r" ?\w+| ?[^\w\s]+|\s+", path.read_text(errors="replace")):
            for start, end in {(0, len(word)), *((a, b) for a in range(len(word)) for b in range(a + 2, a + 8))}:
                counts[word[start:end]] += 1
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = dict.fromkeys(alphabet)
    for word, _ in counts.most_common():
        if len(names) == size - 1:
            break
        ((name, _),) = level.pre_tokenize_str(word) or (("", None),)
        if name:
            names[name] = None
    vocab = {name: index for index, name in enumerate([*names, "<|end|>"])}
    assert len(vocab) == size, f"{len(vocab)} tokens were found"
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = level, decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


class Walk:
    """Spells ASCII text token by token: the longest token of the vocabulary that a mask allows."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text: str) -> None:
        self._vocab = tokenizer.get_vocab()
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        ((self._left, _),) = level.pre_tokenize_str(text)

    def next(self, mask: torch.Tensor) -> int | None:
        if not self._left:
            return None
        for size in range(min(len(self._left), 24), 0, -1):
            token_id = self._vocab.get(self._left[:size])
            if token_id is not None and is_set(mask, token_id):
                self._left = self._left[size:]
                return token_id
        raise AssertionError(f"no token is allowed before {self._left!r}")


def is_set(mask: torch.Tensor, token_id: int) -> bool:
    return bool((int(mask[0, token_id // 32]) >> token_id % 32) & 1)


def with_xgrammar(tokenizer, size: int, end: int, grammar, walk: Walk) -> tuple[float, float, list[float]]:
    started = time.perf_counter()
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=[end])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    ready = time.perf_counter()
    if isinstance(grammar, dict):
        compiled = compiler.compile_json_schema(json.dumps(grammar))
    else:
        compiled = compiler.compile_regex(grammar)
    matcher = xgrammar.GrammarMatcher(compiled)
    compiled_at = time.perf_counter()
    mask = xgrammar.allocate_token_bitmask(1, size)
    seconds = []
    token_id: int | None = 0
    while token_id is not None:
        before = time.perf_counter()
        matcher.fill_next_token_bitmask(mask, 0)
        seconds.append(time.perf_counter() - before)
        token_id = walk.next(mask)
        assert token_id is None or matcher.accept_token(token_id), token_id
    assert is_set(mask, end)
    return ready - started, compiled_at - ready, seconds


def with_llguidance(tokenizer, size: int, end: int, grammar, walk: Walk) -> tuple[float, float, list[float]]:
    started = time.perf_counter()
    vocabulary = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=end)
    ready = time.perf_counter()
    if isinstance(grammar, dict):
        text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(grammar))
    else:
        text = llguidance.LLMatcher.grammar_from_regex(grammar)
    matcher = llguidance.LLMatcher(vocabulary, text)
    assert not matcher.is_error(), matcher.get_error()
    compiled_at = time.perf_counter()
    mask = llguidance.torch.allocate_token_bitmask(1, size)
    seconds = []
    token_id: int | None = 0
    while token_id is not None:
        before = time.perf_counter()
        llguidance.torch.fill_next_token_bitmask(matcher, mask, 0)
        seconds.append(time.perf_counter() - before)
        token_id = walk.next(mask)
        assert token_id is None or matcher.consume_token(token_id), token_id
    assert is_set(mask, end)
    return ready - started, compiled_at - ready, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab-size", type=int, default=128_256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| vocabulary | grammar | library | vocabulary ready, s | compiled, ms | mask mean, µs | 99 % | largest |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        zoo = PreTrainedTokenizerFast.from_pretrained(ZOO)
        large = synthetic(options.vocab_size, Path(folder))
        for tokenizer in (zoo, large):
            size = len(tokenizer)
            for name, (grammar, text) in CASES.items():
                for library, run in (("xgrammar", with_xgrammar), ("llguidance", with_llguidance)):
                    ready, compiled, seconds = run(
                        tokenizer, size, tokenizer.eos_token_id, grammar, Walk(tokenizer, text)
                    )
                    micro = np.array(seconds) * 1e6
                    figures = f"{micro.mean():.0f} | {np.quantile(micro, 0.99):.0f} | {micro.max():.0f}"
                    print(f"| {size} | {name} | {library} | {ready:.2f} | {1000 * compiled:.1f} | {figures} |")


if __name__ == "__main__":
    main()
