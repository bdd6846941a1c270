"""Cost of requests that start: host time and launches of `RequestTable.admit`: `python -m benchmarks.admission`.

Requests are random ones with prompts of 512 tokens and 32 new blocks each. "Packing" is the part of the host's time
that needs no device. On a CPU the whole call includes the work of the "device", so only packing is meaningful there.
"Lists" are parameters with many values (logit_bias, allowed_token_ids): they make the copy longer.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.autograd import DeviceType

from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import NewBlocks, RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.kernels import load_kernels
from outrider.platforms.base import BasePlatform, select_platform

VOCAB_SIZE, MAX_MODEL_LEN, BLOCK_SIZE, PROMPT_LEN = 151_936, 4096, 16, 512
COUNTS = (1, 64, 256)

KINDS = {
    "greedy": SamplingParams(temperature=0.0),
    "random, top_p": SamplingParams(temperature=0.8, top_p=0.9),
    "lists": SamplingParams(temperature=0.8, logit_bias={3: 1.0}, allowed_token_ids=list(range(1000))),
}


def make_table(platform: BasePlatform) -> RequestTable:
    return RequestTable(
        max_rows=max(COUNTS),
        max_model_len=MAX_MODEL_LEN,
        num_drafts=3,
        groups=(BlockGroup(block_size=BLOCK_SIZE),),
        vocab_size=VOCAB_SIZE,
        kernels=load_kernels(platform.kernel_stack),
        staging=Staging(platform),
        device=platform.device,
    )


def make_plan(count: int, params: SamplingParams, *, seed: int) -> tuple[list[RowAdmission], list[NewBlocks]]:
    rng = random.Random(seed)
    admissions = [
        RowAdmission(
            row=row,
            request_id=str(row),
            token_ids=tuple(rng.randrange(VOCAB_SIZE) for _ in range(PROMPT_LEN)),
            num_prompt_tokens=PROMPT_LEN,
            num_computed_tokens=0,
            last_cached_block=-1,
            max_total_tokens=2 * PROMPT_LEN,
            params=params,
            seed=rng.randrange(1 << 63),
            stop_token_ids=(VOCAB_SIZE - 1,),
        )
        for row in range(count)
    ]
    num_blocks = PROMPT_LEN // BLOCK_SIZE
    blocks = [
        NewBlocks(row=row, first_index=0, block_ids=tuple(range(1 + row * num_blocks, 1 + (row + 1) * num_blocks)))
        for row in range(count)
    ]
    return admissions, blocks


def host_seconds(run: Callable[[], object], platform: BasePlatform, *, repeats: int) -> float:
    """Median time until the call returns; the device has finished before each call."""
    times = []
    for _ in range(repeats):
        if platform.accelerator is not None:
            platform.accelerator.synchronize()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def num_launches(run: Callable[[], object], platform: BasePlatform) -> str:
    """Copies and kernels that one call gives to the device; "-" if there is no device with a stream."""
    if platform.accelerator is None:
        return "-"
    platform.accelerator.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        platform.accelerator.synchronize()
    return str(sum(event.device_type == DeviceType.CUDA for event in profile.events()))


def lines(platform: BasePlatform, *, repeats: int) -> Sequence[str]:
    table = make_table(platform)
    found = [
        "| requests | parameters | packing, µs a request | µs a request | µs a step | copies and kernels a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, params in KINDS.items():
        for count in COUNTS:
            admissions, blocks = make_plan(count, params, seed=count)

            run = partial(table.admit, admissions, blocks)
            for _ in range(3):
                run()
            packing = (
                host_seconds(partial(table._packer.pack, admissions, blocks), platform, repeats=repeats) * 1e6 / count
            )
            whole = host_seconds(run, platform, repeats=repeats) * 1e6
            launches = num_launches(run, platform)
            found.append(f"| {count} | {name} | {packing:.1f} | {whole / count:.1f} | {whole:.0f} | {launches} |")
    _, blocks = make_plan(max(COUNTS), KINDS["greedy"], seed=0)
    more = [NewBlocks(row=entry.row, first_index=32, block_ids=entry.block_ids[:1]) for entry in blocks]
    run = partial(table.admit, (), more)
    whole = host_seconds(run, platform, repeats=repeats) * 1e6
    found.append(f"| 0, and {len(more)} new blocks | - | - | - | {whole:.0f} | {num_launches(run, platform)} |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30, help="calls of which the median is printed")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    platform = select_platform(arguments.device)
    print(f"{platform.summary}, torch {torch.__version__}\n")
    with torch.inference_mode():
        print("\n".join(lines(platform, repeats=arguments.repeats)))


if __name__ == "__main__":
    main()
