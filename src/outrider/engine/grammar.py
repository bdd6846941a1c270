"""Structured output: computes which tokens a request's grammar allows next, through llguidance.

The host follows a grammar from confirmed tokens only; a mask is a function of the grammar and of the tokens so far. The
matcher consumes drafts ahead of time and is rolled back: a draft that the grammar forbids is cut, with all later ones.
Masks are plain bytes: token t is bit t % 8 of byte t // 8. Knows nothing of models and steps.
"""

from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from outrider.core.errors import RequestError
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams, StructuredOutputsParams
from outrider.engine.languages.compiler import compile_language
from outrider.engine.languages.vocabulary import exact_vocabulary
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState

if TYPE_CHECKING:  # llguidance itself is imported for the first grammar only
    from llguidance import LLMatcher, LLTokenizer

_MAX_KEPT = 64
"""Compiled grammars that are kept for later requests."""
_MAX_MESSAGE = 600
"""Maximum length of a compiler's message in an error, in characters."""


class Grammars:
    """The grammars of running requests, over one tokenizer; the scheduler asks which tokens are allowed (`TokenRule`).

    `eos_token_ids` end an output where the grammar may end.
    """

    def __init__(self, tokenizer: Tokenizer | None, *, vocab_size: int, eos_token_ids: tuple[int, ...]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._mask_size = -(-vocab_size // 32) * 4
        self._vocabulary: LLTokenizer | None = None  # made for the first grammar
        self._compiled: OrderedDict[StructuredOutputsParams, LLMatcher] = OrderedDict()
        self._running: dict[str, _Running] = {}

    def check(self, params: SamplingParams) -> None:
        """Raise RequestError if the grammar is invalid, unsatisfiable, or cannot be combined with other parameters."""
        asked = params.structured_outputs
        if asked is None:
            return
        for name, is_set, remedy in (
            ("ignore_eos", params.ignore_eos, "The grammar says where the output ends."),
            ("min_tokens", params.min_tokens > 0, "State a length in the grammar, such as minLength."),
            ("bad_words", bool(params.bad_words), "State it in the grammar."),
            ("allowed_token_ids", params.allowed_token_ids is not None, "State it in the grammar."),
        ):
            if is_set:
                raise RequestError(f"{name} cannot be combined with structured_outputs: no token may be left. {remedy}")
        if self._tokenizer is None:
            raise RequestError("structured_outputs need text, and there is no tokenizer.")
        if not self._eos_token_ids:
            raise RequestError("structured_outputs need a model with an eos token: it ends the output.")
        if find_spec("llguidance") is None:
            raise RequestError("structured_outputs need the llguidance package. Install it: pip install llguidance")
        self._matcher(asked)

    def begin(self, request: Request) -> None:
        """Start following a request; `check` has passed."""
        asked = request.params.structured_outputs
        if asked is not None:
            matcher = self._matcher(asked).deep_copy()
            self._running[request.request_id] = _Running(matcher, self._mask(matcher))

    def end(self, request_id: str) -> None:
        """Stop following a request."""
        self._running.pop(request_id, None)

    def masks(self, state: RequestState, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """One mask for the next token, and one after each leading draft that the grammar allows."""
        running = self._running[state.request_id]
        try:
            return self._look_ahead(state, running, drafts)
        except Exception as error:  # any error: it ends this request, in `accept`, and no other
            running.failure = f"the grammar cannot be followed any further: {error!r}"
            return (running.mask,)

    def _look_ahead(self, state: RequestState, running: "_Running", drafts: Sequence[int]) -> tuple[bytes, ...]:
        matcher, masks = running.matcher, [running.mask]
        for draft in drafts:
            # eos is left to the sampler: nothing can follow it
            if draft in self._eos_token_ids or not _allows(masks[-1], draft):
                break
            try:
                masks.append(self._mask_after(matcher, draft))
            except _LostError:  # a matcher that failed stays so; the token is left to the sampler, as without drafts
                running.matcher = self._followed(state)
                return tuple(masks)
        if len(masks) > 1:
            has_gone_back = matcher.rollback(len(masks) - 1)
            assert has_gone_back, f"the grammar of request {state.request_id} cannot go back: {matcher.get_error()}"
        return tuple(masks)

    def _followed(self, state: RequestState) -> "LLMatcher":
        """A new matcher, behind the confirmed output."""
        asked = state.params.structured_outputs
        assert asked is not None
        matcher = self._matcher(asked).deep_copy()
        if not matcher.consume_tokens(state.output_token_ids):
            raise _LostError(matcher.get_error())
        return matcher

    def accept(self, state: RequestState, token_ids: Sequence[int]) -> str | None:
        """Follow confirmed tokens. Returns an error message if the output cannot continue, else None."""
        running = self._running[state.request_id]
        try:
            return running.failure or self._follow(running, token_ids)
        except Exception as error:
            return f"the grammar cannot be followed any further: {error!r}"

    def _follow(self, running: "_Running", token_ids: Sequence[int]) -> str | None:
        for token_id in token_ids:
            if not _allows(running.mask, token_id):
                return f"token {token_id} is not allowed by the grammar: the model gives no chance to any that is"
            if token_id in self._eos_token_ids:
                return None
            try:
                running.mask = self._mask_after(running.matcher, token_id)
            except _LostError as error:
                return f"the grammar cannot be followed any further: {error}"
        return None

    def _mask_after(self, matcher: "LLMatcher", token_id: int) -> bytes:
        if not matcher.consume_token(token_id):
            raise _LostError(matcher.get_error())
        return self._mask(matcher)

    def _mask(self, matcher: "LLMatcher") -> bytes:
        """Tokens that may come next. Raises _LostError if there is none."""
        mask: bytes = matcher.compute_bitmask()[: self._mask_size]
        if matcher.is_error():  # found while the mask was made, which then holds nothing but ends
            raise _LostError(matcher.get_error())
        if not matcher.is_accepting():
            mask = _without(mask, self._eos_token_ids)
        if not any(mask):
            raise _LostError("no token may come next")
        return mask

    def _matcher(self, asked: StructuredOutputsParams) -> "LLMatcher":
        """Matcher in the grammar's initial state; it must be copied, never changed."""
        from llguidance import LLMatcher

        if asked in self._compiled:
            self._compiled.move_to_end(asked)
            return self._compiled[asked]
        assert self._tokenizer is not None
        if self._vocabulary is None:
            vocabulary = self._tokenizer.vocabulary_for_grammars(self._vocab_size, self._eos_token_ids)
            self._vocabulary = exact_vocabulary(vocabulary, self._eos_token_ids)
        try:
            matcher = LLMatcher(self._vocabulary, compile_language(asked, self._vocabulary), log_level=0)
        except RequestError:
            raise
        except Exception as error:  # the library's converter raises nothing narrower for a missing rule
            raise RequestError(f"structured_outputs: {_shortened(str(error))}. Correct the grammar.") from error
        if matcher.is_error():
            message = _shortened(matcher.get_error())
            raise RequestError(f"structured_outputs: {message}. Correct the grammar or schema.")
        try:
            self._mask(matcher)
        except _LostError as error:
            reason = "" if "NoExtension" in str(error) else f" ({_shortened(str(error))})"
            raise RequestError(
                f"structured_outputs: no finite text meets the grammar{reason}. Correct the grammar or schema."
            ) from error
        self._compiled[asked] = matcher
        if len(self._compiled) > _MAX_KEPT:
            self._compiled.popitem(last=False)
        return matcher


class _LostError(Exception):
    """The grammar allows no token any more, or llguidance has reached one of its limits."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().split("\n")[0])


class _Running:
    """One request's state in its grammar, and the mask of the next token."""

    __slots__ = ("failure", "mask", "matcher")

    def __init__(self, matcher: "LLMatcher", mask: bytes) -> None:
        self.matcher = matcher
        self.mask = mask
        self.failure: str | None = None


def _allows(mask: bytes, token_id: int) -> bool:
    return bool(mask[token_id // 8] >> token_id % 8 & 1)


def _without(mask: bytes, token_ids: Sequence[int]) -> bytes:
    """The mask without these tokens."""
    if not any(_allows(mask, token_id) for token_id in token_ids):
        return mask
    bits = bytearray(mask)
    for token_id in token_ids:
        bits[token_id // 8] &= ~(1 << token_id % 8)
    return bytes(bits)


def _shortened(text: str) -> str:
    """Shorten a compiler's message, which may repeat the whole grammar."""
    text = text.strip()
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE // 2]} … {text[-_MAX_MESSAGE // 2 :]}"
