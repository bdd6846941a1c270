"""`AsyncLLM` beside a caller that uses the GPU itself: its engine's process gives the tokens that `LLM` gives."""

import asyncio

import pytest
import torch

from outrider import LLM, AsyncLLM, SamplingParams

from .gpu_engine import EAGLE3, ZOO

PROMPTS = ("def add(a, b):", "class Stack:", "while True:")
OPTIONS = {"device": "cuda", "max_model_len": 512, "gpu_memory_utilization": 0.3, "speculative_config": EAGLE3}


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> None:
    """Not here: the engine allocates through captured graphs."""


def test_the_process_gives_the_tokens_of_an_engine_in_the_callers_process() -> None:
    params = [SamplingParams(temperature=0.8, seed=seed, max_tokens=40, ignore_eos=True) for seed in range(3)]
    expected = LLM(str(ZOO / "tiny"), **OPTIONS).generate(PROMPTS, params)
    assert torch.cuda.is_initialized(), "the caller uses the GPU"
    tokens: dict[int, list[int]] = {index: [] for index in range(3)}

    async def read(llm: AsyncLLM, index: int) -> None:
        async for delta in llm.generate(PROMPTS[index], params[index]):
            tokens[index] += delta.token_ids

    async def scenario() -> None:
        async with AsyncLLM(str(ZOO / "tiny"), **OPTIONS) as llm:
            await asyncio.gather(*(read(llm, index) for index in range(3)))

    asyncio.run(scenario())
    assert list(tokens.values()) == [output.outputs[0].token_ids for output in expected]
