"""Ways to vLLM like those of `ways.py`, through its public classes. Written for vLLM 0.26, which is not installed here.

Options are those of `Shape.options`, whose names are vLLM's. `AsyncLLM` and `vllm serve` get the defaults that vLLM has
for a server, `LLM` those that it has for offline use; its number of prompt tokens in a step differs between them.
"""

import itertools
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from benchmarks.traffic.ways import Offline, Online, Server, Unavailable
from outrider.bench.serve.answer import Answer
from outrider.bench.serve.workload import Ask


class InProcess:
    """`vllm.LLM.generate`. The times of single requests are not known."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._model, self._options = model, options

    def start(self) -> None:
        from vllm import LLM

        self._llm = LLM(model=self._model, **self._options)

    def stop(self) -> None:
        del self._llm

    def run(self, asks: Sequence[Ask]) -> list[Answer]:
        from vllm import SamplingParams

        params = [SamplingParams(temperature=0.0, max_tokens=ask.max_tokens, ignore_eos=True) for ask in asks]
        begin = time.perf_counter()
        outputs = self._llm.generate([{"prompt_token_ids": ask.prompt} for ask in asks], params, use_tqdm=False)
        end = time.perf_counter()
        return [Answer(sent=begin, ended=end, num_output_tokens=len(output.outputs[0].token_ids)) for output in outputs]

    def steps(self) -> None:
        return None


class Asynchronous:
    """`vllm.v1.engine.async_llm.AsyncLLM`, whose engine is a process of its own."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._model, self._options = model, options
        self._ids = itertools.count()

    async def start(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(model=self._model, **self._options)
        self._llm = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.OPENAI_API_SERVER)

    async def stop(self) -> None:
        self._llm.shutdown()

    async def ask(self, ask: Ask, answer: Answer) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0, max_tokens=ask.max_tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        prompt = {"prompt_token_ids": ask.prompt}
        async for output in self._llm.generate(prompt, params, request_id=str(next(self._ids))):
            num_tokens = len(output.outputs[0].token_ids)
            if num_tokens:
                answer.deliveries.append(time.perf_counter())
                answer.num_output_tokens += num_tokens
        answer.ended = time.perf_counter()

    async def steps(self) -> None:
        return None


def vllm_way(name: str, model: str, options: dict[str, Any]) -> Offline | Online:
    """The way of this name to vLLM. Raises Unavailable."""
    if find_spec("vllm") is None:
        raise Unavailable("vLLM is not installed: pip install vllm==0.26.0, in an environment of its own")
    if name == "engine":
        raise Unavailable("vLLM's engine process is reached through its AsyncLLM: use --via async")
    if name == "http":
        return Server(["vllm", "serve", model], options)
    return {"llm": InProcess, "async": Asynchronous}[name](model, options)
