"""Cleans, deduplicates and splits Python files into a training and a held-out side.

A file is held out by the hash of its path; a held-out file whose lines also occur in training files is
dropped, so that copies cannot leak. Knows nothing of tokens.
"""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

from outrider_recipe.instructions import Exercise, exercises_in
from outrider_recipe.sources import Source, path_number

SHORTEST, LONGEST = 300, 120_000  # bytes of a file
LONGEST_LINE = 300
HELD_OUT_SHARE = 50  # one file in fifty
LEAK_LIMIT = 0.35  # a held-out file may share at most this part of its telling lines with training files
TELLING_LINE = 24  # characters; shorter lines (`return self`, `else:`) say nothing about copying

WITHOUT_DIGITS = str.maketrans("", "", "0123456789")
GENERATED = re.compile(r"auto(matically)?[- ]?generated|generated (by|from)|do not edit|do not modify", re.IGNORECASE)
FOREIGN = re.compile(
    r"GNU (Lesser |Affero |Library )?General Public|\b[AL]?GPL\b|Mozilla Public License|\bMPL\b|Creative Commons|"
    r"\bCC[- ]BY|EULA|proprietary|Eclipse Public|\bCeCILL\b|non-?commercial",
    re.IGNORECASE,
)
BOILERPLATE = re.compile(r"copyright|licen[sc]e|all rights reserved|SPDX|authors?:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Document:
    package: str
    path: str
    text: str
    fingerprint: bytes
    exercises: tuple[Exercise, ...] = ()


@dataclass(slots=True)
class Tally:
    """Files and bytes read from one package, for the record that is kept beside the model."""

    version: str
    licence: str
    files: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Corpus:
    training: list[Document] = field(default_factory=list)
    held_out: list[Document] = field(default_factory=list)
    packages: dict[str, Tally] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def record(self) -> dict[str, object]:
        return {
            "packages": {name: asdict(tally) for name, tally in self.packages.items()},
            "training_files": len(self.training),
            "held_out_files": len(self.held_out),
            "dropped_files": dict(self.dropped),
        }


def clean(text: str) -> str:
    """Line ends as \\n, no shebang or coding line, no licence block at the top, no trailing blanks."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    end = 0
    while end < len(lines) and (lines[end].startswith("#") or not lines[end]):
        end += 1
    head = "\n".join(lines[:end])
    if BOILERPLATE.search(head) or head.startswith("#!") or "coding:" in head[:200]:
        lines = lines[end:]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n") + "\n"


def why_dropped(raw: bytes) -> str:
    """The reason not to use a file, or the empty string."""
    if not SHORTEST <= len(raw) <= LONGEST:
        return "size"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not utf-8"
    if "\x00" in text or len(raw) > 1.02 * len(text):
        return "not ascii enough"
    if "<|" in text:
        return "holds special tokens"
    head = text[:3000]
    if FOREIGN.search(head):
        return "licence named in file"
    if GENERATED.search(head):
        return "generated"
    lines = text.split("\n")
    if max(map(len, lines)) > LONGEST_LINE:
        return "long lines"
    if len(text) - len(text.translate(WITHOUT_DIGITS)) > 0.15 * len(text):
        return "numbers"
    code = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    return "little code" if len(code) < 8 else ""


def fingerprint(text: str) -> bytes:
    """Equal for files that differ only in comments and white space."""
    return blake2b(re.sub(r"\s+", "", re.sub(r"#.*", "", text)).encode(), digest_size=16).digest()


def read(item: tuple[str, str, Path]) -> tuple[Document | None, str]:
    """One file, cleaned and parsed; or the reason why it is dropped."""
    package, name, path = item
    try:
        raw = path.read_bytes()
    except OSError:
        return None, "unreadable"
    if reason := why_dropped(raw):
        return None, reason
    text = clean(raw.decode("utf-8"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, "does not parse"
    return Document(package, name, text, fingerprint(text), exercises_in(tree, text)), ""


def build(sources: Iterable[Source], *, package_limit: int, workers: int, say: Callable[[str], None]) -> Corpus:
    """Read all sources in a fixed order; at most `package_limit` bytes of one package, chosen by hash."""
    corpus = Corpus()
    seen: set[bytes] = set()
    with ProcessPoolExecutor(workers) as pool:
        for source in sources:
            tally = corpus.packages.setdefault(source.package, Tally(source.version, source.licence))
            files = sorted(source.files, key=lambda item: path_number(source.package, item[0]))
            items = [(source.package, name, path) for name, path in files]
            for document, reason in pool.map(read, items, chunksize=64):
                if document is None:
                    corpus.dropped[reason] += 1
                    continue
                if document.fingerprint in seen:
                    corpus.dropped["duplicate"] += 1
                elif tally.bytes > package_limit:
                    corpus.dropped["package limit"] += 1
                else:
                    seen.add(document.fingerprint)
                    tally.files += 1
                    tally.bytes += len(document.text)
                    is_held_out = path_number(document.package, document.path) % HELD_OUT_SHARE == 0
                    (corpus.held_out if is_held_out else corpus.training).append(document)
    corpus.packages = {name: tally for name, tally in corpus.packages.items() if tally.files}
    corpus.held_out = _without_leaks(corpus)
    say(f"corpus: {len(corpus.training)} training files, {len(corpus.held_out)} held out, {dict(corpus.dropped)}")
    return corpus


def _telling_lines(text: str) -> set[str]:
    stripped = (line.strip() for line in text.split("\n"))
    return {line for line in stripped if len(line) >= TELLING_LINE and not line.startswith(("import ", "from "))}


def _without_leaks(corpus: Corpus) -> list[Document]:
    wanted = {line for document in corpus.held_out for line in _telling_lines(document.text)}
    trained = {line for document in corpus.training for line in _telling_lines(document.text) if line in wanted}
    kept = []
    for document in corpus.held_out:
        lines = _telling_lines(document.text)
        if len(lines) < 5 or len(lines & trained) > LEAK_LIMIT * len(lines):
            corpus.dropped["held out but found in training"] += 1
        else:
            kept.append(document)
    return kept
