"""The model of the simulations: its next token is a hash of all tokens before it. And what is run on it.

entry:  (token id, hash of all tokens up to it): what a place in a KV cache must hold
"""

from collections.abc import Iterable
from dataclasses import dataclass

from outrider.core.outputs import FinishReason

SIZE = 16
"""Tokens in a block."""
VOCAB_SIZE = 40
NO_PREFIX = 0

Entry = tuple[int, int]


def prefix_hash(before: int, token_id: int) -> int:
    """Names a prefix by all its tokens; hashes of integers do not change from run to run."""
    return hash((before, token_id))


def next_token(prefix: int, salt: int) -> int:
    """The model."""
    return hash((prefix, salt, 7)) % VOCAB_SIZE


def entries_of(token_ids: Iterable[int], before: int = NO_PREFIX) -> list[Entry]:
    entries = []
    for token_id in token_ids:
        before = prefix_hash(before, token_id)
        entries.append((token_id, before))
    return entries


def continuation(prompt: Iterable[int], count: int, salt: int = 0) -> list[int]:
    """What the model says after `prompt`."""
    before = entries_of(prompt)[-1][1]
    output = []
    for _ in range(count):
        output.append(next_token(before, salt))
        before = prefix_hash(before, output[-1])
    return output


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One engine. `accuracy`: how often a draft is right; `varies`: each step asks for another number of drafts."""

    num_blocks: int = 60
    max_num_seqs: int = 4
    budget: int = 64
    num_drafts: int = 3
    has_drafter_kv: bool = True
    depth: int = 1
    caching: bool = True
    accuracy: float = 0.7
    varies: bool = False

    @property
    def drafts_with_kv(self) -> bool:
        return self.has_drafter_kv and self.num_drafts > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request: what is asked, when it comes (in turns of the loop), and when its caller gives up."""

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int = 8
    salt: int = 0
    stop_ids: frozenset[int] = frozenset()
    arrives: int = 0
    aborted_at: int | None = None
    max_model_len: int = 1 << 20
    priority: int = 0
    most_drafts: int | None = None

    @property
    def max_total(self) -> int:
        return min(len(self.prompt) + self.max_tokens, self.max_model_len)

    @property
    def expected(self) -> list[int]:
        """The output, by the definition of a stop."""
        output = continuation(self.prompt, self.max_total - len(self.prompt), self.salt)
        ends = [index + 1 for index, token_id in enumerate(output) if token_id in self.stop_ids]
        return output[: ends[0]] if ends else output

    @property
    def finish_reason(self) -> FinishReason:
        return FinishReason.STOP if self.expected[-1] in self.stop_ids else FinishReason.LENGTH
