"""Operations on logits: each file of the folder keeps its contract, and one more file adds an operation."""

from dataclasses import dataclass

import pytest
import torch

from outrider.core import plugins
from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling import operations
from outrider.sampling.operation import find_operations
from outrider.sampling.params import SamplingTable
from outrider.sampling.sampler import SampleBatch, Sampler
from tests.support import request_mix
from tests.support.request_tables import make_request_table
from tests.support.tiny_models import write_tiny_model

VOCAB_SIZE = 70
NAMES = plugins.names(operations)
GREEDY = SamplingParams(temperature=0.0)


def admission(row: int, params: SamplingParams, **changes) -> RowAdmission:
    fields = {
        "row": row, "request_id": "r", "token_ids": (1, 2, 5), "num_prompt_tokens": 2, "num_computed_tokens": 0,
        "last_cached_block": -1, "max_total_tokens": 100, "params": params, "seed": 7, "stop_token_ids": (3,),
    }  # fmt: skip
    return RowAdmission(**(fields | changes))


def sample(logits: torch.Tensor, table: SamplingTable, *listed: str) -> torch.Tensor:
    """Tokens of row i of the table for row i of the logits; every sample is listed for these operations."""
    rows = torch.arange(len(logits))
    batch = SampleBatch(
        rows=rows,
        offsets=torch.zeros_like(rows),
        lengths=torch.full_like(rows, 3),
        drafts=torch.zeros(len(rows), 0, dtype=torch.int64),
        lists=dict.fromkeys(listed, rows),
        num_logprobs=None,
        wants_digest=False,
        token_ids=torch.tensor([[1, 2, 5]] * len(rows), dtype=torch.int32),
    )
    return Sampler()(logits, batch, table).token_ids


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_states_its_columns_and_their_values(name: str) -> None:
    operation = find_operations(VOCAB_SIZE)[name]
    columns = {column.name: column for column in operation.columns}
    assert columns and operation.values(admission(0, GREEDY)).keys() == columns.keys()
    assert not operation.is_needed(GREEDY), "a greedy request without other parameters needs nothing"
    nothing = admission(0, GREEDY, token_ids=(), num_prompt_tokens=0, stop_token_ids=())
    for column, value in operation.values(nothing).items():
        assert value == columns[column].neutral if isinstance(value, (int, float)) else len(value) == 0
    if operation.kernel is None:
        own = {name: torch.full((4, *c.shape), c.neutral, dtype=c.dtype) for name, c in columns.items()}
        logits = torch.randn(4, VOCAB_SIZE)
        assert torch.equal(operation.apply(logits, own), logits), "neutral values change nothing"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_written", [False, True])
def test_a_sample_that_is_listed_without_need_keeps_its_token(name: str, is_written: bool) -> None:
    requests = make_request_table(40, VOCAB_SIZE)
    params = SamplingParams(temperature=0.8) if name == "truncation" else GREEDY
    requests.admit([admission(row, params) for row in range(40 if is_written else 0)])
    table = requests.sampling
    needed = ("random",) if params is not GREEDY and is_written else ()
    logits = torch.randn(40, VOCAB_SIZE, generator=torch.Generator().manual_seed(3))
    assert torch.equal(sample(logits, table, *needed, name), sample(logits, table, *needed))


def test_two_operations_with_one_column_are_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "another_bias.py").write_text(
        "from outrider.sampling.operations import bias\n\n\nclass Operation(bias.Operation):\n    pass\n"
    )
    monkeypatch.setattr(operations, "__path__", [*operations.__path__, str(tmp_path)])
    with pytest.raises(AssertionError, match="two operations have a column 'num_logit_bias'"):
        SamplingTable(2, VOCAB_SIZE, "cpu")


MAX_LOGIT_GAP = '''"""Keeps the tokens whose logit is at most `max_logit_gap` below the largest."""

import torch

from outrider.sampling.operation import BaseOperation, Column


class Operation(BaseOperation):
    columns = (Column(name="max_logit_gap", dtype=torch.float32, neutral=float("inf")),)

    def is_needed(self, params):
        return getattr(params, "max_logit_gap", None) is not None

    def values(self, admission):
        gap = getattr(admission.params, "max_logit_gap", None)
        return {"max_logit_gap": float("inf") if gap is None else gap}

    def apply(self, logits, columns):
        least = logits.amax(dim=1) - columns["max_logit_gap"]
        return torch.where(logits < least.unsqueeze(1), -torch.inf, logits)
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class GapParams(SamplingParams):
    """Sampling parameters with one more, as a field of `SamplingParams` would be."""

    max_logit_gap: float | None = None


@pytest.fixture
def with_gap(tmp_path, monkeypatch) -> None:
    (tmp_path / "max_logit_gap.py").write_text(MAX_LOGIT_GAP)
    monkeypatch.setattr(operations, "__path__", [*operations.__path__, str(tmp_path)])


@pytest.mark.usefixtures("with_gap")
def test_a_new_operation_changes_the_samples_that_need_it_and_no_others() -> None:
    requests = make_request_table(200, VOCAB_SIZE)
    params = [GapParams(temperature=1.5, max_logit_gap=0.5 if row < 100 else None) for row in range(200)]
    requests.admit([admission(row, params[row], seed=row) for row in range(200)])
    table = requests.sampling
    assert table.needs[0] - table.needs[150] == table.bits["max_logit_gap"]
    logits = torch.randn(1, VOCAB_SIZE, generator=torch.Generator().manual_seed(4)).expand(200, -1).contiguous()
    kept = (logits[0] >= logits[0].max() - 0.5).nonzero().squeeze(1).tolist()
    assert 1 < len(kept) < 20
    plain, changed = sample(logits, table, "random"), sample(logits, table, "random", "max_logit_gap")
    assert set(changed[:100].tolist()) == set(kept)
    assert not set(plain[:100].tolist()) <= set(kept)
    assert torch.equal(changed[100:], plain[100:])


@pytest.mark.usefixtures("with_gap")
def test_a_new_operation_rides_with_drafts_and_in_a_crowd(tmp_path) -> None:
    directory = tmp_path / "target"
    directory.mkdir()
    write_tiny_model(
        directory, "qwen3", vocab_size=request_mix.VOCAB, eos_token_id=request_mix.EOS, max_position_embeddings=512
    )
    prompt = tuple(range(3, 23))
    params = {"temperature": 1.0, "max_tokens": 60, "ignore_eos": True}
    cases = [request_mix.Case("gap", prompt, GapParams(seed=seed, max_logit_gap=1.0, **params)) for seed in range(3)]
    others = [request_mix.Case("none", prompt, SamplingParams(seed=seed, **params)) for seed in range(3)]
    expected = request_mix.truth(directory, cases + others)
    assert all(a.token_ids != b.token_ids for a, b in zip(expected[:3], expected[3:], strict=True))
    llm = request_mix.make(directory, speculative_config=request_mix.replay(cases + others, expected))
    outputs = request_mix.run(llm, cases + others)
    assert request_mix.mismatches(cases + others, outputs, expected) == []
    assert sum(output.speculation.num_accepted_tokens for output in outputs) > 50
