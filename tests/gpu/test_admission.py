"""Requests that start, on a GPU: the table equals one on a CPU; one copy and one kernel a step, and no wait."""

import random

import pytest
import torch
from torch.autograd import DeviceType

from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import NewBlocks, RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.kernels import load_kernels
from outrider.platforms.base import select_platform

VOCAB_SIZE, NUM_ROWS, MAX_MODEL_LEN = 20_011, 40, 3000
PARAMS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.7, top_k=5, top_p=0.8, min_p=0.1, repetition_penalty=1.2, frequency_penalty=0.2),
    SamplingParams(logit_bias={3: 1.5, 9: -2.0}, min_tokens=2, logprobs=2, logprob_token_ids=[4, 5]),
    SamplingParams(allowed_token_ids=[1, 2, 20_000]),
)


def make_table(device: str) -> RequestTable:
    platform = select_platform(device)
    return RequestTable(
        max_rows=NUM_ROWS, max_model_len=MAX_MODEL_LEN, num_drafts=3,
        groups=(BlockGroup(block_size=16), BlockGroup(block_size=16, window=64)), vocab_size=VOCAB_SIZE,
        kernels=load_kernels(platform.kernel_stack), staging=Staging(platform), device=platform.device,
    )  # fmt: skip


def random_step(rng: random.Random) -> tuple[list[RowAdmission], list[NewBlocks]]:
    """Requests that start in some rows, and new blocks of any rows."""
    rows = rng.sample(range(NUM_ROWS), rng.choice((0, 1, 7, NUM_ROWS)))

    def admission(row: int) -> RowAdmission:
        num_tokens = rng.choice((1, 5, 512, 2900))
        return RowAdmission(
            row=row, request_id=str(row), token_ids=tuple(rng.randrange(VOCAB_SIZE) for _ in range(num_tokens)),
            num_prompt_tokens=rng.randint(1, num_tokens), num_computed_tokens=rng.randrange(num_tokens),
            last_cached_block=-1, max_total_tokens=MAX_MODEL_LEN, params=rng.choice(PARAMS),
            seed=rng.randrange(-(2**63), 2**63), stop_token_ids=(7, 8), completion_index=rng.randrange(3),
        )  # fmt: skip

    def blocks(row: int) -> NewBlocks:
        ids = tuple(rng.randrange(1, 999) for _ in range(rng.choice((1, 40, 180))))
        return NewBlocks(row=row, first_index=rng.randrange(8), block_ids=ids, group=rng.randrange(2))

    return [admission(row) for row in rows], [blocks(row) for row in range(NUM_ROWS) if rng.random() < 0.6]


def test_a_table_equals_one_on_a_cpu() -> None:
    rng = random.Random(0)
    ours, expected = make_table("cuda"), make_table("cpu")
    for _ in range(12):
        step = random_step(rng)
        for table in (ours, expected):
            table.admit(*step)
        for name, mine, right in zip(ours._memory._fields, ours._memory, expected._memory, strict=True):
            is_same = [torch.equal(mine.cpu(), right)]
            if name == "token_ids":  # what lies behind is never read
                counts = expected.num_tokens.tolist()
                is_same = [torch.equal(mine[row, :n].cpu(), right[row, :n]) for row, n in enumerate(counts)]
            assert all(is_same), name


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype", "ignore:.*Profiler clears events")
def test_a_step_takes_one_copy_and_one_kernel_and_does_not_wait() -> None:
    rng = random.Random(1)
    table = make_table("cuda")
    steps = [random_step(rng) for _ in range(6)]
    steps = [step for step in steps if any(step)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in steps:
            table.admit(*step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # filling would be a launch
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for step in steps:
            table.admit(*step)
        torch.cuda.synchronize()
    assert sum(event.device_type == DeviceType.CUDA for event in profile.events()) <= 2 * len(steps)
