"""The hybrid's training network equals transformers' text model of Qwen3.5, and its MTP module their MTP layer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.modeling_layers import MtpLayer
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5RMSNorm

from outrider_recipe import checkpoints
from outrider_recipe.delta_rule import CHUNK, gated_delta_rule, unit_lower_inverse
from outrider_recipe.distill import STEP_WEIGHT, draft_losses, train_head
from outrider_recipe.fit import Budget
from outrider_recipe.hidden_states import features_and_distributions
from outrider_recipe.hybrid import Hybrid, HybridShape
from outrider_recipe.mtp import MtpModule
from outrider_recipe.network import rope_table
from outrider_recipe.tokens import Share, TokenRow

LENGTH, STEPS = 150, 3  # more than two chunks
SHAPE = HybridShape(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rope_theta=10_000.0,
    max_length=512,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=16,
)


def randomise(module: torch.nn.Module, random: torch.Generator) -> None:
    """Weights large enough, and norms uneven enough, that a wrong formula shows."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            scale = 0.15 if weight.dim() == 2 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=random) * scale + ("linear_attn.norm" in name))
    module.requires_grad_(False)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Hybrid, MtpModule, Qwen3_5ForCausalLM, Tensor]:
    """Ours, read back from a checkpoint; theirs, read from the same; ids [2, LENGTH]."""
    random = torch.Generator().manual_seed(5)
    target, mtp = Hybrid(SHAPE), MtpModule(SHAPE)
    randomise(target, random)
    randomise(mtp, random)
    checkpoints.save_target(target, tmp_path, end_ids=(254, 255), mtp=mtp)
    theirs = Qwen3_5ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = checkpoints.load_target(tmp_path, torch.device("cpu"))
    assert isinstance(ours, Hybrid)
    ids = torch.randint(SHAPE.vocab_size, (2, LENGTH), generator=random)
    return ours, checkpoints.load_mtp(tmp_path, torch.device("cpu")), theirs, ids


def test_transformers_agrees_on_every_logit(made: tuple[Hybrid, MtpModule, Qwen3_5ForCausalLM, Tensor]) -> None:
    ours, _, theirs, ids = made
    with torch.no_grad():
        wanted = theirs(ids).logits
        logits = ours.logits(ours.hidden(ids))
    assert wanted.abs().max() > 1
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


def test_padded_prompts_and_single_steps_equal_the_whole_window(
    made: tuple[Hybrid, MtpModule, Qwen3_5ForCausalLM, Tensor],
) -> None:
    ours, _, _, ids = made
    lengths, rows = torch.tensor([100, 2]), torch.arange(2)
    with torch.no_grad():
        whole = ours.hidden(ids)
        cache = ours.empty_cache(2, capacity=LENGTH, like=torch.zeros(()))
        begun = ours.prefill(ids[:, :100], cache, lengths=lengths)
        torch.testing.assert_close(begun[rows, lengths - 1], whole[rows, lengths - 1], atol=1e-4, rtol=1e-4)
        for more in range(40):
            stepped = ours.step(ids[rows, lengths + more], cache, lengths=lengths + more)
            torch.testing.assert_close(stepped, whole[rows, lengths + more], atol=1e-4, rtol=1e-4)


def test_unrolled_drafts_equal_a_chain_of_transformers_mtp_layers(
    made: tuple[Hybrid, MtpModule, Qwen3_5ForCausalLM, Tensor],
) -> None:
    ours, mtp, theirs, ids = made
    ids = ids[:1, :24]
    config = Qwen3_5TextConfig(**theirs.config.to_dict() | {"num_hidden_layers": 1, "layer_types": ["full_attention"]})
    config._attn_implementation = "eager"
    layer = MtpLayer(config, Qwen3_5DecoderLayer, Qwen3_5RMSNorm, 0)
    names = {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "post_norm"}
    weights = {}
    for name, weight in mtp.state_dict().items():
        first, rest = name.split(".", 1)
        weights[f"{names[first]}.{rest}" if first in names else name.replace("layers.0", "mtp_block")] = weight
    layer.load_state_dict(weights)
    embedding = ours.model.embed_tokens.weight
    with torch.no_grad():
        hidden = ours.hidden(ids)
        unrolled = mtp.unroll(hidden, ids, embedding, num_steps=STEPS)
        for anchor in range(ids.shape[1] - STEPS - 1):
            states = hidden[:, : anchor + 1]  # the true rows; each draft's row joins them
            for step in range(STEPS):
                size = states.shape[1]
                angles = rope_table(torch.arange(size), head_dim=SHAPE.rotary_dim, theta=SHAPE.rope_theta)
                cos, sin = (torch.cat((half, half), dim=-1)[None] for half in angles)
                mask = torch.full((size, size), -torch.inf).triu(1)[None, None]
                out = layer(embedding[ids[:, 1 : size + 1]], states, (cos, sin), mask, None, None)
                torch.testing.assert_close(unrolled[step][0, anchor], out[0, -1] @ embedding.T, atol=1e-4, rtol=1e-4)
                states = torch.cat((states, out[:, -1:]), dim=1)


@pytest.mark.slow
def test_a_module_learns_what_its_target_says() -> None:
    random = torch.Generator().manual_seed(2)
    target = Hybrid(SHAPE)
    randomise(target, random)
    tokens = torch.randint(0, 40, (600,), generator=random, dtype=torch.int32)
    shares = [Share(TokenRow(tokens, torch.arange(0, 600, 50)), 4, 0.5)]
    mtp = MtpModule(SHAPE)
    mtp.initialise(target.model.norm.weight, 1)
    ids = tokens[:480].long().view(20, 24)
    embedding = target.model.embed_tokens.weight
    features, wanted = features_and_distributions(target, ids, mtp.draft_ids)

    def losses() -> Tensor:
        with torch.no_grad():
            return draft_losses(mtp, features, ids, wanted, embedding, STEPS)

    before = losses()
    train_head(
        mtp,
        list(mtp.named_parameters()),
        target,
        shares,
        num_steps=STEPS,
        length=24,
        budget=Budget(steps=120, seconds=600, lr=0.01),
        seed=3,
        compiled=False,
        say=lambda text: None,
    )
    entropy = -(wanted * wanted.clamp(min=1e-9).log()).sum(dim=-1).mean()
    floor = entropy * STEP_WEIGHT ** torch.arange(STEPS)
    assert bool((losses() - floor < 0.6 * (before - floor)).all())


def test_chunks_and_their_gradients_equal_the_recurrence() -> None:
    random = torch.Generator().manual_seed(3)
    rows, heads, length, width = 2, 3, CHUNK + 17, 8
    q, k, v = (torch.randn(rows, heads, length, width, generator=random) for _ in range(3))
    k = torch.nn.functional.normalize(k, dim=-1)
    log_decay = -torch.rand(rows, heads, length, generator=random)
    beta = torch.rand(rows, heads, length, generator=random)
    inputs = [x.requires_grad_() for x in (q, k, v, log_decay, beta)]
    outputs, last = gated_delta_rule(q, k, v, log_decay=log_decay, beta=beta)
    state, expected = torch.zeros(rows, heads, width, width), []
    for t in range(length):
        state = state * log_decay[..., t, None, None].exp()
        change = beta[..., t, None] * (v[:, :, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, :, t]))
        state = state + k[:, :, t, :, None] * change[:, :, None]
        expected.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]))
    wanted = torch.stack(expected, dim=2)
    torch.testing.assert_close(outputs, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, state, atol=1e-5, rtol=1e-4)
    direction = torch.randn(wanted.shape, generator=random)
    gradients = torch.autograd.grad((outputs * direction).sum() + last.sum(), inputs)
    wished = torch.autograd.grad((wanted * direction).sum() + state.sum(), inputs)
    for ours, theirs in zip(gradients, wished, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


def test_inverse_is_exact_where_powers_would_overflow() -> None:
    """Equal keys that are written whole: powers of this matrix reach 10^18, its inverse has ones only."""
    ones = torch.ones(1, CHUNK, CHUNK).tril(-1)
    assert torch.equal(unit_lower_inverse(ones) @ (ones + torch.eye(CHUNK)), torch.eye(CHUNK)[None])
    some = torch.randn(3, CHUNK, CHUNK, generator=torch.Generator().manual_seed(1)).tril(-1) * 0.3
    product = unit_lower_inverse(some) @ (some + torch.eye(CHUNK))
    torch.testing.assert_close(product, torch.eye(CHUNK).expand(3, -1, -1), atol=2e-5, rtol=0)
