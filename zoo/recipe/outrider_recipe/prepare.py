"""Turns files on this machine into token rows on disk: collect, tokenizer, encode. Each skips what exists.

Work folder: {training,heldout,arithmetic}.jsonl, sources.json, tokens/{code,chat,arithmetic}.*.npy.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from outrider_recipe import corpus, sources, tokens, vocabulary
from outrider_recipe.arithmetic.problems import DRILL_SHARE, draw_drill, draw_training, plain_text

ARITHMETIC_CHUNKS = 64  # the seed of a chunk is its number, so the texts do not depend on the worker count


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Sizes of the data. The defaults made the shipped models."""

    vocab_size: int = 3072
    package_limit: int = 24_000_000
    """Maximum bytes of one package."""
    num_packages: int = 1000
    """Maximum number of packages besides the standard library; small for toy runs."""
    num_problems: int = 700_000
    tokenizer_bytes: int = 40_000_000
    seed: int = 1


def collect(work: Path, *, recipe: Recipe, workers: int, say: Callable[[str], None]) -> None:
    if (work / "sources.json").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    allowed, refused = sources.allowed_packages()
    read = [sources.standard_library(), *allowed[: recipe.num_packages]]
    built = corpus.build(read, package_limit=recipe.package_limit, workers=workers, say=say)
    for name, documents in (("training", built.training), ("heldout", built.held_out)):
        with (work / f"{name}.jsonl").open("w") as file:
            for document in documents:
                exercises = [(exercise.request, exercise.reply) for exercise in document.exercises]
                line = {
                    "package": document.package,
                    "path": document.path,
                    "text": document.text,
                    "exercises": exercises,
                }
                file.write(json.dumps(line) + "\n")
    with (work / "arithmetic.jsonl").open("w") as file:
        for text in _arithmetic_texts(recipe, workers=workers):
            file.write(json.dumps(text) + "\n")
    record = built.record() | {"refused_packages": dict(refused)}
    (work / "sources.json").write_text(json.dumps(record, indent=1))


def _lines(path: Path) -> Iterator[dict[str, object]]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)


def code_texts(work: Path) -> Iterator[str]:
    return (str(line["text"]) for line in _lines(work / "training.jsonl"))


def chat_texts(work: Path) -> Iterator[str]:
    for line in _lines(work / "training.jsonl"):
        for request, reply in line["exercises"]:  # type: ignore[attr-defined]
            yield vocabulary.chat_text(request, assistant=reply)


def _arithmetic_chunk(job: tuple[int, int]) -> list[str]:
    """Writes about half of the stories as chat, half as plain text, with drills among them."""
    seed, size = job
    random = Random(seed)
    texts = []
    for _ in range(size):
        problem = draw_drill(random) if random.random() < DRILL_SHARE else draw_training(random)
        if random.random() < 0.5:
            texts.append(plain_text(problem))
        else:
            texts.append(vocabulary.chat_text(problem.question, assistant=problem.answer))
    return texts


def _arithmetic_texts(recipe: Recipe, *, workers: int) -> Iterator[str]:
    size = -(-recipe.num_problems // ARITHMETIC_CHUNKS)
    jobs = [(recipe.seed * 10_000 + chunk, size) for chunk in range(ARITHMETIC_CHUNKS)]
    with ProcessPoolExecutor(workers) as pool:
        for texts in pool.map(_arithmetic_chunk, jobs):
            yield from texts


def arithmetic_texts(work: Path) -> Iterator[str]:
    with (work / "arithmetic.jsonl").open() as file:
        for line in file:
            yield json.loads(line)


def train_tokenizer(work: Path, folder: Path, *, recipe: Recipe, max_length: int) -> Tokenizer:
    if (folder / "tokenizer.json").exists():
        return vocabulary.load(folder)

    def sample() -> Iterator[str]:
        available = (work / "training.jsonl").stat().st_size
        stride = max(1, available // recipe.tokenizer_bytes)
        yield from islice(code_texts(work), 0, None, stride)
        for text in islice(arithmetic_texts(work), recipe.num_problems // 40):
            yield text.replace(vocabulary.START_OF_TURN, "").replace(vocabulary.END_OF_TURN, "")

    tokenizer = vocabulary.train(sample(), vocab_size=recipe.vocab_size)
    vocabulary.save(tokenizer, folder, max_length=max_length)
    return tokenizer


def encode(work: Path, tokenizer: Tokenizer, *, say: Callable[[str], None]) -> None:
    folder = work / "tokens"
    folder.mkdir(exist_ok=True)
    kinds = {"code": code_texts, "chat": chat_texts, "arithmetic": arithmetic_texts}
    for name, texts in kinds.items():
        if not (folder / f"{name}.starts.npy").exists():
            say(f"{name}: {tokens.encode(texts(work), tokenizer, folder / name) / 1e6:.1f} million tokens")


@dataclass(frozen=True, slots=True)
class CodePrompt:
    package: str
    path: str
    ids: list[int]  # the beginning of a held-out file
    truth: list[int]  # the rest of the file


def held_out_code(work: Path, tokenizer: Tokenizer, *, num_tokens: int, most: int, seed: int) -> list[CodePrompt]:
    """One prompt of 96 to 480 tokens from each held-out file that is long enough."""
    random = Random(seed)
    prompts: list[CodePrompt] = []
    for line in _lines(work / "heldout.jsonl"):
        ids = tokenizer.encode(str(line["text"])).ids
        size = random.randrange(96, 481)
        if len(ids) >= size + num_tokens and len(prompts) < most:
            truth = ids[size : size + num_tokens]
            prompts.append(CodePrompt(str(line["package"]), str(line["path"]), ids[:size], truth))
    return prompts


def held_out_windows(work: Path, tokenizer: Tokenizer, *, length: int, most: int) -> list[list[int]]:
    """Non-overlapping windows of `length` tokens over the held-out files laid end to end."""
    end = vocabulary.special_id(tokenizer, vocabulary.END_OF_TEXT)
    row: list[int] = []
    for line in _lines(work / "heldout.jsonl"):
        row += [*tokenizer.encode(str(line["text"])).ids, end]
    windows = [row[i : i + length] for i in range(0, len(row) - length, length)]
    stride = max(1, len(windows) // most)
    return windows[::stride][:most]
