"""Grammars in EBNF and Lark's form: what derives no finite text is refused or left out, the rest stays as it was."""

import random
import re

import pytest

from outrider import RequestError, StructuredOutputsParams
from outrider.engine.tokenizer import Tokenizer
from tests.support.grammar_writer import GrammarWriter

from .tokenizers_made_here import save_byte_level


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> GrammarWriter:
    directory = save_byte_level(tmp_path_factory.mktemp("rules"))
    return GrammarWriter(Tokenizer(directory), vocab_size=420, eos_token_ids=(0,))


def deep(rule: str, count: int) -> str:
    """Rules within each other, which would overflow the stack of llguidance."""
    rules = [rule.format(i=i, next=i + 1) for i in range(count)]
    return "\n".join([f"start: {rule[0]}0", *rules, f'{rule[0]}{count}: "c"'])


EMPTY = [
    'root ::= "a" root',
    "root ::= root",
    'root ::= a\na ::= b\nb ::= "q" a',
    'root ::= ("x" | "y") ("a" root)+',
    'root ::= ("a" root){2,3}',
    r"root ::= [^\x00-\U0010FFFF]",
    'start: "a" start',
    'start: a | b\na: "x" a\nb: [a] b',
    "start: A\nA: /[^\\s\\S]/",
    'start: "x" A\nA: "a" & "b"',
    'start: %json {"$ref": "#"}',
    'start: "x" %json {"type": "array", "items": {"$ref": "#"}, "minItems": 1}',
    'start: %lark { start: "a" start } "c"',
    'start: "x" <|end|>',
    'start: "x" <[0]>',
    'start: a\na::_: "x" a::incr(_)',
]


@pytest.mark.parametrize("grammar", EMPTY)
def test_a_grammar_without_a_finite_text_is_refused(writer: GrammarWriter, grammar: str) -> None:
    with pytest.raises(RequestError, match=r"no finite text meets the grammar: the rule '\w+' can never end"):
        writer.write(StructuredOutputsParams(grammar=grammar), random.Random(1))


WHOLE = {
    'root ::= "x" | "a" root': "a*x",
    'root ::= "x" a? | a\na ::= "q" a': "x",
    'root ::= "<" [a-c]{2} (", " root)? ">"': "(<[a-c]{2}, )*<[a-c]{2}>+",
    'root ::= "\\u00e9\\x41" [\\u0042-\\u0043] "\\""': 'éA[BC]"',
    "root ::= [a&&b-] [[x] [+--] [^\\n\\r \\]a-z]": r"[ab&-][\[x][+,-][^\n\r \]a-z]",
    'root ::= a-b a-b # "\na-b ::= "\\\\" | # [\n  "/"': r"[\\/]{2}",
    'start: "a" start | B\nB: /[0-9]{3}/': "a*[0-9]{3}",
    "start: /a{2}/ | <|end|>": "aa",
    'start: b | %json {"$ref": "#"}\nb: %json {"type": "integer", "maximum": 9, "minimum": 0}': "[0-9]|-0",
    'start: [A] "x" (A "y")*\nA: "a" & "b"': "x",
    'start: %lark { start: "a" start | "b" } "c"{2}': "a*bcc",
    'start: "a"~2..3 x -> y\n  | "zz"\n?x: "k"': "aaa?k|zz",
    '%import common.INT\nstart: INT ("," start)?\n%ignore /x/': "[0-9,x]+",
    'start: p::0x0\np::_: "" %if is_ones([0:2])\n | "a" p::set_bit(0) %if bit_clear(0)\n'
    ' | "b" p::set_bit(1) %if bit_clear(1)': "ab|ba",
    't[lazy]: /[ab]*b/\nstart: t "c" | d\nd: "d" d': "a*bc",
    'start: ("y" | "z" d)+ d*\nd: "d" d': "y+",
}


@pytest.mark.parametrize("grammar", WHOLE)
def test_what_derives_a_finite_text_is_written(writer: GrammarWriter, grammar: str) -> None:
    """Every text ends where the expression says, which was written by hand."""
    for seed in range(6):
        written = writer.write(StructuredOutputsParams(grammar=grammar), random.Random(seed), patience=12)
        assert written.end == "stop" and re.fullmatch(WHOLE[grammar], written.text), written


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('root ::= "a"\nroot ::= "b"', "two rules named 'root'"),
        ('start: "a"\nstart: "b"', "two rules named 'start'"),
        ('root ::= "\\q"', r"the escape \\q"),
        ("root ::= []", "is empty"),
        ('root ::= "\\ud800"', "code point 0xd800"),
        ('start ::= "a"', "No 'root' rule found"),
        ("start: missing", 'unknown name: "missing"'),
        (deep('r{i}: (("a" r{next})? "d")* | "b"', 2000), "too many rules within each other"),
        (deep('T{i}: (("a" T{next})? "d")* | "b"', 1500), "too many rules within each other"),
        ('start: %json {"uniqueItems": true}', "Unimplemented keys"),
        ('start: %json {"maximum": 9007199254740993}', "cannot be kept exactly"),
    ],
)
def test_a_fault_is_named(writer: GrammarWriter, grammar: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        writer.write(StructuredOutputsParams(grammar=grammar), random.Random(1))
