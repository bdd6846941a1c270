"""The sampling table: rows are written whole, and counts grow on the device as they would be rebuilt."""

import random

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import MAX_LOGIT_BIAS, MAX_STOP_TOKEN_IDS, SamplingParams
from outrider.sampling.params import SamplingTable
from tests.support.request_tables import make_request_table

VOCAB_SIZE = 400


def admission(row: int, params: SamplingParams, **changes) -> RowAdmission:
    fields = {
        "row": row,
        "request_id": "r",
        "token_ids": (1, 2, 2, 5, 5, 5),
        "num_prompt_tokens": 3,
        "num_computed_tokens": 0,
        "last_cached_block": -1,
        "max_total_tokens": 100,
        "params": params,
        "seed": -(2**63),
        "stop_token_ids": (),
    }
    return RowAdmission(**(fields | changes))


def tensors(table: SamplingTable) -> dict[str, torch.Tensor]:
    return table.columns | {name: value for name, value in vars(table).items() if isinstance(value, torch.Tensor)}


FULL = SamplingParams(
    temperature=0.5,
    top_k=9,
    top_p=0.25,
    min_p=0.125,
    repetition_penalty=1.5,
    presence_penalty=-1.0,
    frequency_penalty=0.75,
    logit_bias={token_id: 1e300 if token_id == 7 else float(token_id) for token_id in range(MAX_LOGIT_BIAS)},
    min_tokens=4,
)


def test_write_fills_the_row_and_no_other() -> None:
    requests = make_request_table(3, VOCAB_SIZE, max_model_len=200)
    table = requests.sampling
    neutral = {name: value.clone() for name, value in tensors(table).items()}
    stop_token_ids = tuple(range(100, 100 + MAX_STOP_TOKEN_IDS))
    requests.admit([admission(1, FULL, stop_token_ids=stop_token_ids)])
    for name, value in tensors(table).items():
        assert torch.equal(value[[0, 2, 3]], neutral[name][[0, 2, 3]]), name
    columns = table.columns
    for name in ("temperature", "top_k", "top_p", "min_p"):
        assert columns[name][1].item() == getattr(FULL, name), name
    for name in ("repetition", "presence", "frequency"):
        assert columns[name][1].item() == getattr(FULL, f"{name}_penalty"), name
    assert table.seed[1].item() == -(2**63) and table.completion_index[1].item() == 0
    assert columns["min_length"][1].item() == 3 + 4, "absolute: prompt and min_tokens"
    assert tuple(columns["stop_token_ids"][1].tolist()) == stop_token_ids
    assert columns["num_stop_token_ids"][1].item() == MAX_STOP_TOKEN_IDS
    assert columns["num_logit_bias"][1].item() == MAX_LOGIT_BIAS
    assert columns["logit_bias_ids"][1].tolist() == list(range(MAX_LOGIT_BIAS))
    assert columns["logit_bias"][1, 6:9].tolist() == [6.0, torch.finfo(torch.float32).max, 8.0], "clamped to fp32"


def test_prompt_and_output_are_kept_apart() -> None:
    requests = make_request_table(1, VOCAB_SIZE, max_model_len=200)
    table = requests.sampling
    requests.admit([admission(0, FULL)])
    assert table.prompt_mask[0].nonzero().flatten().tolist() == [1, 2]
    assert table.output_counts[0].nonzero().flatten().tolist() == [5]
    assert table.output_counts[0, 5].item() == 3


def test_a_row_keeps_nothing_of_its_last_owner() -> None:
    requests, others = make_request_table(1, VOCAB_SIZE), make_request_table(1, VOCAB_SIZE)
    requests.admit([admission(0, FULL, stop_token_ids=(3, 4))])
    plain = admission(0, SamplingParams(temperature=0.0), token_ids=(9,), num_prompt_tokens=1, seed=5)
    for each in (requests, others):
        each.admit([plain])
    table, fresh = requests.sampling, others.sampling
    for name, value in tensors(table).items():
        assert torch.equal(value, tensors(fresh)[name]), name
    assert table.columns["num_stop_token_ids"][0].item() == table.columns["num_logit_bias"][0].item() == 0


def test_a_temperature_that_is_greedy_is_written_as_zero() -> None:
    requests = make_request_table(2, VOCAB_SIZE, max_model_len=200)
    table = requests.sampling
    requests.admit([admission(0, SamplingParams(temperature=9.9999999e-6))])
    requests.admit([admission(1, SamplingParams(temperature=1e-5))])
    temperature = table.columns["temperature"]
    assert temperature[0].item() == 0.0 and temperature[1].item() > 0.0


def test_counts_grow_as_they_would_be_rebuilt() -> None:
    rng = random.Random(3)
    requests = make_request_table(5, VOCAB_SIZE, max_model_len=200)
    table = requests.sampling
    known = {row: [rng.randrange(9) for _ in range(rng.randrange(1, 6))] for row in range(5)}
    lengths = {row: len(tokens) for row, tokens in known.items()}
    for row, tokens in known.items():
        requests.admit([admission(row, FULL, token_ids=tuple(tokens), num_prompt_tokens=lengths[row])])
    for _ in range(30):
        rows = rng.sample(range(5), rng.randrange(1, 6))
        tokens = [[rng.randrange(9) for _ in range(4)] for _ in rows]
        num_tokens = [rng.randrange(5) for _ in rows]
        table.count(torch.tensor(rows), torch.tensor(tokens), torch.tensor(num_tokens))
        for row, emitted, count in zip(rows, tokens, num_tokens, strict=True):
            known[row] += emitted[:count]
    others = make_request_table(5, VOCAB_SIZE, max_model_len=200)
    for row, tokens in known.items():
        others.admit([admission(row, FULL, token_ids=tuple(tokens), num_prompt_tokens=lengths[row])])
    rebuilt = others.sampling
    assert torch.equal(table.output_counts, rebuilt.output_counts)
    assert torch.equal(table.prompt_mask, rebuilt.prompt_mask)


def test_tables_stay_at_their_address() -> None:
    requests = make_request_table(2, VOCAB_SIZE, max_model_len=200)
    table = requests.sampling
    before = {name: value.data_ptr() for name, value in tensors(table).items()}
    requests.admit([admission(1, FULL)])
    table.count(torch.tensor([1]), torch.tensor([[3, 4]]), torch.tensor([1]))
    assert before == {name: value.data_ptr() for name, value in tensors(table).items()}
