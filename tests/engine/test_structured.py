"""Structured output with speculation on: every finished output meets its grammar, judged by jsonschema and re.

And it is the same whatever the drafter, the depth, the chunks and the neighbours, who lose neither bits nor steps.
"""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import llguidance.hf
import pytest
from llguidance import LLMatcher
from transformers import PreTrainedTokenizerFast

from outrider import LLM, RequestError, RequestOutput, SamplingParams, StructuredOutputsParams
from outrider.device.masks import MaskBuffer
from outrider.scheduler.request_state import RequestState
from tests.support import replaying_platform
from tests.support.tiny_heads import random_head, save_speculators
from tests.support.tiny_models import write_draft_model

from .text_model import END, write_text_model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 3, "maximum": 130},
        "kind": {"enum": ["cat", "dog", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}
REGEX = r"(the|a) (quick|lazy) [a-z]{2,5}[.!]"
CHOICES = ["yes", "no, never", 'per"haps\\n', "好"]
EBNF = 'root ::= item ("," item)*\nitem ::= "(" [a-c]+ ")" | "[" root "]"'
EXPRESSIONS = {"json": SCHEMA, "regex": REGEX, "choice": CHOICES, "grammar": EBNF}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("structured"))


WHITESPACE = (199, 200, 203, 222, 266, 360)
"""Tokens that a random model would put between the parts of JSON without end."""


def params_of(kind: str, **changes: Any) -> SamplingParams:
    bias = dict.fromkeys(WHITESPACE, -50.0) if kind == "json" else None
    wanted = {"max_tokens": 120, "seed": 5, "temperature": 1.0, "logit_bias": bias} | changes
    return SamplingParams(structured_outputs=StructuredOutputsParams(**{kind: EXPRESSIONS[kind]}), **wanted)


CASES = [
    *((f"{kind} {heat}", params_of(kind, temperature=heat)) for kind in EXPRESSIONS for heat in (0.0, 1.0)),
    ("json, n", params_of("json", n=2, top_p=0.9, logprobs=1)),
    ("regex, penalties", params_of("regex", frequency_penalty=1.0, seed=9)),
    ("cut short", params_of("json", max_tokens=7)),
    ("free", SamplingParams(max_tokens=50, seed=1, ignore_eos=True)),
    ("free, greedy", SamplingParams(max_tokens=50, temperature=0.0, ignore_eos=True)),
]
PROMPT = "def add(a, b):"


def make(directory: Path, **options: Any) -> LLM:
    return LLM(str(directory), max_model_len=256, logits_digest=True, **options)


def run(llm: LLM, cases: Any = CASES) -> list[RequestOutput]:
    return llm.generate([PROMPT] * len(cases), [params for _, params in cases])


def outcome(output: RequestOutput) -> list[Any]:
    fields = ("token_ids", "text", "finish_reason", "stop_reason", "logits_digest", "logprobs", "error")
    return [[getattr(completion, name) for name in fields] for completion in output.outputs]


@pytest.fixture(scope="module")
def truth(directory: Path) -> list[RequestOutput]:
    """Each alone, without speculation."""
    llm = make(directory, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False)
    return [run(llm, [case])[0] for case in CASES]


def check(kind: str, text: str) -> None:
    if kind == "json":
        jsonschema.validate(json.loads(text), SCHEMA)
    elif kind == "regex":
        assert re.fullmatch(REGEX, text)
    elif kind == "choice":
        assert text in CHOICES
    else:
        item = r"\([abc]+\)"
        while "[" in text:  # an innermost list is an item of the next one
            shorter = re.sub(rf"\[{item}(,{item})*\]", "(a)", text)
            assert shorter != text, text
            text = shorter
        assert re.fullmatch(rf"{item}(,{item})*", text)


def test_every_finished_output_meets_its_grammar(truth: list[RequestOutput]) -> None:
    num_finished = 0
    for (name, params), output in zip(CASES, truth, strict=True):
        for completion in output.outputs:
            if params.structured_outputs is None:
                continue
            if completion.finish_reason == "stop":
                num_finished += 1
                check(re.split("[, ]", name)[0], completion.text)
                assert completion.token_ids[-1] == END
            else:
                assert completion.finish_reason == "length"
    assert num_finished >= 7


@pytest.fixture(scope="module")
def drafters(directory: Path, tmp_path_factory: pytest.TempPathFactory, truth: list[RequestOutput]) -> dict[str, Any]:
    head, draft = tmp_path_factory.mktemp("head"), tmp_path_factory.mktemp("draft")
    save_speculators(random_head(vocab_size=420, draft_vocab_size=90, tap_layers=(0, 1, 2)), head)
    write_draft_model(draft, directory, spread=0.1)
    answers = [output.prompt_token_ids + output.outputs[0].token_ids for output in truth]
    answer = max(answers, key=len)
    return {
        "none": None,
        "ngram": {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3},
        "eagle3 of 90 tokens": {"method": "eagle3", "model": str(head)},
        "draft model": {"method": "draft_model", "model": str(draft)},
        "noise": {"method": "tests.support.drafters.noise"},
        "replay": {"method": "tests.support.drafters.replay", "answers": [answer], "probability": 0.8},
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("none", {"max_num_batched_tokens": 13}),
        ("ngram", {"overlap_depth": 0}),
        ("eagle3 of 90 tokens", {"max_num_batched_tokens": 40, "num_gpu_blocks_override": 26}),
        pytest.param("draft model", {"num_gpu_blocks_override": 26}, marks=pytest.mark.slow),
        pytest.param("noise", {"max_num_seqs": 4}, marks=pytest.mark.slow),
        ("replay", {"k": 5}),
    ],
)
def test_it_is_the_same_with_any_drafter_in_any_crowd(
    directory: Path, drafters: dict[str, Any], truth: list[RequestOutput], name: str, options: dict[str, Any]
) -> None:
    options = dict(options)
    config = drafters[name]
    if config is not None:
        options["speculative_config"] = config | {"num_speculative_tokens": options.pop("k", 3)}
    llm = make(directory, **options)
    outputs = run(llm)
    for (case, _), output, wanted in zip(CASES, outputs, truth, strict=True):
        assert outcome(output) == outcome(wanted), case
    assert not llm.engine._grammars._running, "a grammar is followed for nobody"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("none", marks=pytest.mark.slow),
        pytest.param("eagle3 of 90 tokens", marks=pytest.mark.slow),
        "replay",
    ],
)
def test_it_is_the_same_in_replayed_steps(
    directory: Path, drafters: dict[str, Any], truth: list[RequestOutput], name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A replayed step with grammars has two parts, and masks are written between them."""
    replaying_platform.install(monkeypatch, tmp_path)
    llm = make(directory, device="replaying", max_num_batched_tokens=40, speculative_config=drafters[name])
    for case, output, wanted in zip(CASES, run(llm), truth, strict=True):
        assert outcome(output) == outcome(wanted), case[0]
    assert llm.engine.worker.num_launched_steps == 0


def test_masks_of_the_step_before_are_seen(
    directory: Path, truth: list[RequestOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaying_platform.install(monkeypatch, tmp_path)
    fill, waiting = MaskBuffer.fill, []

    def late(self: MaskBuffer, *arguments: Any, **named: Any) -> None:
        waiting.append((arguments, named))
        if len(waiting) > 1:
            arguments, named = waiting.pop(0)
            fill(self, *arguments, **named)

    monkeypatch.setattr(MaskBuffer, "fill", late)
    llm = make(directory, device="replaying", max_num_batched_tokens=40)
    outputs = run(llm)
    assert any(outcome(output) != outcome(wanted) for output, wanted in zip(outputs, truth, strict=True))


def test_drafts_of_a_grammar_are_accepted_and_illegal_ones_refused(
    directory: Path, truth: list[RequestOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drafter that knows the answer, and one that says what no grammar here allows."""
    index = next(i for i, (name, _) in enumerate(CASES) if name == "json 1.0")
    answer = truth[index].prompt_token_ids + truth[index].outputs[0].token_ids
    config = {
        "method": "tests.support.drafters.replay",
        "num_speculative_tokens": 3,
        "answers": [answer],
        "probability": 1.0,
    }
    output = run(make(directory, speculative_config=config), [CASES[index]])[0]
    assert outcome(output) == outcome(truth[index])
    stats = output.speculation
    assert stats.num_accepted_tokens == stats.num_draft_tokens > 0.6 * len(output.outputs[0].token_ids)
    wrong = [token_id if place < 2 else 1 for place, token_id in enumerate(answer)]  # 1 is a special token
    config["answers"] = [wrong]
    output = run(make(directory, speculative_config=config), [CASES[index]])[0]
    assert outcome(output) == outcome(truth[index])
    assert output.speculation.num_draft_tokens > 0 and output.speculation.num_accepted_tokens <= 2


def test_a_request_with_a_grammar_is_in_every_step(directory: Path) -> None:
    """Beside one without, from its prompt to its last token, though the steps before are still in flight."""
    llm = make(directory, speculative_config={"method": "ngram"})
    plans = []
    plan = llm.engine.scheduler.plan
    llm.engine.scheduler.plan = lambda: plans.append(plan()) or plans[-1]  # type: ignore[method-assign,func-returns-value]
    free = SamplingParams(max_tokens=30, ignore_eos=True, num_speculative_tokens=0)
    _, output = llm.generate([PROMPT, PROMPT], [free, params_of("json")])
    rows = [{row.request_id for row in made.rows} for made in plans if made is not None]
    assert output.speculation.num_steps > 29
    assert all(len(row) == 2 for row in rows[:29])


def test_masks_behind_drafts_are_those_of_a_fresh_matcher(directory: Path) -> None:
    llm = make(directory)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    vocabulary = llguidance.hf.from_tokenizer(tokenizer, n_vocab=420, eos_token=END)
    for kind in ("json", "regex"):
        output = run(llm, [("", params_of(kind))])[0].outputs[0]
        ids = output.token_ids[:-1]
        request = llm.engine.new_request(PROMPT, params_of(kind))
        grammars = llm.engine._grammars
        grammars.begin(request)
        state = RequestState(request=request)
        for start in range(0, len(ids), 2):
            (masks,) = grammars.masks([(state, [*ids[start : start + 3], 1, 1])])
            assert len(masks) == 1 + len(ids[start : start + 3])
            for count, mask in enumerate(masks):
                fresh = LLMatcher(vocabulary, LLMatcher.grammar_from_regex(REGEX) if kind == "regex" else
                                  LLMatcher.grammar_from_json_schema(SCHEMA))  # fmt: skip
                assert fresh.consume_tokens(ids[: start + count]) and mask.shape == (14,)
                assert mask.tobytes() == fresh.compute_bitmask()[: 4 * 14]
            assert grammars.accept(state, ids[start : start + 2]) is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"json": {"type": "string", "minLength": 5, "maxLength": 2}}, "Unsatisfiable schema: minLength"),
        ({"json": {"enum": []}}, "Unsatisfiable schema"),
        ({"json": {"type": "array", "uniqueItems": True}}, r"Unimplemented keys: ..uniqueItems"),
        ({"json": "{"}, "structured_outputs: "),
        ({"regex": "[ab"}, "invalid regex"),
        ({"grammar": "start: missing"}, "unknown name"),
        ({"grammar": "root ::= missing"}, "'missing' not found"),
        ({"grammar": "root ::= " + "(" * 3000 + '"a"' + ")" * 3000}, "recursion depth"),
        ({"regex": "(" * 5000 + "a" + ")" * 5000}, "(?s)invalid regex.{,700}$"),
        ({"choice": ["\ud800"]}, "surrogates not allowed"),
    ],
)
def test_a_grammar_that_cannot_be_met_is_refused_alone(directory: Path, asked: Any, message: str) -> None:
    llm = make(directory)
    free = SamplingParams(max_tokens=5, ignore_eos=True, seed=1)
    with pytest.raises(RequestError, match=message):
        llm.generate([PROMPT, PROMPT], [free, SamplingParams(structured_outputs=StructuredOutputsParams(**asked))])
    assert not llm.engine.has_work
    assert len(llm.generate(PROMPT, free)[0].outputs[0].token_ids) == 5


def test_a_grammar_that_leads_nowhere_ends_that_request_with_an_error(
    directory: Path, truth: list[RequestOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model excludes every token except a special one, which is not part of the grammar."""
    llm = make(directory)
    grammars = llm.engine._grammars
    original = grammars.accept
    monkeypatch.setattr(
        grammars, "accept", lambda request, ids: original(request, [1] if request.num_output_tokens > 9 else ids)
    )
    outputs = run(llm, [CASES[1], CASES[-2]])
    assert outputs[0].outputs[0].finish_reason == "error"
    assert outputs[0].outputs[0].error == (
        "token 1 is not allowed by the grammar: the model gives no chance to any that is"
    )
    assert outcome(outputs[1]) == outcome(truth[-2])


@pytest.mark.parametrize(
    ("name", "value"), [("ignore_eos", True), ("min_tokens", 3), ("bad_words", [[5]]), ("allowed_token_ids", [5])]
)
def test_what_does_not_go_with_a_grammar_is_refused_by_name(directory: Path, name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"{name} cannot be combined with structured_outputs"):
        make(directory).generate(PROMPT, params_of("json", **{name: value}))


def nested(depth: int) -> dict[str, Any]:
    """A schema in a schema in a schema …"""
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"regex": "a", "json_object": True},
        {"regex": 5},
        {"regex": "a" * (1 << 16 | 1)},
        {"choice": []},
        {"choice": "ab"},
        {"choice": [""]},
        {"choice": ["ab"] * (1 << 16)},
        {"json": {"enum": [{1, 2}]}},
        {"json": nested(3000)},
    ],
    ids=lambda fields: str(fields)[:40] if "json" not in fields else "json",
)
def test_a_request_for_no_one_form_is_refused(fields: Any) -> None:
    with pytest.raises(RequestError, match="structured_outputs"):
        StructuredOutputsParams(**fields)
    with pytest.raises(RequestError, match="must be a StructuredOutputsParams"):
        SamplingParams(structured_outputs={"regex": "a"})  # type: ignore[arg-type]


def test_a_grammar_without_a_tokenizer_is_refused(directory: Path) -> None:
    llm = make(directory, skip_tokenizer_init=True)
    with pytest.raises(RequestError, match="structured_outputs need text, and there is no tokenizer"):
        llm.generate({"prompt_token_ids": [3]}, params_of("json"))


def test_any_json_object_is_an_object(directory: Path) -> None:
    asked = StructuredOutputsParams(json_object=True)
    outputs = (
        make(directory)
        .generate(PROMPT, SamplingParams(structured_outputs=asked, max_tokens=200, n=8, seed=2, logit_bias={94: 6.0}))[
            0
        ]
        .outputs
    )
    finished = [json.loads(output.text) for output in outputs if output.finish_reason == "stop"]
    assert finished and all(isinstance(value, dict) for value in finished)
