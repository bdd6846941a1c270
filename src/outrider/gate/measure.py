"""Runs prompts through an `LLM` and returns what the drafter did. Refuses what could not be repeated to the integer."""

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from outrider.core.errors import OutriderError
from outrider.core.outputs import RequestOutput
from outrider.core.sampling_params import SamplingParams
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.gate.errors import GateError
from outrider.gate.prompts import Prompt, digest
from outrider.gate.sample import Measurement, Sample, accepted_by_step
from outrider.llm import LLM
from outrider.progress import working


def open_engine(model: str, speculative: dict[str, Any] | None, **options: Any) -> LLM:
    """Makes an engine with digests on. Raises GateError if its counts may vary from run to run."""
    with working(f"Loading {model}"):
        llm = LLM(model, speculative_config=speculative, logits_digest=True, **options)
    worker = llm.engine.worker
    if not worker.is_exact:
        raise GateError(
            f"this engine is not exact here (attention backend {worker.selection.backend.name!r}, platform "
            f"{worker.platform.name!r}): its outputs may depend on the batch. Leave --attention-backend at 'auto'."
        )
    if worker.drafter is not None and not worker.drafter.is_row_invariant:
        assert speculative is not None
        raise GateError(
            f"drafter {speculative['method']!r} is not row-invariant: its acceptance varies from run to run and "
            "cannot be gated. Use a drafter that is."
        )
    return llm


def platform_key(llm: LLM) -> dict[str, str]:
    """The platform's key and the attention backend. Two runs with equal keys give equal bits."""
    worker = llm.engine.worker
    return {**worker.platform.key(worker.dtype), "attention_backend": worker.selection.backend.name}


def versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in ("outrider", "torch", "transformers", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "source tree"
    return found


def measure(
    llm: LLM,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    all_turns: bool = False,
) -> Measurement:
    """Runs the prompts; returns one sample per request. Request i of a turn has seed `seed + i`.

    With `all_turns` a prompt's later turns follow the model's own answers. Raises GateError if a request was
    preempted, because its steps then depend on the other requests.
    """
    samples: list[Sample] = []
    histories: list[list[dict[str, Any]]] = [[] for _ in prompts]
    for turn in range(max(len(prompt.turns) for prompt in prompts) if all_turns else 1):
        indices = [index for index, prompt in enumerate(prompts) if turn < len(prompt.turns)]
        for index in indices:
            histories[index].append({"role": "user", "content": prompts[index].turns[turn]})
        outputs = llm.generate(
            [{"prompt_token_ids": _token_ids(llm, prompts[index], histories[index])} for index in indices],
            [SamplingParams(temperature=temperature, seed=seed + index, max_tokens=max_tokens) for index in indices],
            use_tqdm=True,
        )
        for index, output in zip(indices, outputs, strict=True):
            samples.append(_sample(prompts[index], output, turn=turn + 1))
            histories[index].append({"role": "assistant", "content": output.outputs[0].text})
    order = {prompt.prompt_id: index for index, prompt in enumerate(prompts)}
    samples.sort(key=lambda sample: (order[sample.prompt], sample.turn))
    return Measurement(
        samples=tuple(samples),
        key=platform_key(llm),
        versions=versions(),
        num_drafts=llm.engine.config.num_speculative_tokens,
    )


def _token_ids(llm: LLM, prompt: Prompt, history: list[dict[str, Any]]) -> list[int]:
    tokenizer = llm.engine.tokenizer
    if tokenizer is None:
        raise GateError("a gate needs the tokenizer: leave skip_tokenizer_init unset.")
    if not prompt.is_chat:
        return tokenizer.encode("".join(message["content"] for message in history))
    try:
        return encode_chat(tokenizer, history, ChatOptions())
    except OutriderError as error:
        raise GateError(
            f'prompt {prompt.prompt_id!r} is a chat: {error} Or mark the line with "chat": false.'
        ) from error


def _sample(prompt: Prompt, output: RequestOutput, *, turn: int) -> Sample:
    completion, stats = output.outputs[0], output.speculation
    if output.num_preemptions:
        raise GateError(
            f"prompt {prompt.prompt_id!r} was preempted {output.num_preemptions} times: a resumed request has a step "
            "without drafts, so counts depend on memory. Lower --max-model-len or use fewer prompts at once."
        )
    steps = accepted_by_step(completion.is_draft)
    assert len(steps) == stats.num_steps and sum(steps) == stats.num_accepted_tokens, "origins and counts disagree"
    assert completion.logits_digest is not None, "a gate runs with digests on"
    return Sample(
        prompt=prompt.prompt_id,
        turn=turn,
        category=prompt.category,
        seed=output.seed,
        prompt_digest=digest(" ".join(map(str, output.prompt_token_ids))),
        num_tokens=len(completion.token_ids),
        num_steps=stats.num_steps,
        num_drafts=stats.num_drafts,
        num_draft_tokens=stats.num_draft_tokens,
        num_accepted_tokens=stats.num_accepted_tokens,
        num_accepted_tokens_per_pos=tuple(stats.num_accepted_tokens_per_pos),
        accepted_by_step=steps,
        token_ids=tuple(completion.token_ids),
        logits_digest=completion.logits_digest,
    )
