"""Training makes a draft model predict what its target predicts."""

import pytest
import torch

from outrider_recipe.draft import draft_loss, draft_shape, train_draft
from outrider_recipe.fit import Budget
from outrider_recipe.network import Shape, Target
from outrider_recipe.tokens import Share, TokenRow

TOY = Shape(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=4, num_heads=2, num_kv_heads=1, head_dim=16,
    max_length=64,
)  # fmt: skip


@pytest.mark.slow
def test_a_draft_model_learns_what_its_target_says() -> None:
    target = Target(TOY)
    target.initialise(1)
    with torch.no_grad():
        target.model.embed_tokens.weight.mul_(20)  # so that there is something to learn
    target.requires_grad_(False)
    random = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 40, (600,), generator=random, dtype=torch.int32)
    shares = [Share(TokenRow(tokens, torch.arange(0, 600, 50)), 4, 0.5)]
    shape = draft_shape(TOY, num_layers=1, intermediate_size=16)
    assert (shape.num_layers, shape.intermediate_size, shape.hidden_size) == (1, 16, 32)

    def train(steps: int) -> Target:
        draft, curve = train_draft(
            shape, target, shares, length=24, num_batches=8, rows_at_once=4, seed=3, compiled=False,
            budget=Budget(steps=steps, seconds=600, lr=0.01), say=lambda text: None,
        )  # fmt: skip
        assert curve.steps[-1] == steps
        return draft

    ids = torch.randint(0, 40, (16, 24), generator=random)
    hidden = target.hidden(ids).half()
    drafts = [train(1), train(120)]
    with torch.no_grad():
        entropy = draft_loss(target, target, ids, hidden).item()
        losses = [draft_loss(draft, target, ids, hidden).item() for draft in drafts]
    assert entropy < losses[1] < entropy + 0.5 * (losses[0] - entropy)
