"""The model of the simulations: its next token is a hash of all tokens before it, and of the content behind them. And
what is run on it.

entry:  (token as the model sees it, hash of all up to it): what a place in a KV cache must hold
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outrider.core.content import ContentKey
from outrider.core.kv_groups import BlockGroup
from outrider.core.outputs import FinishReason
from outrider.scheduler.work_times import Work

SIZE = 16
"""Tokens in a block."""
VOCAB_SIZE = 40
NO_PREFIX = 0

Entry = tuple[int, int]
Contents = Sequence[ContentKey]


def prefix_hash(before: int, token_id: int) -> int:
    """Names a prefix by all its tokens; hashes of integers do not change from run to run."""
    return hash((before, token_id))


def next_token(prefix: int, salt: int) -> int:
    """The model."""
    return hash((prefix, salt, 7)) % VOCAB_SIZE


def seen(token_id: int, index: int, contents: Contents) -> int:
    """The model's input at `index`: the token, with the part of each content that lies there."""
    parts = [
        (int.from_bytes(content.key[:8]), index - content.first_token, content.num_tokens or 0)
        for content in contents
        if content.first_token <= index
        and (content.num_tokens is None or index < content.first_token + content.num_tokens)
    ]
    return hash((token_id, *sorted(parts))) if parts else token_id


def entries_of(
    token_ids: Iterable[int], before: int = NO_PREFIX, *, first: int = 0, contents: Contents = ()
) -> list[Entry]:
    """Inputs of the tokens from index `first` on."""
    entries = []
    for index, token_id in enumerate(token_ids, start=first):
        token = seen(token_id, index, contents)
        before = prefix_hash(before, token)
        entries.append((token, before))
    return entries


def continuation(prompt: Sequence[int], count: int, salt: int = 0, contents: Contents = ()) -> list[int]:
    """The model's output after `prompt`."""
    before = entries_of(prompt, contents=contents)[-1][1]
    output = []
    for index in range(len(prompt), len(prompt) + count):
        output.append(next_token(before, salt))
        before = prefix_hash(before, seen(output[-1], index, contents))
    return output


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One engine. `accuracy`: how often a draft is right; `varies`: each step asks for another number of drafts.
    `other_blocks`: of the pools of all groups but the first."""

    groups: tuple[BlockGroup, ...] = (BlockGroup(block_size=SIZE),)
    num_blocks: int = 60
    other_blocks: tuple[int, ...] = ()
    max_num_seqs: int = 4
    budget: int = 64
    num_drafts: int = 3
    has_drafter_kv: bool = True
    depth: int = 1
    caching: bool = True
    accuracy: float = 0.7
    varies: bool = False
    learns: bool = False
    """Steps take what `seconds_of` says, and a call's work is limited beside the rows of others."""

    @property
    def drafts_with_kv(self) -> bool:
        return self.has_drafter_kv and self.num_drafts > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request, the turn of the loop when it arrives, and the turn when its caller gives up."""

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
    contents: tuple[ContentKey, ...] = ()
    call_id: str = ""

    @property
    def max_total(self) -> int:
        return min(len(self.prompt) + self.max_tokens, self.max_model_len)

    @property
    def expected(self) -> list[int]:
        """The output, by the definition of a stop."""
        output = continuation(self.prompt, self.max_total - len(self.prompt), self.salt, self.contents)
        ends = [index + 1 for index, token_id in enumerate(output) if token_id in self.stop_ids]
        return output[: ends[0]] if ends else output

    @property
    def finish_reason(self) -> FinishReason:
        return FinishReason.STOP if self.expected[-1] in self.stop_ids else FinishReason.LENGTH


def seconds_of(work: Work) -> float:
    """Time of a step of a small model on a CPU, as measured: a token that reads 2000 others takes 6 times as long as
    one that reads none, and a row of logits with 20 log-probabilities a quarter of a token."""
    return 0.022 + 6e-4 * work.rows + 4.5e-4 * work.tokens + 2.1e-5 * work.reads + 1.2e-4 * work.logits
