"""The shapes of workload D: a model, the options of its engine, and the sizes of the loads put on it.

Models have random weights, except for the zoo's, which is small enough for a CPU. Their directories get a tokenizer in
which every id has a text, so that each way to an engine makes text as a server does.
"""

import json
import string
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from benchmarks.decode import EXPERTS, EXPERTS_HEAD, HEAD, HYBRID, RATES, TARGET

ZOO = Path(__file__).parents[2] / "zoo"
PARTS = ("at-once", "rate", "arriving")
DRAFTERS = ("none", "eagle3", "mtp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One model and its loads. Lengths are in tokens; ranges are inclusive and drawn from uniformly."""

    title: str
    target: dict[str, Any] | Path
    """A config, or the directory of a model with weights."""
    head: dict[str, Any] | Path | None = None
    """An EAGLE-3 head; None: the shape has none."""
    has_mtp: bool = False
    """The model has a prediction module."""
    max_model_len: int = 8192
    max_num_seqs: int = 128
    vocab: int = 128000
    """Prompts are ids below this."""
    prompt_len: tuple[int, int] = (64, 1024)
    output_len: tuple[int, int] = (32, 480)
    num_at_once: int = 384
    rates: tuple[float, ...] = (4.0, 12.0, 20.0, 26.0)
    """Requests per second."""
    rate_seconds: float = 12.0
    num_running: int = 32
    running_len: int = 512
    num_arriving: int = 4
    arriving_len: int = 4096
    num_watched: int = 60
    """Deliveries of each running request before the prompts arrive."""
    parts: tuple[str, ...] = PARTS

    @property
    def drafters(self) -> tuple[str, ...]:
        """Drafters that the shape can run with."""
        return ("none", *(("eagle3",) if self.head is not None else ()), *(("mtp",) if self.has_mtp else ()))

    def write(self, directory: Path) -> "Model":
        """Write what is not on disk yet into `directory`."""
        return Model(
            target=_written(self.target, directory / "target"),
            head=_written(self.head, directory / "head") if self.head is not None else None,
        )

    def options(self, model: "Model", drafter: str, **others: Any) -> dict[str, Any]:
        """Options of an engine, by names that Outrider and vLLM share. Drafts are accepted at workload A's rates."""
        assert drafter in self.drafters, f"{self.title} has no {drafter}"
        speculative: dict[str, Any] | None = None
        if drafter != "none":
            speculative = {
                "method": drafter,
                "num_speculative_tokens": len(RATES),
                "rejection_sample_method": "synthetic",
                "synthetic_acceptance_rates": list(RATES),
            }
            if drafter == "eagle3":
                speculative["model"] = model.head
        return {
            "load_format": "auto" if isinstance(self.target, Path) else "dummy",
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "enable_prefix_caching": False,
            "speculative_config": speculative,
            **others,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Directories of a shape's model."""

    target: str
    head: str | None


SHAPES = {
    "llama-8b": Shape(title="Llama 8B", target=TARGET, head=HEAD),
    "experts": Shape(title="Qwen3-30B-A3B", target=EXPERTS, head=EXPERTS_HEAD),
    "hybrid": Shape(title="Qwen3.5-9B", target=HYBRID, has_mtp=True),
    "long-prompts": Shape(
        title="Llama 8B, long prompts",
        target={**TARGET, "max_position_embeddings": 65536},
        head={**HEAD, "max_position_embeddings": 65536},
        max_model_len=40960,
        prompt_len=(32768, 32768),
        output_len=(128, 128),
        num_at_once=8,
        parts=("at-once",),
    ),
    "zoo": Shape(
        title="zoo/tiny",
        target=ZOO / "tiny",
        head=ZOO / "tiny-eagle3",
        max_model_len=512,
        max_num_seqs=8,
        vocab=3000,
        prompt_len=(4, 40),
        output_len=(4, 16),
        num_at_once=8,
        rates=(20.0, 40.0),
        rate_seconds=0.3,
        num_running=3,
        running_len=16,
        num_arriving=2,
        arriving_len=128,
        num_watched=4,
    ),
}
"""By the names of `--shape`."""


def _written(config: dict[str, Any] | Path, directory: Path) -> str:
    if isinstance(config, Path):
        return str(config)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    word_tokenizer(config["vocab_size"]).save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return str(directory)


def word_tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level tokenizer whose ids are the bytes and then words of four letters, each with a space in front."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("Ġ" + "".join(letters) for letters in product(string.ascii_lowercase, repeat=4))
    names += [word for word, _ in zip(words, range(vocab_size - len(names)), strict=False)]
    assert len(names) == vocab_size, f"{len(names)} tokens for vocab_size={vocab_size}"
    tokenizer = Tokenizer(BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
