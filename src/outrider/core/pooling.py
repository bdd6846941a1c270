"""Pooling requests: their parameters (`PoolingParams`, `PairOptions`), the abilities of a model (`PoolingAbilities`),
and the outputs. Plain data, checked when it is created.

Independent of the model: `engine/pooling_admission.py` checks parameters against its abilities. Vectors are
`array("f")`: fp32, four bytes a number, without numpy.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from outrider.core.errors import RequestError
from outrider.core.outputs import RequestTiming

EMBED, SCORE, CLASSIFY = "embed", "score", "classify"
TOKEN_EMBED, TOKEN_CLASSIFY = "token_embed", "token_classify"
TASKS = (EMBED, SCORE, CLASSIFY, TOKEN_EMBED, TOKEN_CLASSIFY)
"""embed: one vector for a text. score: one number for a pair of texts. classify: a number for each label. token_embed
and token_classify: the same for every token."""

TRUNCATION_SIDES = ("left", "right")
MAX_RETURNED_TOKEN_IDS = 1024


def _check_int(name: str, value: Any, low: int, high: int, *, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """Parameters of one pooling request; names and meanings are vLLM's."""

    task: str | None = None
    """One of `TASKS`; None: that of the method or endpoint that is called."""
    dimensions: int | None = None
    """embed, token_embed: keep this many leading numbers of a vector (Matryoshka), before it is normalised. None: all.
    Only models that were trained for it take it."""
    normalize: bool | None = None
    """embed, token_embed: scale a vector to length 1. None: as the model's files say."""
    use_activation: bool | None = None
    """score, classify, token_classify: apply the model's activation (sigmoid or softmax) to the logits; False returns
    the logits. For embed and token_embed it is another name of `normalize`. None: as the model's files say."""
    truncate_prompt_tokens: int | None = None
    """Keep at most this many tokens of the text, special tokens included; -1: as many as the model takes. None: a text
    that is too long is refused."""
    truncation_side: str | None = None
    """The end at which tokens are cut, "left" or "right"; None: the tokenizer's. Special tokens stay."""
    step_tag_id: int | None = None
    """token_classify: return the values at the tokens with this id only, the ends of steps of a solution."""
    returned_token_ids: Sequence[int] | None = None
    """token_classify: return these columns of a token's values only, in this order. They are indices of labels, which
    are token ids for a model whose labels are its vocabulary."""
    priority: int = 0
    """Requests with a lower number are started first, and preempted last."""
    activation: None = None
    """Not offered: an old name of `use_activation`."""
    softmax: None = None
    """Not offered: an old name of `use_activation`."""

    def __post_init__(self) -> None:
        for name in ("activation", "softmax"):
            if getattr(self, name) is not None:
                raise RequestError(f"{name}={getattr(self, name)!r} is not offered. Use use_activation.")
        if self.task is not None and self.task not in TASKS:
            raise RequestError(f"task={self.task!r} is not known. Known: {', '.join(TASKS)}.")
        if self.dimensions is not None:
            _check_int("dimensions", self.dimensions, 1, 2**31 - 1, remedy="None keeps the whole vector.")
        for name in ("normalize", "use_activation"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise RequestError(f"{name}={value!r} must be True, False or None.")
        self._check_names_of_activation()
        if self.truncate_prompt_tokens is not None:
            _check_int(
                "truncate_prompt_tokens", self.truncate_prompt_tokens, -1, 2**31 - 1, remedy="None cuts nothing."
            )
            if self.truncate_prompt_tokens == 0:
                raise RequestError("truncate_prompt_tokens=0 leaves no text. Give 1 or more, or -1.")
        if self.truncation_side is not None and self.truncation_side not in TRUNCATION_SIDES:
            raise RequestError(f"truncation_side={self.truncation_side!r} is not known. Use 'left' or 'right'.")
        if self.step_tag_id is not None:
            _check_int("step_tag_id", self.step_tag_id, 0, 2**31 - 1, remedy="It is a token id.")
        self._check_returned_ids()
        _check_int("priority", self.priority, -(2**31), 2**31 - 1, remedy="0 is the default.")

    def _check_names_of_activation(self) -> None:
        embeds = self.task in (None, EMBED, TOKEN_EMBED)
        if self.normalize is not None and not embeds:
            raise RequestError(
                f"normalize={self.normalize} is for vectors, and task={self.task!r}. Use use_activation."
            )
        if embeds and None not in (self.normalize, self.use_activation) and self.normalize != self.use_activation:
            raise RequestError(
                f"normalize={self.normalize} and use_activation={self.use_activation} contradict: for vectors they are"
                " two names of one thing. Give one of them."
            )
        if self.dimensions is not None and not embeds:
            raise RequestError(f"dimensions={self.dimensions} is for vectors, and task={self.task!r}. Leave it unset.")
        if self.task not in (None, TOKEN_CLASSIFY):
            for name in ("step_tag_id", "returned_token_ids"):
                if getattr(self, name) is not None:
                    raise RequestError(f"{name} is for task='token_classify', and task={self.task!r}. Leave it unset.")

    def _check_returned_ids(self) -> None:
        given = self.returned_token_ids
        if given is None:
            return
        if not isinstance(given, (list, tuple)) or not given:
            raise RequestError(f"returned_token_ids={given!r} is not a list of token ids. Give at least one.")
        if len(given) > MAX_RETURNED_TOKEN_IDS:
            raise RequestError(f"returned_token_ids has {len(given)} ids; at most {MAX_RETURNED_TOKEN_IDS} fit.")
        for token_id in given:
            _check_int("returned_token_ids", token_id, 0, 2**31 - 1, remedy="Each is a token id.")
        object.__setattr__(self, "returned_token_ids", tuple(given))

    @property
    def activates(self) -> bool | None:
        """True if the last function of the task is applied (normalisation, sigmoid, softmax); None: as the model's
        files say."""
        return self.use_activation if self.normalize is None else self.normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """Options for turning a query and a document into the input of a model."""

    max_tokens_per_query: int = 0
    """Keep at most this many leading tokens of a query, cut before the pair is built; 0: all."""
    max_tokens_per_doc: int = 0
    """Likewise of a document."""
    instruction: str | None = None
    """The task that a model with a template reads before the pair; None: the model's default."""

    def __post_init__(self) -> None:
        for name in ("max_tokens_per_query", "max_tokens_per_doc"):
            _check_int(name, getattr(self, name), 0, 2**31 - 1, remedy="0 cuts nothing.")
        if self.instruction is not None and not isinstance(self.instruction, str):
            raise RequestError(f"instruction={self.instruction!r} is a {type(self.instruction).__name__}. Give text.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTemplate:
    """Text around a query and a document, for a model that was trained to judge them in a prompt of its own."""

    before: str
    """From the beginning of the prompt to the pair's part of it, the only one that may be cut."""
    instruction_label: str
    """Before the instruction."""
    query_label: str
    """Between instruction and query."""
    document_label: str
    """Between query and document."""
    after: str
    """From the end of the document to the end of the prompt, where the answer would begin."""
    instruction: str
    """The instruction of a pair that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMark:
    """Ids behind which the text of a prompt begins. Tokens before it are read, and the vector leaves them out."""

    first: tuple[int, ...]
    """The mark at the beginning of a prompt, behind the tokens of `leading`."""
    inner: tuple[int, ...]
    """The mark behind an instruction."""
    leading: tuple[int, ...]
    """Special tokens that the tokenizer puts before every prompt."""

    def text_start(self, ids: Sequence[int]) -> int:
        """Place of the first token of the text in the ids of a prompt; without a mark, behind the leading tokens."""
        start = len(self.leading) if tuple(ids[: len(self.leading)]) == self.leading else 0
        if tuple(ids[start : start + len(self.first)]) == self.first:
            return start + len(self.first)
        size = len(self.inner)
        for place in range(start, len(ids) - size + 1):
            if ids[place] == self.inner[0] and tuple(ids[place : place + size]) == self.inner:
                return place + size
        return start


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingAbilities:
    """Tasks and sizes of a pooling model, as admission and endpoints need them."""

    tasks: tuple[str, ...]
    """Tasks of `TASKS` that it serves."""
    default_task: str
    """The task of a request that names none: one of `tasks`."""
    pair_input: str | None = None
    """Form in which a query and a document are scored. "joined": both are in one prompt, and the head gives the score
    (a cross-encoder or reranker). "vectors": each is embedded, and the score is their cosine similarity.
    "token_vectors": each token is embedded, and the score is the sum over the query's tokens of the largest
    similarity. None: it scores no pairs."""
    pair_template: PairTemplate | None = None
    """For "joined": the text around the pair; None: the tokenizer joins the two."""
    text_mark: TextMark | None = None
    """The mark behind which the text of a prompt begins; None: all of the prompt is text."""
    embedding_size: int | None = None
    """Numbers in a vector; None: it makes none."""
    matryoshka_dimensions: tuple[int, ...] | None = None
    """Values that `dimensions` may have; (): every value up to embedding_size; None: none but embedding_size."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the numbers; empty for a model that does not classify."""
    activates: bool = True
    """The last function (normalisation, sigmoid, softmax) is applied where a request does not say."""
    reads_prefix_cache: bool = False
    """True if a request may take leading tokens from the prefix cache: the head needs the last token only."""

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingOutput:
    """The numbers of one request."""

    values: "array[float]"
    """fp32, row after row."""
    shape: tuple[int, ...]
    """(size,), or (number of tokens, size) for a task by token."""

    @property
    def data(self) -> list[float] | list[list[float]]:
        """The numbers as a list, or a list for each token."""
        flat = self.values.tolist()
        if len(self.shape) == 1:
            return flat
        num_rows, size = self.shape
        return [flat[row * size : (row + 1) * size] for row in range(num_rows)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRequestOutput:
    """A finished pooling request."""

    request_id: str
    prompt_token_ids: list[int]
    """Ids that the model read, after truncation: their number is the usage."""
    outputs: PoolingOutput
    prompt: str | None = None
    num_cached_tokens: int = 0
    """Tokens taken from the prefix cache at the first admission."""
    num_preemptions: int = 0
    finished: bool = True
    """False for a request that was aborted: `outputs` is empty."""
    timing: RequestTiming | None = field(default=None, compare=False)
    """`prefill`: from the first planned step to the end; `decode` is 0. None if the output does not come from an
    engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOutput:
    """One vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """Numbers in the vector."""
        return len(self.embedding)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOutput:
    """The score of one pair; higher is more similar, or more relevant."""

    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationOutput:
    """The value of each label: probabilities, or logits without the activation."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.probs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequestOutput:
    """A text and its vector."""

    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True

    @classmethod
    def from_base(cls, output: PoolingRequestOutput) -> "EmbeddingRequestOutput":
        """The output of a request with the task embed."""
        return cls(
            request_id=output.request_id,
            outputs=EmbeddingOutput(embedding=_vector(output)),
            prompt_token_ids=output.prompt_token_ids,
            num_cached_tokens=output.num_cached_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringRequestOutput:
    """A pair and its score."""

    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int]
    """Ids that the model read; of two prompts, if each text is embedded, those of the query come first."""
    num_cached_tokens: int = 0
    finished: bool = True

    @classmethod
    def from_base(cls, output: PoolingRequestOutput) -> "ScoringRequestOutput":
        """The output of a request with the task score."""
        (score,) = _vector(output)
        return cls(
            request_id=output.request_id,
            outputs=ScoringOutput(score=score),
            prompt_token_ids=output.prompt_token_ids,
            num_cached_tokens=output.num_cached_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRequestOutput:
    """A text and the value of each label."""

    request_id: str
    outputs: ClassificationOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True
    labels: tuple[str, ...] = field(default=())
    """Names of the labels, in the order of the values."""

    @classmethod
    def from_base(cls, output: PoolingRequestOutput, labels: tuple[str, ...] = ()) -> "ClassificationRequestOutput":
        """The output of a request with the task classify."""
        return cls(
            request_id=output.request_id,
            outputs=ClassificationOutput(probs=_vector(output)),
            prompt_token_ids=output.prompt_token_ids,
            num_cached_tokens=output.num_cached_tokens,
            labels=labels,
        )


def _vector(output: PoolingRequestOutput) -> list[float]:
    assert len(output.outputs.shape) == 1, f"{output.outputs.shape} is not the shape of one vector"
    return output.outputs.values.tolist()
