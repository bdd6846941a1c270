"""A text gives the same bytes alone, in any batch and order, in chunks, over prefix hits, and after preemption.

The truth is each text alone in its step, in one piece, without a prefix cache. Leaks put in on purpose turn it red.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from outrider import LLM, PoolingParams, PoolingRequestOutput
from outrider.core.plan import StepPlan
from outrider.device import assemble
from outrider.device.pooled_tokens import lay_out_pooling
from outrider.device.staging import Staging
from outrider.engine.pooling_admission import PoolingAdmission
from outrider.layers.linear import Linear
from tests.support.pooling_models import write_classifier, write_embedder

LONGEST = 120
Case = tuple[tuple[int, ...], PoolingParams]
SLOW = ("cls", "classes")
COUNT = 16
"""Texts of the fast tests."""

WAYS: dict[str, dict[str, Any]] = {
    "a batch": {"max_num_batched_tokens": 4096},
    "chunks, few blocks": {"max_num_batched_tokens": 37, "max_num_seqs": 16, "num_gpu_blocks_override": 14},
    "small chunks of few rows, no overlap": {"max_num_batched_tokens": 11, "max_num_seqs": 3, "overlap_depth": 0},
}


@pytest.fixture(scope="module", params=["last", "mean", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    if request.param == "classes":
        write_classifier(path, "llama", num_labels=5)
    else:
        write_embedder(path, pooling={"last": "lasttoken"}.get(request.param, request.param))
    return path


def make(directory: Path, **options: Any) -> LLM:
    options = {"max_num_seqs": 64, "max_num_batched_tokens": 256} | options
    return LLM(str(directory), device="cpu", skip_tokenizer_init=True, **options)


def texts(count: int, *, seed: int = 3) -> list[tuple[int, ...]]:
    """Texts of mixed lengths, some with a common beginning."""
    rng = random.Random(seed)
    shared = tuple(rng.randrange(3, 400) for _ in range(45))
    made = []
    for index in range(count):
        own = tuple(rng.randrange(3, 400) for _ in range(rng.choice((1, 2, 15, 16, 17, 33, 64, LONGEST - 45))))
        made.append(shared + own if index % 3 == 0 else own)
    return made


def cases_of(llm: LLM, count: int) -> list[Case]:
    """Texts with each task of the model, with and without its last function."""
    assert llm.engine.pooling is not None
    tasks = llm.engine.pooling.abilities.tasks
    return [
        (text, PoolingParams(task=tasks[index % 4 == 3 and len(tasks) > 1], use_activation=index % 5 > 0))
        for index, text in enumerate(texts(count))
    ]


def run(llm: LLM, cases: Sequence[Case]) -> list[PoolingRequestOutput]:
    return llm.encode([{"prompt_token_ids": list(ids)} for ids, _ in cases], [params for _, params in cases])


def bytes_of(outputs: Sequence[PoolingRequestOutput]) -> list[tuple[tuple[int, ...], bytes]]:
    return [(output.outputs.shape, output.outputs.values.tobytes()) for output in outputs]


def truth_of(directory: Path, count: int) -> tuple[list[Case], list[tuple[tuple[int, ...], bytes]]]:
    llm = make(directory, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False)
    cases = cases_of(llm, count)
    return cases, bytes_of([run(llm, [case])[0] for case in cases])


@pytest.fixture(scope="module")
def truth(directory: Path) -> tuple[list[Case], list[tuple[tuple[int, ...], bytes]]]:
    return truth_of(directory, COUNT)


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow) if way.startswith("small") else way for way in WAYS]
)
def test_bytes_do_not_depend_on_the_way(directory: Path, truth: Any, way: str) -> None:
    cases, expected = truth
    llm = make(directory, **WAYS[way])
    assert bytes_of(run(llm, cases)) == expected
    again = run(llm, cases[::-1])[::-1]
    assert bytes_of(again) == expected
    assert llm.engine.scheduler.blocks.num_used == 0


def test_prefix_hits_change_no_byte_and_are_taken_only_where_the_last_token_counts(directory: Path, truth: Any) -> None:
    cases, expected = truth
    llm = make(directory)
    run(llm, cases)
    outputs = run(llm, cases)
    assert bytes_of(outputs) == expected
    assert llm.engine.pooling is not None
    reads = llm.engine.pooling.abilities.reads_prefix_cache
    for (ids, params), output in zip(cases, outputs, strict=True):
        can_hit = reads and params.task in ("embed", "classify")
        assert output.num_cached_tokens == ((len(ids) - 1) // 16 * 16 if can_hit else 0)


@pytest.mark.slow
def test_256_texts_at_once_equal_each_alone(directory: Path) -> None:
    cases, expected = truth_of(directory, 256)
    llm = make(directory, max_num_seqs=256, max_num_batched_tokens=2048)
    assert bytes_of(run(llm, cases)) == expected
    order = list(range(256))
    random.Random(1).shuffle(order)
    shuffled = bytes_of(run(llm, [cases[index] for index in order]))
    assert [shuffled[order.index(index)] for index in range(256)] == expected


def test_a_preempted_text_starts_again_and_keeps_no_part_of_a_sum(directory: Path, truth: Any) -> None:
    cases, expected = truth
    llm = make(directory, max_num_batched_tokens=37, max_num_seqs=4)
    ended: dict[str, PoolingRequestOutput] = {}
    requests = [llm.engine.new_pooling_request({"prompt_token_ids": list(ids)}, params) for ids, params in cases]
    for request in requests:
        llm.engine.pool(request, lambda output: ended.update({output.request_id: output}))
    scheduler, num_preempted = llm.engine.scheduler, 0
    while llm.engine.has_work:
        llm.engine.step()
        if scheduler.running and num_preempted < 12:  # a step of theirs is in flight
            scheduler._preempt(scheduler.running[-1])
            num_preempted += 1
    assert bytes_of([ended[request.request_id] for request in requests]) == expected
    assert sum(output.num_preemptions for output in ended.values()) == num_preempted == 12
    assert llm.engine.stats().num_prompt_tokens == sum(len(ids) for ids, _ in cases)


def test_an_abort_leaves_the_others_as_they_were(directory: Path, truth: Any) -> None:
    cases, expected = truth
    llm = make(directory, max_num_batched_tokens=37, max_num_seqs=4)
    ended: dict[str, PoolingRequestOutput] = {}
    ids = []
    for tokens, params in cases:
        request = llm.engine.new_pooling_request({"prompt_token_ids": list(tokens)}, params)
        llm.engine.pool(request, lambda output: ended.update({output.request_id: output}))
        ids.append(request.request_id)
    for _ in range(3):
        llm.engine.step()
    stopped = [name for name in ids if name not in ended][::3]
    for name in stopped:
        assert llm.engine.abort(name) is None and not ended[name].finished
        assert not ended[name].outputs.values
    assert llm.engine.abort("nobody") is None
    while llm.engine.has_work:
        llm.engine.step()
    for name, numbers in zip(ids, expected, strict=True):
        if name not in stopped:
            assert bytes_of([ended[name]]) == [numbers]
    assert llm.engine.scheduler.blocks.num_used == 0 and llm.engine.stats().finished["abort"] == len(stopped)


def found(directory: Path, truth: Any, **patches: Any) -> list[int]:
    """Indices of the texts whose bytes differ in chunks; `patches`: kernels that are replaced."""
    cases, expected = truth
    llm = make(directory, max_num_batched_tokens=37, max_num_seqs=16)
    for name, kernel in patches.items():
        setattr(llm.engine.worker.kernels, name, kernel)
    outputs = bytes_of(run(llm, cases))
    return [index for index, (one, other) in enumerate(zip(outputs, expected, strict=True)) if one != other]


@pytest.fixture(scope="module")
def by_pooling(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model and its truth, by pooling."""
    made: dict[str, tuple[Path, Any]] = {}

    def of(pooling: str) -> tuple[Path, Any]:
        if pooling not in made:
            path = tmp_path_factory.mktemp(f"leaks-{pooling}")
            write_embedder(path, pooling=pooling)
            made[pooling] = path, truth_of(path, COUNT)
        return made[pooling]

    return of


def test_a_leak_of_chunks_into_a_mean_is_seen(by_pooling: Any) -> None:
    """Each chunk is summed by itself, and its sum is added."""

    def add_tokens(sums: Tensor, x: Tensor, *, rows: Tensor, starts: Sequence[int], counts: Sequence[int]) -> None:
        for row, start, count in zip(rows, starts, counts, strict=True):
            sums[row] += x[start : start + count].sum(0)

    assert found(*by_pooling("mean"), add_tokens=add_tokens)


def test_a_leak_of_the_batch_into_a_length_is_seen(by_pooling: Any) -> None:
    """Vectors are scaled by the largest of the step before they are squared, which rounds otherwise."""

    def normalize_vectors(vectors: Tensor, *, sizes: Tensor, is_wanted: Tensor) -> Tensor:
        scaled = vectors / vectors.abs().amax()
        normed = scaled / scaled.square().sum(1, keepdim=True).sqrt()
        return torch.where((is_wanted > 0).unsqueeze(1), normed, vectors)

    assert found(*by_pooling("lasttoken"), normalize_vectors=normalize_vectors)


def test_a_leak_of_padding_into_a_mean_is_seen(by_pooling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts of a step are divided by the length of the longest, as if they were padded to it."""

    def padded(plan: StepPlan, staging: Staging) -> Any:
        pooled = lay_out_pooling(plan, staging)
        return replace(pooled, text_lengths=pooled.text_lengths.clamp(min=max(pooled.part_counts, default=0)))

    monkeypatch.setattr(assemble, "lay_out_pooling", padded)
    assert found(*by_pooling("mean"))


def test_a_prefix_hit_for_a_mean_is_seen(by_pooling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens from the cache have no hidden states: a mean that read it would be one of the others only."""
    directory, (cases, expected) = by_pooling("mean")
    original = PoolingAdmission._request

    def reads_the_cache(self: PoolingAdmission, *args: Any, **options: Any) -> Any:
        return replace(original(self, *args, **options), reads_prefix_cache=True)

    monkeypatch.setattr(PoolingAdmission, "_request", reads_the_cache)
    llm = make(directory)
    run(llm, cases)
    assert bytes_of(run(llm, cases)) != expected


@pytest.mark.slow
def test_a_leak_of_a_stock_product_is_seen(by_pooling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone it sees the rows of one text, in a crowd many: the library sums them in another order."""

    def forward(self: Linear, x: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)

    monkeypatch.setattr(Linear, "forward", forward)
    directory, _ = by_pooling("lasttoken")
    assert found(directory, truth_of(directory, COUNT))
