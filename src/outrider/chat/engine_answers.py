"""Answers of a model in this process."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from outrider.chat.answer import Message, Settings, Update
from outrider.core.outputs import SpeculationStats
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.llm import LLM


class EngineAnswers:
    """A model with its drafter, one answer at a time."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        described = dict(llm.engine.describe())
        self.has_drafter = llm.engine.worker.drafter is not None
        self.description = f"{described['model']}; drafter: {described['drafter']}"

    def answer(self, messages: Sequence[Message], settings: Settings) -> Generator[Update, None, None]:
        """The answer step by step. Raises RequestError, for example if the conversation has become too long."""
        tokenizer = self._llm.engine.tokenizer
        assert tokenizer is not None, "an engine for chats has its tokenizer"
        defaults = self._llm.engine.sampling_defaults
        params = replace(
            self._llm.get_default_sampling_params(),
            seed=settings.seed,
            max_tokens=settings.max_tokens,
            num_speculative_tokens=None if settings.has_drafts else 0,
        )
        if settings.temperature is not None:
            params = replace(params, temperature=settings.temperature)
        elif defaults.temperature is None:  # nothing is recommended: the most likely tokens
            params = replace(params, temperature=0.0)
        prompt_ids = encode_chat(tokenizer, messages, ChatOptions())
        stream, num_tokens = tokenizer.stream(), 0
        for delta in self._llm.stream({"prompt_token_ids": prompt_ids}, params):
            num_tokens += len(delta.token_ids)
            pieces: list[tuple[str, bool | None]] = [
                (stream.push(token_id), is_draft)
                for token_id, is_draft in zip(delta.token_ids, delta.is_draft, strict=True)
            ]
            if delta.output is not None:
                pieces.append((stream.flush(), False))
            yield Update(
                pieces=[piece for piece in pieces if piece[0]],
                token_ids=delta.token_ids,
                stats=SpeculationStats.of_counts(delta.draft_counts),
                num_tokens=num_tokens,
            )
