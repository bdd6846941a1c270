"""Writes random texts of a grammar with the engine's own masks, as a sampler would that knows nothing."""

import random
from dataclasses import dataclass

import numpy as np

from outrider import SamplingParams, StructuredOutputsParams
from outrider.core.request import Request
from outrider.engine.grammar import Grammars
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState

_CLOSERS = ('"', "}", "]", '"}', '"]', "1", "0", ".")


@dataclass(frozen=True, slots=True)
class Written:
    """One text, and how it ended: "stop", "length" or "error"."""

    text: str
    token_ids: list[int]
    end: str
    error: str | None = None


class GrammarWriter:
    """Draws among the tokens that the masks allow."""

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, eos_token_ids: tuple[int, ...]) -> None:
        self.grammars = Grammars(tokenizer, vocab_size=vocab_size, eos_token_ids=eos_token_ids)
        self._tokenizer = tokenizer
        self._eos_token_ids = eos_token_ids
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in _CLOSERS]
        self._closers = [ids[0] for ids in encoded if len(ids) == 1]

    def write(
        self, asked: StructuredOutputsParams, dice: random.Random, *, max_tokens: int = 400, patience: int = 40
    ) -> Written:
        """One text; after `patience` tokens it closes what is open. Raises RequestError if the grammar is refused."""
        params = SamplingParams(structured_outputs=asked)
        self.grammars.check(params)
        request = Request(
            request_id="0",
            prompt_token_ids=(0,),
            params=params,
            seed=0,
            eos_token_ids=self._eos_token_ids,
            max_total_tokens=max_tokens + 1,
        )
        self.grammars.begin(request)
        state = RequestState(request=request)
        try:
            return self._written(state, dice, max_tokens, patience)
        finally:
            self.grammars.end("0")

    def accepts(self, asked: StructuredOutputsParams, text: str) -> bool:
        """True if the whole text is in the language. Raises RequestError if the grammar is refused."""
        self.grammars.check(SamplingParams(structured_outputs=asked))
        matcher = self.grammars._matcher(asked).deep_copy()
        return matcher.consume_tokens(self._tokenizer.encode(text, add_special_tokens=False)) and matcher.is_accepting()

    def _written(self, state: RequestState, dice: random.Random, max_tokens: int, patience: int) -> Written:
        def written(end: str, error: str | None = None) -> Written:
            ids = state.output_token_ids
            return Written(self._tokenizer.decode(ids, skip_special_tokens=False), ids, end, error)

        while state.num_output_tokens < max_tokens:
            (masks,) = self.grammars.masks([(state, ())])
            failure = self.grammars.failure(state)
            if failure is not None:
                return written("error", failure)
            (mask,) = masks
            allowed = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
            choice = self._choice(set(allowed.tolist()), allowed, dice, is_tired=state.num_output_tokens >= patience)
            error = self.grammars.accept(state, (choice,))
            if error is not None:
                return written("error", error)
            if choice in self._eos_token_ids:
                return written("stop")
            state.token_ids.append(choice)
        return written("length")

    def _choice(self, allowed: set[int], listed: np.ndarray, dice: random.Random, *, is_tired: bool) -> int:
        wanted = dice.random()
        ends = [token_id for token_id in self._eos_token_ids if token_id in allowed]
        if ends and (is_tired or wanted < 0.3):
            return ends[0]
        closers = [token_id for token_id in self._closers if token_id in allowed]
        if closers and wanted < (0.95 if is_tired else 0.2):
            return dice.choice(closers)
        return int(listed[dice.randrange(len(listed))])
