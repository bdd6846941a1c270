"""Assembly, commit and drafts of a step against a model of requests in plain Python lists.

The model says what the operations mean, request by request and token by token. It shares no code with any kernel.
"""

import random
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from outrider.kernels import load_kernels

KERNELS = load_kernels(("reference",))
NUM_ROWS, WIDTH, BLOCK_SIZE, VOCAB_SIZE = 7, 40, 4, 50


@dataclass
class Request:
    """One row of the table."""

    tokens: list[int]
    num_computed: int
    """Leading tokens whose KV is in the cache."""
    most: int
    """Tokens at which the request ends; below `len(tokens)` if it ended in a step that is still in flight."""
    blocks: list[int]
    drafts: list[int] = field(default_factory=list)

    def slot(self, index: int) -> int:
        return self.blocks[index // BLOCK_SIZE] * BLOCK_SIZE + index % BLOCK_SIZE

    @property
    def num_left(self) -> int:
        return max(0, self.most - len(self.tokens))


@dataclass
class Row:
    """One row of a step: `num_known` tokens, at most `draft_bound` drafts, and places up to `num_places`."""

    request: Request
    number: int
    num_known: int
    draft_bound: int
    num_places: int

    @property
    def used(self) -> list[int]:
        """The drafts that run: no more than asked for, and none that the last token of the request would follow."""
        return self.request.drafts[: max(0, min(self.draft_bound, self.request.num_left - 1))]

    def cells(self) -> list[tuple[int, int, int, int]]:
        """(token id, position, KV slot, KV length) of each place; zeros where nothing runs."""
        request, found = self.request, []
        for index in range(request.num_computed, request.num_computed + self.num_known + len(self.used)):
            token_id = [*request.tokens, *self.used][index]
            found.append((token_id, index, request.slot(index), index + 1))
        if request.num_left == 0:
            found = []
        return found + [(0, 0, 0, 0)] * (self.num_places - len(found))


class Step:
    """Random requests in every state, some of them in a step, and the tensors that stand for both."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.k = rng.choice((1, 3, 5))
        blocks = rng.sample(range(1, 200), NUM_ROWS * WIDTH // BLOCK_SIZE)
        self.requests = []
        for number in range(NUM_ROWS):
            tokens = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(2, 24))]
            is_decoding = rng.random() < 0.6
            self.requests.append(
                Request(
                    tokens=tokens,
                    num_computed=len(tokens) - 1 if is_decoding else rng.randrange(len(tokens)),
                    most=len(tokens) + rng.randint(-1, 6),
                    blocks=blocks[number * 10 : number * 10 + 10],
                    drafts=[rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(0, self.k))] if is_decoding else [],
                )
            )
        self.rows = []
        for number in rng.sample(range(NUM_ROWS), rng.randint(1, NUM_ROWS)):
            request = self.requests[number]
            left = len(request.tokens) - request.num_computed
            is_last = rng.random() < 0.7
            num_known = left if is_last else rng.randint(1, left)
            bound = rng.randint(0, self.k) if num_known == 1 == left else 0
            self.rows.append(Row(request, number, num_known, bound, num_known + bound))

    def table(self) -> dict[str, Tensor]:
        """The columns of the request table."""
        padded = [request.tokens + [0] * (WIDTH - len(request.tokens)) for request in self.requests]
        drafts = [request.drafts + [0] * (self.k - len(request.drafts)) for request in self.requests]
        return {
            "token_ids": torch.tensor(padded, dtype=torch.int32),
            "num_tokens": torch.tensor([len(request.tokens) for request in self.requests]),
            "num_computed": torch.tensor([request.num_computed for request in self.requests]),
            "max_total": torch.tensor([request.most for request in self.requests]),
            "drafts": torch.tensor(drafts),
            "num_drafts": torch.tensor([len(request.drafts) for request in self.requests]),
            "block_tables": torch.tensor([request.blocks for request in self.requests], dtype=torch.int32),
        }

    @property
    def numbers(self) -> Tensor:
        return torch.tensor([row.number for row in self.rows])

    @property
    def num_known(self) -> Tensor:
        return torch.tensor([row.num_known for row in self.rows])

    def places(self) -> tuple[Tensor, Tensor]:
        """Row and offset of each token of the step."""
        pairs = [(index, offset) for index, row in enumerate(self.rows) for offset in range(row.num_places)]
        return torch.tensor([index for index, _ in pairs]), torch.tensor([offset for _, offset in pairs])


def cells_of(made: object) -> list[tuple[int, ...]]:
    """Token id, position, slot and KV length of each token."""
    names = ("token_ids", "positions", "slots", "kv_lengths")
    return list(zip(*(getattr(made, name).tolist() for name in names), strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_a_step_holds_known_tokens_and_then_drafts_that_still_have_room(seed: int) -> None:
    step = Step(seed)
    token_row, token_offset = step.places()
    made = KERNELS.assemble(
        *step.table().values(), rows=step.numbers, num_known=step.num_known,
        draft_bound=torch.tensor([row.draft_bound for row in step.rows]), token_row=token_row,
        token_offset=token_offset, block_size=BLOCK_SIZE,
    )  # fmt: skip
    assert cells_of(made) == [cell for row in step.rows for cell in row.cells()]
    assert made.num_drafts.tolist() == [len(row.used) for row in step.rows]
    assert made.num_tokens_left.tolist() == [row.request.num_left for row in step.rows]


@pytest.mark.parametrize("seed", range(60))
def test_a_commit_appends_what_was_emitted_and_counts_what_was_computed(seed: int) -> None:
    """Computed are the known tokens of the step and the accepted drafts; the last emitted token never is."""
    step = Step(seed)
    table = step.table()
    emitted, num_emitted, expected = [], [], {}
    for row in step.rows:
        request = row.request
        ends_prompt = request.num_computed + row.num_known == len(request.tokens)
        count = step.rng.randint(1, len(row.used) + 1) if ends_prompt and request.num_left else 0
        new = [step.rng.randrange(VOCAB_SIZE) for _ in range(step.k + 1)]
        emitted.append(new)
        num_emitted.append(count)
        computed = row.num_known + max(0, count - 1) if request.num_left else 0
        expected[row.number] = ([*request.tokens, *new[:count]], request.num_computed + computed)
    KERNELS.commit(
        table["token_ids"], table["num_tokens"], table["num_computed"], rows=step.numbers, num_known=step.num_known,
        num_tokens_left=torch.tensor([row.request.num_left for row in step.rows]), emitted=torch.tensor(emitted),
        num_emitted=torch.tensor(num_emitted), num_accepted=torch.tensor(num_emitted).sub(1).clamp(min=0),
    )  # fmt: skip
    for number, request in enumerate(step.requests):
        tokens, num_computed = expected.get(number, (request.tokens, request.num_computed))
        length = int(table["num_tokens"][number])
        assert table["token_ids"][number, :length].tolist() == tokens
        assert int(table["num_computed"][number]) == num_computed


@pytest.mark.parametrize("seed", range(60))
def test_drafts_are_kept_up_to_the_first_that_is_no_token_or_stands_too_far(seed: int) -> None:
    step = Step(seed)
    table, rng, limit = step.table(), step.rng, 20
    width = rng.randint(1, step.k)
    proposed = [[rng.choice((-1, VOCAB_SIZE, *range(20))) for _ in range(width)] for _ in step.rows]
    has_sampled = [rng.random() < 0.8 for _ in step.rows]
    KERNELS.put_drafts(
        table["drafts"], table["num_drafts"], rows=step.numbers, proposed=torch.tensor(proposed),
        has_sampled=torch.tensor(has_sampled), num_tokens=table["num_tokens"], vocab_size=VOCAB_SIZE,
        position_limit=limit,
    )  # fmt: skip
    expected = {number: request.drafts for number, request in enumerate(step.requests)}
    for row, ids, is_over in zip(step.rows, proposed, has_sampled, strict=True):
        kept: list[int] = []
        for token_id in ids if is_over else ():
            if not 0 <= token_id < VOCAB_SIZE or len(row.request.tokens) + len(kept) >= limit:
                break
            kept.append(token_id)
        expected[row.number] = kept
    for number, drafts in expected.items():
        assert table["drafts"][number, : int(table["num_drafts"][number])].tolist() == drafts


@pytest.mark.parametrize("first_index", [0, 1])
@pytest.mark.parametrize("seed", range(30))
def test_the_first_pass_of_a_chain_reads_the_token_behind_each_feature(seed: int, first_index: int) -> None:
    """KV index j holds token j; its rotary position counts from the drafter's first index. A token that is not known
    (the draft was refused) gives an empty place."""
    step = Step(seed)
    table = step.table()
    places = [(row, step.rng.randint(-1, len(row.request.tokens) + 2)) for row in step.rows for _ in range(3)]
    lengths = [step.rng.choice((0, 1, 1, 1)) for _ in places]
    made = KERNELS.chain_known(
        table["token_ids"], table["num_tokens"], table["block_tables"], rows=step.numbers,
        token_row=torch.tensor([step.rows.index(row) for row, _ in places]),
        positions=torch.tensor([position for _, position in places]), kv_lengths=torch.tensor(lengths),
        first_index=first_index, block_size=BLOCK_SIZE,
    )  # fmt: skip
    expected = []
    for (row, position), length in zip(places, lengths, strict=True):
        index, request = position + 1, row.request
        is_known = length > 0 and index < len(request.tokens)
        cell = (request.tokens[index], index - first_index, request.slot(index), index + 1) if is_known else (0,) * 4
        expected.append(cell)
    assert cells_of(made) == expected


@pytest.mark.parametrize("first_index", [0, 1])
@pytest.mark.parametrize("seed", range(30))
def test_later_passes_of_a_chain_read_the_draft_at_its_place(seed: int, first_index: int) -> None:
    """Draft i is i places after the last known token; a request that ends before it has no such place."""
    step = Step(seed)
    table, number = step.table(), step.rng.randint(1, 5)
    drafts = [step.rng.choice((-1, VOCAB_SIZE, *range(20))) for _ in step.rows]
    num_emitted = [step.rng.randint(0, 3) for _ in step.rows]
    made = KERNELS.chain_drafted(
        table["num_tokens"], table["max_total"], table["block_tables"], rows=step.numbers,
        drafts=torch.tensor(drafts), num_emitted=torch.tensor(num_emitted), step=number, vocab_size=VOCAB_SIZE,
        first_index=first_index, block_size=BLOCK_SIZE,
    )  # fmt: skip
    expected = []
    for row, draft, count in zip(step.rows, drafts, num_emitted, strict=True):
        request, index = row.request, len(row.request.tokens) - 1 + number
        if count == 0 or index >= request.most:
            expected.append((0, 0, 0, 0))
            continue
        token_id = draft if 0 <= draft < VOCAB_SIZE else 0
        expected.append((token_id, index - first_index, request.slot(index), index + 1))
    assert cells_of(made) == expected
