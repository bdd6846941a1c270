"""Failures that other engines had with prediction modules and EAGLE heads, and that this engine avoids.

Every test runs as the engine is, and again with the design that caused the failure. Tokens never change, because
a drafter cannot change one; a failure would show in acceptance, in cache hits, or in an invalid id.
"""

from dataclasses import replace

import pytest
import torch

from outrider.kernels.reference import step_inputs
from outrider.layers.embedding import Embedding
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.drafter_kv import DrafterKV
from outrider.speculation.module_chain import ModuleChain
from tests.support import request_mix
from tests.support.half_right_drafts import make_half_right
from tests.support.log_lines import log_lines
from tests.support.shorter_hits import shorten_hits
from tests.support.tiny_mtp import write_hybrid, write_mimo

K = 3
LEAKY = pytest.mark.parametrize("is_leaky", [False, pytest.param(True, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("target")
    write_mimo(
        directory, vocab_size=request_mix.VOCAB, eos_token_id=request_mix.EOS, seed=3, max_position_embeddings=512
    )
    return directory


@pytest.fixture(scope="module")
def speculative():
    return {"method": "mtp", "num_speculative_tokens": K}


@pytest.fixture(scope="module")
def cases():
    return [request_mix.make_cases()[i] for i in (1, 2, 4, 7)]


@pytest.fixture(scope="module")
def truth(target, cases):
    return request_mix.truth(target, cases)


@pytest.fixture
def half_right(cases, truth, monkeypatch):
    make_half_right(monkeypatch, [(case.prompt, want.token_ids) for case, want in zip(cases, truth, strict=True)])


def stats(outputs) -> list[object]:
    return [output.speculation for output in outputs]


def alone(target, speculative, cases) -> list[object]:
    llm = request_mix.make(target, speculative_config=speculative, max_num_seqs=1, overlap_depth=0)
    return [request_mix.run(llm, [case])[0].speculation for case in cases]


@LEAKY
def test_a_draft_that_is_no_token_never_reaches_an_embedding(
    target, speculative, cases, truth, half_right, monkeypatch, is_leaky
):
    """A sentinel for "no draft" in place of an id crashed the embedding: vLLM #40768, #37629, #35937 and others."""
    original = ChainDrafter.choose_drafts

    def pick(drafter, logits, batch, position):
        picked = original(drafter, logits, batch, position)
        picked = torch.where(position % 5 == 1, -1, picked)
        return torch.where(position % 7 == 2, request_mix.VOCAB + 19, picked)

    monkeypatch.setattr(ChainDrafter, "choose_drafts", pick)
    embed = Embedding.forward

    def forward(self, token_ids):
        assert token_ids.min() >= 0 and token_ids.max() < self.weight.shape[0], "an id that is none"
        return embed(self, token_ids)

    monkeypatch.setattr(Embedding, "forward", forward)
    llm = request_mix.make(target, speculative_config=speculative)
    if is_leaky:
        kernels = llm.engine.worker.kernels
        chain = kernels.chain_drafted

        def chain_drafted(*tables, drafts, **arguments):
            return chain(*tables, drafts=drafts, **arguments)._replace(token_ids=drafts)

        monkeypatch.setattr(kernels, "chain_drafted", chain_drafted)
        with log_lines() as lines:
            outputs = request_mix.run(llm, cases)
        (line,) = lines
        assert "the drafter failed" in line and "an id that is none" in line
        assert request_mix.mismatches(cases, outputs, truth) == []
        return
    outputs = request_mix.run(llm, cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert sum(output.speculation.num_accepted_tokens for output in outputs) > 20


@LEAKY
def test_a_row_drafts_from_its_own_accepted_count(target, speculative, cases, truth, half_right, monkeypatch, is_leaky):
    """The count of another row, read after rows had moved, chose the wrong state: vLLM #38556, #45100, #51571."""
    expected = alone(target, speculative, cases)
    if is_leaky:
        original = ModuleChain.propose

        def propose(drafter, batch, *, hidden, verified):
            rolled = verified._replace(num_accepted=verified.num_accepted.roll(1))
            return original(drafter, batch, hidden=hidden, verified=rolled)

        monkeypatch.setattr(ModuleChain, "propose", propose)
    outputs = request_mix.run(request_mix.make(target, speculative_config=speculative), cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert (stats(outputs) == expected) != is_leaky


@LEAKY
def test_drafts_belong_to_a_request_not_to_its_place(
    target, speculative, cases, truth, half_right, monkeypatch, is_leaky
):
    """Drafts were looked up by the order of another batch, or outlived a step that left their request out: vLLM #43434,
    #46899, #40768."""
    expected = alone(target, speculative, cases)
    if is_leaky:
        original = step_inputs.put_drafts

        def put_drafts(drafts, num_drafts, *, rows, **arguments):
            original(drafts, num_drafts, rows=torch.arange(len(rows)), **arguments)

        monkeypatch.setattr(step_inputs, "put_drafts", put_drafts)
    llm = request_mix.make(target, speculative_config=speculative, max_num_batched_tokens=3 * (1 + K) + 2)
    scheduler, left_out = llm.engine.scheduler, set()
    plan = scheduler.plan

    def spy():
        found = plan()
        planned = {row.request_id for row in found.rows} if found is not None else set()
        left_out.update({running.request_id for running in scheduler.running if running.num_output_tokens} - planned)
        return found

    scheduler.plan = spy
    outputs = request_mix.run(llm, cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert len(left_out) > 1
    assert (stats(outputs) == expected) != is_leaky


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hybrid")
    write_hybrid(
        directory, "qwen3_5", vocab_size=request_mix.VOCAB, eos_token_id=request_mix.EOS, seed=3,
        max_position_embeddings=512,
        num_hidden_layers=2, layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    return directory


@LEAKY
@pytest.mark.parametrize("family", ["target", "hybrid"])
def test_the_second_request_is_accepted_as_the_first(request, family, speculative, cases, monkeypatch, is_leaky):
    """Acceptance fell from 2.23 to 1.02 on the second request, behind a prefix hit: vLLM #36872, #43559, #41838."""
    target, case = request.getfixturevalue(family), cases[1]
    (want,) = request_mix.truth(target, [case])
    if is_leaky:
        monkeypatch.setattr(DrafterKV, "keep_boundary", lambda kv, target, features: None)
    seen: list[torch.Tensor] = []
    original = ChainDrafter.choose_drafts

    def pick(drafter, logits, batch, position):
        seen.append(logits.clone())
        return original(drafter, logits, batch, position)

    monkeypatch.setattr(ChainDrafter, "choose_drafts", pick)
    llm = request_mix.make(target, speculative_config=speculative, overlap_depth=0, max_num_seqs=1)
    runs = []
    for _ in range(2):
        seen.clear()
        (output,) = request_mix.run(llm, [case])
        assert request_mix.mismatches([case], [output], [want]) == []
        runs.append(torch.cat(seen))
    assert output.num_cached_tokens == 32
    assert torch.equal(*runs) != is_leaky


@LEAKY
def test_prefix_hits_do_not_fall_with_a_drafter(target, speculative, cases, monkeypatch, is_leaky):
    """The last cached block was dropped, so that its hidden states could be made again: vLLM #33270, #45238, #54360."""

    def hits(config) -> list[int]:
        llm = request_mix.make(target, speculative_config=config)
        if is_leaky and config is not None:
            shorten_hits(monkeypatch)
        request_mix.run(llm, cases)
        return [output.num_cached_tokens for output in request_mix.run(llm, cases)]

    plain = hits(None)
    assert plain == [(len(case.prompt) - 1) // 16 * 16 for case in cases]
    assert (hits(speculative) == plain) != is_leaky


@LEAKY
def test_what_lies_in_unwritten_memory_is_never_read(
    target, speculative, cases, truth, half_right, monkeypatch, is_leaky
):
    """One bad value in a drafter's memory ended acceptance for all until a restart: vLLM #52873, #43682."""
    expected = alone(target, speculative, cases)
    if is_leaky:
        monkeypatch.setattr(
            ModuleChain,
            "_run",
            lambda drafter, module, features, batch: drafter.run(module, features, replace(batch, kv_start=0)),
        )
    llm = request_mix.make(target, speculative_config=speculative)
    drafter = llm.engine.worker.drafter
    for cache in drafter.caches:
        cache.k.fill_(float("nan"))
        cache.v.fill_(float("nan"))
    drafter.kv.boundary.fill_(float("nan"))
    outputs = request_mix.run(llm, cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert (stats(outputs) == expected) != is_leaky
