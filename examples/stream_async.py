"""Streams several requests at once with AsyncLLM, prints text as it arrives, and cancels one of them.

Run it from the repository: python examples/stream_async.py
"""

import asyncio
from pathlib import Path

from outrider import AsyncLLM, SamplingParams

ZOO = Path(__file__).parents[1] / "zoo"


async def follow(llm: AsyncLLM, name: str, prompt: str) -> None:
    """Prints each piece of one request with its tokens' origins: d for a draft, t for the target."""
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=24)
    async for delta in llm.generate(prompt, params):
        origins = "".join("d" if is_draft else "t" for is_draft in delta.is_draft)
        print(f"{name} {origins:4} {delta.text!r}")
        if delta.output is not None:  # the last delta carries the whole output
            print(f"{name} done: {len(delta.output.outputs[0].token_ids)} tokens")


async def give_up(llm: AsyncLLM, prompt: str) -> None:
    """Leaves the iterator early: the engine aborts the request and frees its memory."""
    stream = llm.generate(prompt, SamplingParams(temperature=0.0, max_tokens=1000))
    async for delta in stream:
        print(f"c gives up after {delta.text!r}")
        break
    await stream.aclose()


async def main() -> None:
    drafter = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
    async with AsyncLLM(str(ZOO / "tiny"), speculative_config=drafter) as llm:
        await asyncio.gather(
            follow(llm, "a", "def mean(values):"),
            follow(llm, "b", "class Stack:"),
            give_up(llm, "while True:"),
        )


if __name__ == "__main__":
    asyncio.run(main())
