"""The training-time test of the head equals drafting row by row, and the `speculators` library."""

import os

import pytest
import torch
from torch import Tensor

from outrider_recipe.eagle3 import Eagle3Head, HeadShape

from .stepwise import Drafter

STEPS, LENGTH = 4, 14
SHAPE = HeadShape(
    vocab_size=96,
    draft_vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
)


def make() -> tuple[Eagle3Head, Tensor, Tensor, Tensor]:
    """A random head, an embedding [vocab, hidden], features [1, length, 3 * hidden], ids [1, length]."""
    random = torch.Generator().manual_seed(7)
    embedding = torch.randn(SHAPE.vocab_size, SHAPE.hidden_size, generator=random)
    head = Eagle3Head(SHAPE, draft_ids=torch.randperm(SHAPE.vocab_size, generator=random)[:40])
    head.initialise(embedding, 3)
    with torch.no_grad():
        for name, weight in head.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.2 * torch.randn(weight.shape, generator=random))
    head.requires_grad_(False)
    features = torch.randn(1, LENGTH, 3 * SHAPE.hidden_size, generator=random)
    ids = torch.randint(SHAPE.vocab_size, (1, LENGTH), generator=random)
    return head, embedding, features, ids


def test_unrolled_steps_equal_drafting_row_by_row() -> None:
    head, embedding, features, ids = make()
    unrolled = head.unroll(features, ids, embedding, num_steps=STEPS)
    tokens = ids[0].tolist()
    drafter = Drafter(head, embedding)
    for known in range(2, LENGTH - STEPS):
        truth = tokens[known : known + STEPS]
        chain = drafter.chain(
            features[0], tokens[:known], num_steps=STEPS, choose=lambda step, logits, truth=truth: truth[step]
        )
        for step, logits in enumerate(chain):
            torch.testing.assert_close(unrolled[step][0, known - 2], logits, atol=2e-5, rtol=1e-4)


def test_offset_table_and_marks_agree() -> None:
    head, _, _, _ = make()
    assert head.d2t.dtype == torch.int64 and head.t2d.dtype == torch.bool
    assert torch.equal(head.t2d.nonzero()[:, 0], head.draft_ids)
    assert int(head.draft_ids.max()) < SHAPE.vocab_size


@pytest.mark.slow
def test_unrolled_steps_equal_the_speculators_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TORCHDYNAMO_DISABLE", "1")
    from speculators import SpeculatorsConfig, VerifierConfig
    from speculators.models.eagle3 import Eagle3DraftModel, Eagle3SpeculatorConfig
    from speculators.proposals.greedy import GreedyTokenProposalConfig
    from transformers import LlamaConfig

    layer = LlamaConfig(
        vocab_size=SHAPE.vocab_size,
        hidden_size=SHAPE.hidden_size,
        intermediate_size=SHAPE.intermediate_size,
        num_hidden_layers=1,
        num_attention_heads=SHAPE.num_heads,
        num_key_value_heads=SHAPE.num_kv_heads,
        head_dim=SHAPE.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": SHAPE.rope_theta},
        rms_norm_eps=SHAPE.norm_eps,
    )
    layer._attn_implementation = "eager"
    model = Eagle3DraftModel(
        Eagle3SpeculatorConfig(
            transformer_layer_config=layer,
            draft_vocab_size=SHAPE.draft_vocab_size,
            norm_before_residual=False,
            eagle_aux_hidden_state_layer_ids=[2, 4, 5],
            speculators_config=SpeculatorsConfig(
                algorithm="eagle3",
                proposal_methods=[GreedyTokenProposalConfig(speculative_tokens=3)],
                default_proposal_method="greedy",
                verifier=VerifierConfig(name_or_path=None, architectures=["Qwen3ForCausalLM"]),
            ),
        )
    )
    head, embedding, features, ids = make()
    ours = {name.replace("midlayer.", "layers.0."): weight for name, weight in head.state_dict().items()}
    ours["embed_tokens.weight"] = embedding
    model.load_vocab_mappings(ours.pop("t2d"), ours.pop("d2t"))
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected and all("verifier" in name or name in ("d2t", "t2d") for name in missing)
    model.eval()
    seen: list[Tensor] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        # its rows carry the feature of token j - 1 beside the id of token j: ours, shifted by one
        model(features, ids.roll(-1, dims=1), document_ids=torch.zeros_like(ids), ttt_steps=STEPS)
    for step, logits in enumerate(head.unroll(features, ids, embedding, num_steps=STEPS)):
        valid = LENGTH - 1 - step
        torch.testing.assert_close(seen[step][0, :valid], logits[0, :valid], atol=1e-4, rtol=1e-3)
