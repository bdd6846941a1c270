"""Structured output: computes which tokens a request's grammar allows next, through llguidance.

The host follows a grammar from confirmed tokens only; a mask is a function of the grammar and of the tokens so far. The
matcher consumes drafts ahead of time and is rolled back: samples after a draft that the grammar forbids get no mask,
because that draft will not be accepted. All masks of a step are made at once, in threads outside of Python's lock.
Knows nothing of models and steps.
"""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from outrider.core.errors import RequestError
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams, StructuredOutputsParams
from outrider.engine.languages.compiler import compile_language
from outrider.engine.languages.vocabulary import exact_vocabulary
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState

if TYPE_CHECKING:  # llguidance itself is imported for the first grammar only
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

_MAX_KEPT_BYTES = 1 << 28
"""Estimated size of all compiled grammars that are kept for later requests."""
_LEAST_BYTES, _BYTES_PER_CHARACTER, _BYTES_OF_MULTIPLES = 1 << 16, 512, 4 << 20
"""Estimated size of a compiled grammar: at least, for each character of its text, and for the states that count
remainders of a multipleOf. Measured with llguidance 1.9, which does not report sizes."""
_MAX_KEPT_TEXTS = 64
"""Number of grammars in llguidance's format, and of refusals, that are kept for later requests: those of one call are
the same."""
_MAX_LEXER_STATES = 1 << 16
"""States of a running grammar, of up to 2 kB each; with more its request ends with an error."""
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
        self._num_words = -(-vocab_size // 32)
        self._vocabulary_lock = Lock()
        self._vocabulary: LLTokenizer | None = None  # made for the first grammar
        self._executor: LLExecutor | None = None  # likewise
        self._lock = Lock()  # of the six below: several threads compile
        self._texts: OrderedDict[StructuredOutputsParams, str] = OrderedDict()
        self._refusals: OrderedDict[StructuredOutputsParams, str] = OrderedDict()
        self._compiled: OrderedDict[StructuredOutputsParams, LLMatcher] = OrderedDict()
        self._sizes: dict[StructuredOutputsParams, int] = {}
        self._compiling: dict[StructuredOutputsParams, Future[LLMatcher]] = {}
        self.num_kept_bytes = 0
        """Estimated size of the grammars that are kept."""
        self._running: dict[str, _Running] = {}

    def check(self, params: SamplingParams, *, compiles: bool = True) -> str | None:
        """Raise RequestError if the grammar is invalid, unsatisfiable, or cannot be combined with other parameters.
        Without `compiles` it is only read; returns it in llguidance's format, for `Request.grammar`."""
        asked = params.structured_outputs
        if asked is None:
            return None
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
        if not compiles:
            return self._text(asked)
        self._matcher(asked)
        return None

    def is_prepared(self, request: Request) -> bool:
        """True if `begin` takes no time to compile."""
        asked = request.params.structured_outputs
        return asked is None or asked in self._compiled

    def prepare(self, request: Request) -> "LLMatcher | None":
        """Compile a request's grammar, for `begin`; any thread may call it. Raises RequestError."""
        asked = request.params.structured_outputs
        return None if asked is None else self._matcher(asked, request.grammar)

    def begin(self, request: Request, prepared: "LLMatcher | None" = None) -> None:
        """Start following a request; `check` has passed. `prepared`: the result of `prepare`, made now if None."""
        asked = request.params.structured_outputs
        if asked is not None:
            self._running[request.request_id] = _Running(prepared or self._matcher(asked, request.grammar))

    def end(self, request_id: str) -> None:
        """Stop following a request."""
        self._running.pop(request_id, None)

    def masks(self, requests: Sequence[tuple[RequestState, Sequence[int]]]) -> list[np.ndarray]:
        """For each request and its drafts, one mask for the next token, and one after each leading draft that the
        grammar allows: [number, an even number of words] int32; token t is bit t % 32 of word t // 32."""
        blocks = self._blocks(requests)
        for (state, drafts), block in zip(requests, blocks, strict=True):
            running = self._running[state.request_id]
            try:
                count = self._count_valid(running, drafts, block)
                if count == 0:
                    count = self._look_ahead(state, running, drafts, block)
            except Exception as error:  # any error: it ends this request when its step is settled, and no other
                running.failure = f"the grammar cannot be followed any further: {_message(error)}"
                count = 0
            running.drafts, running.masks = tuple(drafts), block[:count]
        return [self._running[state.request_id].masks for state, _ in requests]

    def _blocks(self, requests: Sequence[tuple[RequestState, Sequence[int]]]) -> list[np.ndarray]:
        """Memory for the masks of each request, with those that llguidance makes at once; all zero where it failed."""
        from llguidance.numpy import fill_next_token_bitmask_par_with_draft_tokens

        if self._executor is None:
            from llguidance import LLExecutor

            self._executor = LLExecutor()
        counts = [1 + len(drafts) for _, drafts in requests]
        starts = [*accumulate(counts, initial=0)][:-1]
        exact = np.zeros((sum(counts), self._num_words), dtype=np.int32)
        work = [
            (self._running[state.request_id].matcher, start, list(drafts))
            for (state, drafts), start in zip(requests, starts, strict=True)
        ]
        try:
            fill_next_token_bitmask_par_with_draft_tokens(self._executor, work, exact)
        except Exception:  # it does not say whose grammar failed: each is then followed alone
            exact[:] = 0
        even = exact if self._num_words % 2 == 0 else np.pad(exact, ((0, 0), (0, 1)))
        return [even[start : start + count] for start, count in zip(starts, counts, strict=True)]

    def _count_valid(self, running: "_Running", drafts: Sequence[int], block: np.ndarray) -> int:
        """Number of leading masks in `block` that hold: those up to the first draft that is not allowed. 0 if one of
        them must be made alone, because it is empty, or because it may be wrong about eos."""
        if running.matcher.is_error():
            return 0
        count = 1
        for mask, draft in zip(block, drafts, strict=False):
            # eos is left to the sampler: nothing can follow it
            if draft in self._eos_token_ids or not _allows(mask, draft):
                break
            count += 1
        if not block[:count].any(axis=1).all():
            return 0
        if any(_allows(mask, token_id) for mask in block[1:count] for token_id in self._eos_token_ids):
            return 0  # whether the grammar accepts there is known only once the matcher is there
        if not running.matcher.is_accepting():
            _remove(block[0], self._eos_token_ids)
        return count if block[0].any() else 0

    def _look_ahead(self, state: RequestState, running: "_Running", drafts: Sequence[int], block: np.ndarray) -> int:
        """Make the masks of one request, one after the other; the number that hold. Raises _LostError if not even the
        next token can be chosen."""
        if running.matcher.is_error():
            running.matcher = self._followed(state)
        matcher, count = running.matcher, 1
        self._mask(matcher, block[0])
        for draft in drafts:
            if draft in self._eos_token_ids or not _allows(block[count - 1], draft):
                break
            try:
                self._consume(matcher, draft)
                self._mask(matcher, block[count])
            except _LostError:  # a matcher that failed stays so; the token is left to the sampler, as without drafts
                running.matcher = self._followed(state)
                return count
            count += 1
        if count > 1:
            has_gone_back = matcher.rollback(count - 1)
            assert has_gone_back, f"the grammar of request {state.request_id} cannot go back: {matcher.get_error()}"
        return count

    def _followed(self, state: RequestState) -> "LLMatcher":
        """A new matcher, behind the confirmed output."""
        matcher = self._running[state.request_id].initial.deep_copy()
        if not matcher.consume_tokens(state.output_token_ids):
            raise _LostError(matcher.get_error())
        return matcher

    def failure(self, state: RequestState) -> str | None:
        """The error with which the masks of the request's last step could not be made, else None."""
        return self._running[state.request_id].failure

    def accept(self, state: RequestState, token_ids: Sequence[int]) -> str | None:
        """Follow confirmed tokens. Returns an error message if the output cannot continue, else None."""
        try:
            return self._follow(self._running[state.request_id], token_ids)
        except Exception as error:
            return f"the grammar cannot be followed any further: {_message(error)}"

    def _follow(self, running: "_Running", token_ids: Sequence[int]) -> str | None:
        for place, token_id in enumerate(token_ids):
            is_known = place < len(running.masks) and tuple(token_ids[:place]) == running.drafts[:place]
            if not is_known or not _allows(running.masks[place], token_id):
                return f"token {token_id} is not allowed by the grammar: the model gives no chance to any that is"
            if token_id in self._eos_token_ids:
                return None
            self._consume(running.matcher, token_id)
        return None

    def _consume(self, matcher: "LLMatcher", token_id: int) -> None:
        if not matcher.consume_token(token_id):
            raise _LostError(matcher.get_error())

    def _mask(self, matcher: "LLMatcher", out: np.ndarray) -> None:
        """Write the tokens that may come next to `out` ([words] int32). Raises _LostError if there is none."""
        out[: self._num_words] = np.frombuffer(matcher.compute_bitmask(), dtype=np.int32)[: self._num_words]
        if matcher.is_error():  # found while the mask was made, which then holds nothing but ends
            raise _LostError(matcher.get_error())
        if not matcher.is_accepting():
            _remove(out, self._eos_token_ids)
        if not out.any():
            raise _LostError("no token may come next")

    def _matcher(self, asked: StructuredOutputsParams, text: str | None = None) -> "LLMatcher":
        """Matcher in the grammar's initial state; it must be copied, never changed. Compiled once, however many threads
        ask for it. `text`: the grammar in llguidance's format, made now if None. Raises RequestError."""
        with self._lock:
            if asked in self._refusals:
                raise RequestError(self._refusals[asked])
            if asked in self._compiled:
                self._compiled.move_to_end(asked)
                return self._compiled[asked]
            future = self._compiling.get(asked)
            is_mine = future is None
            if future is None:
                future = self._compiling[asked] = Future()
        if not is_mine:
            return future.result()
        try:
            matcher, size = self._compile(asked, text)
        except BaseException as error:
            with self._lock:
                del self._compiling[asked]
                if isinstance(error, RequestError):
                    _put(self._refusals, asked, str(error))
            future.set_exception(error)
            raise
        with self._lock:
            del self._compiling[asked]
            self._keep(asked, matcher, size)
        future.set_result(matcher)
        return matcher

    def _keep(self, asked: StructuredOutputsParams, matcher: "LLMatcher", size: int) -> None:
        self._compiled[asked] = matcher
        self._sizes[asked] = size
        self.num_kept_bytes += size
        while self.num_kept_bytes > _MAX_KEPT_BYTES:
            oldest, _ = self._compiled.popitem(last=False)
            self.num_kept_bytes -= self._sizes.pop(oldest)

    def _the_vocabulary(self) -> "LLTokenizer":
        assert self._tokenizer is not None
        with self._vocabulary_lock:
            if self._vocabulary is None:
                vocabulary = self._tokenizer.vocabulary_for_grammars(self._vocab_size, self._eos_token_ids)
                self._vocabulary = exact_vocabulary(vocabulary, self._eos_token_ids)
        return self._vocabulary

    def _text(self, asked: StructuredOutputsParams) -> str:
        """The grammar in llguidance's format. Raises RequestError."""
        with self._lock:
            text = self._texts.get(asked)
        if text is None:
            try:
                text = compile_language(asked, self._the_vocabulary())
            except RequestError:
                raise
            except Exception as error:  # the library's converter raises nothing narrower for a missing rule
                raise _refusal(error) from error
            with self._lock:
                _put(self._texts, asked, text)
        return text

    def _compile(self, asked: StructuredOutputsParams, text: str | None) -> tuple["LLMatcher", int]:
        """A matcher, and its estimated size in bytes. Raises RequestError."""
        from llguidance import LLMatcher, LLParserLimits

        if text is None:
            text = self._text(asked)
        try:
            limits = LLParserLimits(max_lexer_states=_MAX_LEXER_STATES)
            matcher = LLMatcher(self._the_vocabulary(), text, log_level=0, limits=limits)
        except Exception as error:
            raise _refusal(error) from error
        if matcher.is_error():
            message = _shortened(matcher.get_error())
            raise RequestError(f"structured_outputs: {message}. Correct the grammar or schema.")
        try:
            self._mask(matcher, np.zeros(self._num_words, dtype=np.int32))
        except _LostError as error:
            reason = "" if "NoExtension" in str(error) else f" ({_shortened(str(error))})"
            raise RequestError(
                f"structured_outputs: no finite text meets the grammar{reason}. Correct the grammar or schema."
            ) from error
        states = _BYTES_OF_MULTIPLES if "multipleOf" in text else 0
        return matcher, _LEAST_BYTES + _BYTES_PER_CHARACTER * len(text) + states


def _put(kept: "OrderedDict[StructuredOutputsParams, str]", asked: StructuredOutputsParams, text: str) -> None:
    kept[asked] = text
    if len(kept) > _MAX_KEPT_TEXTS:
        kept.popitem(last=False)


def _refusal(error: Exception) -> RequestError:
    return RequestError(f"structured_outputs: {_shortened(str(error))}. Correct the grammar.")


class _LostError(Exception):
    """The grammar allows no token any more, or llguidance has reached one of its limits."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().split("\n")[0])


class _Running:
    """One request's state in its grammar, and the masks of its step in flight."""

    __slots__ = ("drafts", "failure", "initial", "masks", "matcher")

    def __init__(self, initial: "LLMatcher") -> None:
        self.initial = initial
        """The grammar's initial state, to begin again from; shared, never changed."""
        self.matcher = initial.deep_copy()
        self.drafts: tuple[int, ...] = ()
        """Drafts that the step verifies."""
        self.masks = np.zeros((0, 0), dtype=np.int32)
        """[number, words] int32: mask i holds after the first i drafts."""
        self.failure: str | None = None


def _allows(mask: np.ndarray, token_id: int) -> bool:
    return bool(mask[token_id // 32] >> token_id % 32 & 1)


def _remove(mask: np.ndarray, token_ids: Sequence[int]) -> None:
    for token_id in token_ids:
        mask[token_id // 32] &= ~np.int32(1 << token_id % 32 if token_id % 32 < 31 else -(2**31))


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, _LostError) else repr(error)


def _shortened(text: str) -> str:
    """Shorten a compiler's message, which may repeat the whole grammar."""
    text = text.strip()
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE // 2]} … {text[-_MAX_MESSAGE // 2 :]}"
