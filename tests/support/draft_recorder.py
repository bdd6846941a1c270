"""Records the logits and choices of a chain drafter's passes while it is made to draft the truth, or a wrong token.

Oracle tests compare both: the drafter goes on from known tokens, so an oracle that is fed the same tokens must give the
same logits, and the drafter's own choice must be the best token of those logits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from outrider import LLM, SamplingParams
from outrider.kernels.reference.sampling.noise import gumbel
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.module_chain import ModuleChain

SEED = 5


@dataclass(frozen=True)
class Draft:
    """One pass of the drafter, for one request."""

    position: int
    """Index of the drafted token in the request."""
    logits: Tensor  # [draft_vocab] fp32
    token_id: int
    """The drafter's own choice, in the target's vocabulary."""


@dataclass(frozen=True)
class Recording:
    """One request with a drafter."""

    answer: list[int]
    """Prompt and output."""
    steps: list[list[Draft]]
    """Drafts of each step that has all of them; steps of the prompt and of the answer's end are left out."""


def record_drafts(
    monkeypatch: pytest.MonkeyPatch,
    target: str | Path,
    config: dict[str, Any],
    *,
    vocab_size: int,
    wrong_every: int | None,
    temperature: float = 0.0,
) -> Recording:
    """Run one request; every draft is replaced by the true token, each `wrong_every`-th by another one.

    Checks that the tokens are those without a drafter, and that all true drafts are accepted.
    """
    params = SamplingParams(temperature=temperature, seed=SEED, max_tokens=30, ignore_eos=True)
    prompt = torch.randint(2, vocab_size, (21,), generator=torch.Generator().manual_seed(5)).tolist()
    plain = LLM(str(target), skip_tokenizer_init=True)
    answer = prompt + plain.generate({"prompt_token_ids": prompt}, params)[0].outputs[0].token_ids
    steps: list[list[Draft]] = []
    num_seen = 0
    choose_drafts = ChainDrafter.choose_drafts

    def begins_step(propose):
        def begin_step(drafter, batch, *, hidden, verified):
            steps.append([])
            return propose(drafter, batch, hidden=hidden, verified=verified)

        return begin_step

    def record(drafter, logits, batch, positions):
        nonlocal num_seen
        chosen = choose_drafts(drafter, logits, batch, positions)
        (position,) = positions.tolist()
        steps[-1].append(Draft(position, logits[0].clone(), int(chosen)))
        num_seen += 1
        is_wrong = wrong_every is not None and num_seen % wrong_every == 0
        truth = answer[position] if position < len(answer) else 0
        return torch.full_like(chosen, (truth + is_wrong) % vocab_size)

    for kind in (ChainDrafter, ModuleChain):
        monkeypatch.setattr(kind, "propose", begins_step(kind.propose))
    monkeypatch.setattr(ChainDrafter, "choose_drafts", record)
    llm = LLM(str(target), skip_tokenizer_init=True, speculative_config=config, max_num_batched_tokens=9)
    output = llm.generate({"prompt_token_ids": prompt}, params)[0]
    assert prompt + output.outputs[0].token_ids == answer
    if wrong_every is None:
        assert output.speculation.num_accepted_tokens == output.speculation.num_draft_tokens
    most = config["num_speculative_tokens"]
    whole = [step for step in steps if len(prompt) < step[0].position <= len(answer) - most]
    for step in whole:
        assert [draft.position for draft in step] == list(range(step[0].position, step[0].position + most))
    return Recording(answer, whole)


def check_choice(
    draft: Draft, logits: Tensor, *, vocab_size: int, token_ids: Tensor | None = None, temperature: float = 0.0
) -> None:
    """The drafter chose the best token of the oracle's logits [draft_vocab], under the target's noise if it samples.

    token_ids: target id of each draft id, [draft_vocab] int64; None: the ids are the same.
    """
    scores = torch.full((vocab_size,), -torch.inf)
    scores[torch.arange(len(logits)) if token_ids is None else token_ids] = logits
    if temperature:
        key = (torch.tensor([SEED]), torch.tensor([0]), torch.tensor([draft.position]))
        scores = scores / temperature + gumbel(*key, vocab_size)[0]
    assert scores[draft.token_id] > scores.max() - 2e-3, f"{draft.token_id} was drafted, not {int(scores.argmax())}"
