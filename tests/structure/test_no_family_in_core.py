"""`core/` knows no family of models and no drafter: each is named in its own file only."""

import ast
import re
from pathlib import Path

import pytest

from outrider import models
from outrider.core import plugins
from outrider.speculation import drafters

CORE = Path(models.__file__).parents[1] / "core"
FILES = sorted(CORE.glob("*.py"))
FAMILIES = ("llama", "qwen", "mimo", "mistral", "mixtral", "gemma", "deepseek", "phi", "gpt_?oss", "granite", "gritlm",
            "olmo", "glm", "falcon", "cohere", "bert", "colbert", "roberta", "xlm", "modernbert", "medusa",
            "dflash")  # fmt: skip
OTHERS = re.compile(r"\bllama3\b|llama\.cpp|llamafactory", re.IGNORECASE)
"""A type of rope, a form of grammars, and a training tool."""


def names() -> re.Pattern[str]:
    """Families, and the drafters that are named for their method."""
    methods = [name for name in plugins.names(drafters) if name not in {"ngram", "draft_model", "mtp"}]
    return re.compile(rf"(?<![a-z])({'|'.join([*FAMILIES, *methods])})", re.IGNORECASE)


def families_in(source: str) -> list[str]:
    """Names and strings, docstrings too, that name a family."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = (
            node.value if isinstance(node, ast.Constant) else getattr(node, "id", None) or getattr(node, "attr", None)
        )
        if isinstance(text, str):
            found += [match.group() for match in names().finditer(OTHERS.sub("", text))]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_family_is_named(path: Path) -> None:
    assert families_in(path.read_text()) == []


def test_every_family_is_among_the_names() -> None:
    for name in [*plugins.names(models), *models.families()]:
        assert names().search(name), f"add the family of {name} to FAMILIES"


@pytest.mark.parametrize(
    "source",
    ["if model_type == 'qwen3': pass", "X = ('LlamaForCausalLM',)", '"""As MiMo has it."""', "eagle3_heads = 1"],
)
def test_a_family_is_seen(source: str) -> None:
    assert families_in(source)
