"""Runs requests of its own on a worker, so that its calls of kernels can be recorded.

It has a scheduler of its own, as `draft_timing.py` has: nothing is counted or published, and what remains on the device
is what finished requests leave. Steps are launched kernel by kernel: a graph calls no kernel.
"""

import random
from collections.abc import Callable, Sequence

from outrider.core.errors import RequestError
from outrider.core.pooling import PoolingParams
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.text import OutputTexts
from outrider.invariance.calls import Call
from outrider.invariance.check import record_kernels
from outrider.invariance.form import Limits
from outrider.kernels import Kernels
from outrider.runtime.worker import Worker
from outrider.scheduler.scheduler import Scheduler

_NUM_REQUESTS = 12
_MAX_TOKENS = 6
_MOST_PROMPT = 90


def recorded_calls(worker: Worker, make_request: Callable[..., Request]) -> list[Call]:
    """Calls of the worker's kernels, one of each kind. `make_request`: as `Admission.request`, or as that of
    `PoolingAdmission` if the model pools. No step may be in flight."""
    graphs, worker.graphs = worker.graphs, None
    try:
        with record_kernels(kernel_sets(worker)) as calls:
            _serve(worker, _requests(worker, make_request))
    finally:
        worker.graphs = graphs
    return calls


def kernel_sets(worker: Worker) -> list[Kernels]:
    """The kernels that parts of a worker hold: an encoder and an attention backend have sets of their own."""
    return [worker.kernels, worker.model.context.kernels, worker.selection.backend.kernels]


def limits_of(worker: Worker) -> Limits:
    """Sizes of the worker's steps. A CPU takes smaller cases, because it is slow; on a GPU they fit into the
    memory that the KV cache leaves."""
    config, is_cpu = worker.config, worker.platform.accelerator is None
    return Limits(
        max_tokens=min(config.step_token_budget, 1100),
        max_samples=config.num_rows * (1 + config.num_speculative_tokens),
        max_length=worker.max_model_len,
        num_elements=1 << (18 if is_cpu else 24),
        num_drafts=config.num_speculative_tokens,
    )


def _serve(worker: Worker, requests: Sequence[Request]) -> None:
    texts = OutputTexts(None)
    scheduler = Scheduler(
        groups=worker.groups,
        num_blocks=worker.num_blocks,
        max_num_seqs=worker.config.num_rows,
        max_num_batched_tokens=worker.config.step_token_budget,
        num_drafts=worker.config.num_speculative_tokens,
        num_lookahead=worker.num_lookahead,
        enable_prefix_caching=False,
        stop_rule=texts,
        num_snapshots=worker.num_snapshots,
        needs_whole_prompts=not worker.model_config.is_causal,
    )
    for request in requests:
        try:
            scheduler.add(request)
        except RequestError:  # it needs more blocks than there are
            continue
        texts.begin(request)
    is_pooling = worker.model_config.pooler is not None
    while (plan := scheduler.plan()) is not None:
        if is_pooling or plan.step_id % 2 == 0:
            handle = worker.step(plan)
        else:
            handle = worker.finish(worker.begin(plan), [None for row in plan.rows if row.has_grammar])
        scheduler.settle(plan, handle.wait())


def _requests(worker: Worker, make_request: Callable[..., Request]) -> list[Request]:
    """Prompts of different lengths; all sampling parameters that call a kernel of their own, or a part of one."""
    rng, vocab_size = random.Random(0), worker.model_config.vocab_size
    longest = max(1, min(_MOST_PROMPT, worker.max_model_len - _MAX_TOKENS - worker.config.num_speculative_tokens - 1))
    requests = []
    for index in range(_NUM_REQUESTS):
        length = min(longest, 1 + index * _MOST_PROMPT // _NUM_REQUESTS)
        prompt = {"prompt_token_ids": [rng.randrange(vocab_size) for _ in range(length)]}
        params = PoolingParams() if worker.model_config.pooler is not None else _params(index, vocab_size)
        requests.append(make_request(prompt, params, request_id=f"check-{index}"))
    return requests


def _params(index: int, vocab_size: int) -> SamplingParams:
    last = vocab_size - 1
    return SamplingParams(
        temperature=(0.0, 0.8, 1.0, 1.3)[index % 4],
        top_p=(1.0, 0.9)[index % 2],
        top_k=(0, 0, 40)[index % 3],
        min_p=(0.0, 0.0, 0.05)[index % 3],
        seed=index,
        max_tokens=_MAX_TOKENS,
        min_tokens=2 if index % 4 == 3 else 0,
        ignore_eos=index % 4 != 3,
        detokenize=False,
        logprobs=3 if index % 2 else None,
        repetition_penalty=1.2 if index % 3 == 1 else 1.0,
        frequency_penalty=0.3 if index % 3 == 2 else 0.0,
        logit_bias={last: 1.0, 0: -1.0} if index % 4 == 1 else None,
        bad_words=[[0, last], [last]] if index % 5 == 2 else None,
        allowed_token_ids=list(range(min(vocab_size, 300))) if index == 5 else None,
    )
