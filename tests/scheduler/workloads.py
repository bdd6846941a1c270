"""Random workloads on random engines, from crowds on a pool that holds one request to ample ones."""

import random
from dataclasses import replace

from outrider.core.content import ContentKey, content_digest

from .hash_model import SIZE, VOCAB_SIZE, Job, Setting, continuation
from .loop import Loop

KEYS = [content_digest("image", bytes([index])) for index in range(2)]


def random_contents(rng: random.Random, num_tokens: int) -> tuple[ContentKey, ...]:
    """A few images among `num_tokens` tokens, now and then an adapter; of so few kinds that equal ones meet."""
    images = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        first = rng.randrange(num_tokens) // 4 * 4
        images.append(ContentKey(key=rng.choice(KEYS), first_token=first, num_tokens=rng.choice((1, 7, 20))))
    if rng.random() < 0.2:
        images.append(ContentKey(key=content_digest("adapter", b"")))
    return tuple(images)


def random_jobs(rng: random.Random, *, is_tight: bool) -> list[Job]:
    """Crowds with shared prefixes, exact block sizes, second turns of a conversation, stops, aborts and limits."""
    bases = [_random_tokens(rng, rng.randrange(1, 100)) for _ in range(2)]
    return [
        _random_job(rng, f"r{index}", rng.choice(bases), is_tight=is_tight) for index in range(rng.randrange(3, 14))
    ]


def _random_tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCAB_SIZE) for _ in range(count))


def _random_job(rng: random.Random, request_id: str, base: tuple[int, ...], *, is_tight: bool) -> Job:
    salt = rng.randrange(2)
    match rng.randrange(6):
        case 0:
            prompt = base[: 1 + rng.randrange(len(base))]
        case 1:
            prompt = base[: max(SIZE, len(base) // SIZE * SIZE)]
        case 2:
            prompt = base + tuple(continuation(base, rng.randrange(40), salt))
        case 3:
            prompt = _random_tokens(rng, SIZE) + base  # whole blocks of the base, behind other tokens
        case _:
            prompt = base[: rng.randrange(len(base) + 1)] + _random_tokens(rng, rng.randrange(1, 30))
    arrives = rng.choice((0, rng.randrange(10 if is_tight else 60)))
    least = 20 if is_tight else 1
    asks = random.Random(f"{request_id} {arrives} {len(prompt)}")
    return Job(
        request_id=request_id,
        prompt=prompt,
        max_tokens=rng.choice((least, rng.randrange(least, 40), rng.randrange(least, 70))),
        salt=salt,
        stop_ids=frozenset(rng.sample(range(VOCAB_SIZE), rng.choice((0, 0, 1, 3)))),
        arrives=arrives,
        aborted_at=arrives + rng.randrange(30) if rng.random() < 0.15 else None,
        max_model_len=len(prompt) + rng.randrange(1, 30) if rng.random() < 0.2 else 1 << 20,
        priority=asks.choice((0, 0, 0, 1, -1)),
        most_drafts=asks.choice((None, None, 0, 1)),
        call_id=asks.choice("ab"),
    )


def random_setting(rng: random.Random, jobs: list[Job], *, is_tight: bool) -> Setting:
    """Pools from the least that holds the largest job, budgets from the tokens of one row, to ample ones."""
    largest = max(-(-job.max_total // SIZE) for job in jobs)
    num_drafts = rng.choice((0, 1, 3, 5))
    few_rows = rng.choice((2, 3)) * (1 + num_drafts) + num_drafts  # what is left admits one more
    return Setting(
        num_blocks=1 + largest + rng.choice((0, 1, 2) if is_tight else (0, 1, 3, 6, 12, 60)),
        max_num_seqs=rng.choice((4, 8) if is_tight else (1, 2, 3, 4, 8)),
        budget=rng.choice((few_rows, 70) if is_tight else (1 + num_drafts, few_rows, 16, 33, 64, 300)),
        num_drafts=num_drafts,
        has_drafter_kv=rng.random() < 0.7,
        depth=rng.choice((0, 1, 1, 2)),
        caching=rng.random() < 0.7,
        accuracy=rng.choice((0.0, 0.7, 0.7, 0.9, 1.0)),
    )


def simulate(seed: int, *, is_tight: bool = False, num_lookahead: int | None = None, **changes: int) -> Loop:
    """One random workload on one random engine, to its end; `changes` replace fields of the setting."""
    rng = random.Random(seed)
    jobs = random_jobs(rng, is_tight=is_tight)
    changes = {"learns": seed % 3 == 0} | changes
    setting = replace(random_setting(rng, jobs, is_tight=is_tight), **changes)  # type: ignore[arg-type]
    try:
        return Loop(setting, seed=seed, num_lookahead=num_lookahead).run(jobs)
    except AssertionError as error:
        error.add_note(f"seed={seed}, is_tight={is_tight}, {setting}")
        raise


def simulate_contents(seed: int) -> Loop:
    """Requests with equal ids and other content, or equal content at other places, on pools that preempt them."""
    rng = random.Random(seed)
    prompt = tuple(rng.randrange(VOCAB_SIZE) for _ in range(rng.randrange(17, 70)))
    contents = [random_contents(rng, len(prompt)) for _ in range(3)]
    jobs = [
        Job(
            request_id=f"r{index}",
            prompt=prompt[: rng.choice((len(prompt), rng.randrange(1, len(prompt)), 33))],
            max_tokens=rng.randrange(5, 60),
            contents=rng.choice(contents),
            arrives=rng.randrange(60),
        )
        for index in range(10)
    ]
    largest = max(-(-job.max_total // SIZE) for job in jobs)
    setting = Setting(num_blocks=1 + largest + rng.choice((0, 2, 40)), depth=rng.choice((0, 1)), accuracy=0.8)
    try:
        return Loop(setting, seed=seed).run(jobs)
    except AssertionError as error:
        error.add_note(f"seed={seed}, {setting}")
        raise


def rotate(seed: int) -> Loop:
    """Three requests outgrow their pool on a budget for two: the latest may be preempted in a step it is in."""
    setting = Setting(num_blocks=14, max_num_seqs=3, budget=11, num_drafts=3, has_drafter_kv=False, depth=seed % 2)
    jobs = [Job(request_id=name, prompt=(token_id,), max_tokens=150) for token_id, name in enumerate("abc")]
    try:
        return Loop(setting, seed=seed).run(jobs)
    except AssertionError as error:
        error.add_note(f"seed={seed}")
        raise
