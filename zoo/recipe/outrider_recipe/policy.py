"""Text sampled from the target itself: a drafter is trained on the text that it will meet when it drafts.

Prompts are beginnings of training windows and training problems; nothing held out is touched.
"""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer

from outrider_recipe import vocabulary
from outrider_recipe.arithmetic.problems import draw_training, plain_prompt
from outrider_recipe.network import Target
from outrider_recipe.sampling import continue_prompts
from outrider_recipe.tokens import TokenRow

NUM_TOKENS = 512  # prompt and continuation of one code row
PROMPT_SIZES = (64, 128, 192, 320)


def sample_policy(
    target: Target,
    tokenizer: Tokenizer,
    work: Path,
    *,
    seconds: float,
    num_rows: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Write tokens/policy_{code,arithmetic}; half of the rows greedy, half at temperature 1. Skips files that exist."""
    folder = work / "tokens"
    if (folder / "policy_code.starts.npy").exists():
        return
    device = target.model.embed_tokens.weight.device
    stops = vocabulary.stop_ids(tokenizer)
    end_of_text = stops[1]
    code = TokenRow.load(folder / "code", device)
    chat = TokenRow.load(folder / "chat", device)
    random = torch.Generator(device=device).manual_seed(seed)
    words = Random(seed)
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows: dict[str, list[list[int]]] = {"policy_code": [], "policy_arithmetic": []}
    started, batch = time.monotonic(), 0
    while batch < 4 or time.monotonic() - started < seconds:
        temperature = float(batch % 2)
        is_story = batch % 4 >= 2
        if is_story:
            prompts = [_story_prompt(tokenizer, words) for _ in range(num_rows)]
            size = max(map(len, prompts))
            num_tokens = 320
        else:
            size = PROMPT_SIZES[batch // 4 % len(PROMPT_SIZES)]
            num_chat = num_rows // 8
            windows = [
                code.windows(num_rows - num_chat, length=size, aligned=0.5, random=random),
                chat.windows(num_chat, length=size, aligned=1.0, random=random),
            ]
            prompts = torch.cat(windows).tolist()
            num_tokens = NUM_TOKENS - 1 - size
        outputs = continue_prompts(
            target,
            prompts,
            num_tokens=num_tokens,
            temperature=temperature,
            seed=seed + batch,
            stop_ids=stops if is_story else [end_of_text],
            precision=precision,
        )
        kept = rows["policy_arithmetic" if is_story else "policy_code"]
        for prompt, output in zip(prompts, outputs, strict=True):
            row = [*prompt, *output]
            kept.append(row if row[-1] == end_of_text else [*row, end_of_text])
        batch += 1
    for name, lists in rows.items():
        tokens = np.concatenate([np.asarray(row, dtype=np.uint16) for row in lists])
        starts = np.cumsum([0, *(len(row) for row in lists[:-1])]).astype(np.int64)
        np.save(folder / f"{name}.tokens.npy", tokens)
        np.save(folder / f"{name}.starts.npy", starts)
        say(f"{name}: {len(tokens) / 1e6:.2f} million tokens from {len(lists)} rows")


def _story_prompt(tokenizer: Tokenizer, random: Random) -> list[int]:
    problem = draw_training(random)
    if random.random() < 0.5:
        return tokenizer.encode(vocabulary.chat_prompt(problem.question)).ids
    return tokenizer.encode(plain_prompt(problem)).ids


def draftable_ids(work: Path, *, vocab_size: int, draft_vocab_size: int) -> tuple[torch.Tensor, float]:
    """The most frequent target ids in sampled text, sorted, and the share of sampled tokens that they cover."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for name, weight in (("policy_code", 3), ("policy_arithmetic", 1), ("code", 1)):
        tokens = np.load(work / "tokens" / f"{name}.tokens.npy", mmap_mode="r")[:20_000_000]
        found = np.bincount(np.asarray(tokens), minlength=vocab_size)
        counts += weight * found * 10_000_000 // max(1, len(tokens))
    chosen = np.sort(np.argsort(-counts, kind="stable")[:draft_vocab_size])
    return torch.from_numpy(chosen.astype(np.int64)), float(counts[chosen].sum() / counts.sum())
