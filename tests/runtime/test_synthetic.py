"""An engine with synthetic acceptance: the same work as a real step but for verification, and never called exact."""

from collections import Counter

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from outrider import LLM, SamplingParams
from outrider.kernels import Kernels
from outrider.runtime.describe import describe
from outrider.show import total as total_of
from tests.support import request_mix
from tests.support.tiny_heads import random_head, save_speculators
from tests.support.tiny_models import write_tiny_model

RATES = [0.75, 0.55, 0.40]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic")
    write_tiny_model(
        directory, "qwen3", vocab_size=request_mix.VOCAB, num_hidden_layers=4, eos_token_id=request_mix.EOS,
        max_position_embeddings=512,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def speculative(tmp_path_factory):
    head = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40)
    path = str(save_speculators(head, tmp_path_factory.mktemp("head")))
    real = {"method": "eagle3", "model": path, "num_speculative_tokens": 3}
    synthetic = {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": RATES}
    return {"real": real, "synthetic": real | synthetic}


class Operators(TorchDispatchMode):
    """Operators of PyTorch by name, those of verification apart."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.of_verify: Counter[str] = Counter()
        self.is_verifying = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        (self.of_verify if self.is_verifying else self.seen)[str(func)] += 1
        return func(*args, **(kwargs or {}))

    def watch(self, monkeypatch: pytest.MonkeyPatch, kernels: Kernels) -> None:
        original = kernels.verify

        def verify(*args, **kwargs):
            self.is_verifying = True
            try:
                return original(*args, **kwargs)
            finally:
                self.is_verifying = False

        monkeypatch.setattr(kernels, "verify", verify)


def operators_of_steps(target, config, monkeypatch) -> list[tuple[Counter[str], Counter[str]]]:
    """For every step of a fixed number: four greedy and random requests within their first block, decoding."""
    llm: LLM = request_mix.make(target, speculative_config=config, enable_prefix_caching=False, block_size=64)
    for index in range(4):
        params = SamplingParams(temperature=index % 2, seed=index, max_tokens=60, ignore_eos=True)
        llm.engine.add(llm.engine.new_request({"prompt_token_ids": [3 + index] * 20}, params))
    found = []
    with monkeypatch.context() as patch:
        for _ in range(8):
            with Operators() as operators:
                operators.watch(patch, llm.engine.worker.step_function.kernels)
                llm.engine.step()
            patch.undo()
            found.append((operators.seen, operators.of_verify))
    return found


def test_a_step_runs_the_same_operators_but_for_verification(target, speculative, monkeypatch):
    operators_of_steps(target, speculative["real"], monkeypatch)  # constants that are made once in a process
    real = operators_of_steps(target, speculative["real"], monkeypatch)
    synthetic = operators_of_steps(target, speculative["synthetic"], monkeypatch)
    assert sum(sum(seen.values()) for seen, _ in real) > 1000
    for (real_seen, real_own), (synthetic_seen, synthetic_own) in zip(real, synthetic, strict=True):
        assert real_seen == synthetic_seen
        assert real_own and real_own != synthetic_own
        assert sum(synthetic_own.values()) <= sum(real_own.values()) + 14, "a draw is a handful of operators"


def test_it_is_reported_as_not_exact_everywhere(target, speculative):
    for name, config in speculative.items():
        llm = request_mix.make(target, speculative_config=config)
        is_real = name == "real"
        assert llm.engine.worker.is_exact == is_real
        exact = dict(describe(llm.engine.worker))["exact"]
        assert exact.startswith("yes" if is_real else "NO: acceptance is synthetic")
        (output,) = request_mix.run(llm, request_mix.make_cases()[1:2])
        assert output.speculation.is_synthetic == (not is_real)


def test_acceptance_is_as_asked_and_reproducible_in_any_batch(target, speculative):
    cases = [
        request_mix.Case(str(seed), (3 + seed,) * 9, SamplingParams(seed=seed, max_tokens=100, ignore_eos=True))
        for seed in range(12)
    ]
    config = speculative["synthetic"]
    outputs = request_mix.run(request_mix.make(target, speculative_config=config), cases)
    total = total_of(outputs)
    assert all(abs(rate - want) < 0.06 for rate, want in zip(total.acceptance_rate_per_pos, RATES, strict=True))
    alone = request_mix.run(request_mix.make(target, speculative_config=config, max_num_seqs=3, overlap_depth=0), cases)
    for left, right in zip(outputs, alone, strict=True):
        assert left.outputs[0].token_ids == right.outputs[0].token_ids
        assert left.speculation == right.speculation
