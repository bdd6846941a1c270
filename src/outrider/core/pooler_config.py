"""The part of a pooling model behind its layers: which hidden states count, the head on them, and the tasks it serves.

`read_pooler` reads it from the keys of config.json that all families share; a family with a head of its own states it
in its file in `models/`. What a folder of sentence-transformers says is read in `loading/`.
"""

from dataclasses import dataclass

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.pooling import (
    CLASSIFY,
    EMBED,
    SCORE,
    TOKEN_CLASSIFY,
    TOKEN_EMBED,
    PairTemplate,
    PoolingAbilities,
    TextMark,
)

LAST, CLS, MEAN = "last", "cls", "mean"
POOLINGS = (LAST, CLS, MEAN)
"""The vector of a text: the hidden state of its last token, of its first, or the mean of all."""

IDENTITY, SIGMOID, SOFTMAX = "identity", "sigmoid", "softmax"
ACTIVATIONS = (IDENTITY, SIGMOID, SOFTMAX)

NO_HEAD, SCORE_HEAD, REWARD_HEAD, ANSWER_HEAD = "none", "score", "reward", "answers"
"""Heads on a hidden state. none: it is the vector. score: one linear layer, `score`. reward: two with a ReLU between
them, `score.0` and `score.2`. answers: the logits of two tokens, of which the second minus the first is the score."""

CAUSAL_FORM = "ForCausalLM"
FORMS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForProcessRewardModel",
    "ForRewardModel",
    "Model",
)
"""Last parts of the names of architectures that pool, for families whose generating form ends in `CAUSAL_FORM`."""


TEXT_HEAD = "text_head"
"""Name of the module of linear layers on the vector of a text, and the leading part of its weights' names."""
TANH = "tanh"
DENSE_ACTIVATIONS = (IDENTITY, TANH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A linear layer on the vector of a text, and the function behind it."""

    in_features: int
    out_features: int
    has_bias: bool
    activation: str
    """One of `DENSE_ACTIVATIONS`."""
    folder: str | None
    """Folder of its weights in the model's directory; None: they are among the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerConfig:
    """Pooling, head and tasks of one model."""

    tasks: tuple[str, ...]
    """Tasks of `outrider.core.pooling.TASKS`."""
    default_task: str
    pooling: str = LAST
    """One of `POOLINGS`; tasks by token take the hidden state of each token."""
    head: str = NO_HEAD
    """Name of the head. Heads of this file are built by `layers/pooling_head.py`; a family may have others."""
    head_bias: bool = False
    """The linear layer of the head `score` has a bias."""
    answer_token_ids: tuple[int, int] | None = None
    """For the head `answers`: ids of the tokens that mean no and yes."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the head's rows."""
    activation: str = IDENTITY
    """Function on the head's numbers, one of `ACTIVATIONS`; for models with labels."""
    normalizes: bool = False
    """Vectors are scaled to length 1, for models without labels."""
    pair_input: str | None = None
    """See `PoolingAbilities`."""
    pair_template: PairTemplate | None = None
    """Text around a query and a document, for a model that was trained with one."""
    matryoshka_dimensions: tuple[int, ...] | None = None
    """See `PoolingAbilities`."""
    dense: tuple[Dense, ...] = ()
    """Linear layers between the pooling and the normalisation. Such a model has vectors of whole texts only, or of
    tokens only."""
    text_mark: TextMark | None = None
    """The mark behind which the text of a prompt begins, for a model that was trained with instructions; its tokens see
    the whole prompt, and the vector is pooled over the text."""
    embedding_size: int | None = None
    """Numbers in a vector, if they are not the model's hidden_size."""
    max_tokens: int | None = None
    """Largest number of tokens of a text, if the model's files limit it further than its positions do."""

    def __post_init__(self) -> None:
        assert self.pooling in POOLINGS, f"{self.pooling!r} is not a pooling"
        assert self.activation in ACTIVATIONS, f"{self.activation!r} is not an activation"
        assert self.default_task in self.tasks, f"{self.default_task!r} is not one of {self.tasks}"

    def abilities(self, *, hidden_size: int, is_causal: bool) -> PoolingAbilities:
        """The abilities of a model of this width. `is_causal`: its tokens see only those before them."""
        embeds = EMBED in self.tasks or TOKEN_EMBED in self.tasks
        return PoolingAbilities(
            tasks=self.tasks,
            default_task=self.default_task,
            pair_input=self.pair_input,
            pair_template=self.pair_template,
            text_mark=self.text_mark,
            embedding_size=(self.embedding_size or hidden_size) if embeds else None,
            matryoshka_dimensions=self.matryoshka_dimensions if embeds else None,
            labels=self.labels,
            activates=self.normalizes if embeds else self.activation != IDENTITY,
            reads_prefix_cache=is_causal and self.pooling == LAST,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructedEmbedder:
    """Language models of a family that were trained to make vectors, too: of the text behind an instruction and a mark,
    with attention in both directions."""

    marks: tuple[str, ...]
    """Parts of the names of such checkpoints, in lower case."""
    architectures: tuple[str, ...]
    """Names of architectures of such checkpoints."""
    text_mark: str
    """Text before the text itself: at the beginning of the prompt, or on a line behind the instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranker:
    """Language models of a family that were trained to judge a query and a document by a token, yes or no.

    Their config.json is that of an ordinary model; their names, or keys that users add to it, tell them apart.
    """

    marks: tuple[str, ...]
    """Parts of the names of such checkpoints, in lower case."""
    keys: tuple[str, ...]
    """Keys of config.json that are true for such checkpoints."""
    template: PairTemplate
    answers: tuple[str, str] = ("no", "yes")


def split_form(architecture: str) -> tuple[str, str]:
    """The family and the form of an architecture that pools; for any other, its name and ""."""
    for form in FORMS:
        if architecture.endswith(form) and architecture != form:
            return architecture.removesuffix(form), form
    return architecture, ""


def read_pooler(reader: ConfigReader, *, architecture: str) -> PoolerConfig:
    """The pooler of a decoder, by the form of its architecture; without one, as of "ForCausalLM", it embeds."""
    _, form = split_form(architecture)
    if form in ("", "Model"):
        return embedder(matryoshka_dimensions=read_matryoshka(reader))
    labels = read_labels(reader)
    if form == "ForSequenceClassification":
        return classifier(labels=labels, activation=read_activation(reader, num_labels=len(labels)), head=SCORE_HEAD)
    if form == "ForTokenClassification":
        return PoolerConfig(
            tasks=(TOKEN_CLASSIFY,),
            default_task=TOKEN_CLASSIFY,
            head=SCORE_HEAD,
            head_bias=True,
            labels=labels,
            activation=read_activation(reader, num_labels=len(labels)),
        )
    if form == "ForRewardModel":  # one number for each token; the last one is the reward of the whole text
        return PoolerConfig(
            tasks=(TOKEN_CLASSIFY, CLASSIFY), default_task=TOKEN_CLASSIFY, head=REWARD_HEAD, labels=("reward",)
        )
    return PoolerConfig(
        tasks=(TOKEN_CLASSIFY,),
        default_task=TOKEN_CLASSIFY,
        head=REWARD_HEAD,
        labels=labels if len(labels) > 1 else ("LABEL_0", "LABEL_1"),
        activation=SOFTMAX,
    )


def embedder(
    *, pooling: str = LAST, normalizes: bool = True, matryoshka_dimensions: tuple[int, ...] | None = None
) -> PoolerConfig:
    """The pooler of a model that makes vectors."""
    return PoolerConfig(
        tasks=(EMBED, TOKEN_EMBED),
        default_task=EMBED,
        pooling=pooling,
        normalizes=normalizes,
        pair_input="vectors",
        matryoshka_dimensions=matryoshka_dimensions,
    )


def late_interaction(dense: Dense) -> PoolerConfig:
    """The pooler of a model that makes a vector of each token, by which pairs are compared."""
    return PoolerConfig(
        tasks=(TOKEN_EMBED,),
        default_task=TOKEN_EMBED,
        normalizes=True,
        pair_input="token_vectors",
        dense=(dense,),
        embedding_size=dense.out_features,
    )


def classifier(
    *,
    labels: tuple[str, ...],
    activation: str,
    head: str,
    pooling: str = LAST,
    pair_template: PairTemplate | None = None,
    answer_token_ids: tuple[int, int] | None = None,
) -> PoolerConfig:
    """The pooler of a model that gives each label a number; with one label, that is the score of a pair, too."""
    scores = len(labels) == 1
    return PoolerConfig(
        tasks=(CLASSIFY, SCORE) if scores else (CLASSIFY,),
        default_task=SCORE if scores and pair_template is not None else CLASSIFY,
        pooling=pooling,
        head=head,
        answer_token_ids=answer_token_ids,
        labels=labels,
        activation=activation,
        pair_input="joined" if scores else None,
        pair_template=pair_template,
    )


def read_labels(reader: ConfigReader) -> tuple[str, ...]:
    """Names of the labels: those of id2label, else as many as num_labels; two where the config has neither."""
    if not reader.is_object("id2label"):
        count = reader.integer("num_labels", default=reader.integer("_num_labels", default=2), maximum=1 << 20)
        return tuple(f"LABEL_{index}" for index in range(count))
    names = reader.section("id2label")
    by_index = {key: names.text(key) for key in names.keys if key.isdecimal()}  # other keys are left, and refused
    order = [str(index) for index in range(len(by_index))]
    if set(order) != set(by_index):
        raise ConfigError(
            f"{reader.where}: id2label has the keys {', '.join(by_index)}. They must count from 0, one for each label."
        )
    if reader.has("num_labels") and reader.integer("num_labels") != len(order):
        raise ConfigError(f"{reader.said('num_labels')} contradicts id2label, which has {len(order)}. Remove one.")
    return tuple(by_index[key] for key in order)


_PROBLEMS: dict[str, str] = {"regression": IDENTITY, "multi_label_classification": SIGMOID}


def read_activation(reader: ConfigReader, *, num_labels: int) -> str:
    """Activation of a classifier: that of sentence-transformers where the config names one, else by problem_type, else
    sigmoid for one label and softmax for several."""
    found = SIGMOID if num_labels == 1 else SOFTMAX
    if reader.has("problem_type"):
        kinds = ("single_label_classification", *_PROBLEMS)
        found = _PROBLEMS.get(reader.choice("problem_type", kinds), found)
    named = [reader.section("sentence_transformers").text("activation_fn", default="")]
    named.append(reader.text("sbert_ce_default_activation_function", default=""))
    reader.section("sentence_transformers").ignore("version", reason="the version that saved it")
    for name in filter(None, named):
        found = activation_of(name, where=reader.where)
    return found


def activation_of(name: str, *, where: str) -> str:
    """The activation of a class of torch.nn, such as "torch.nn.modules.activation.Sigmoid"."""
    found = name.rpartition(".")[2].lower()
    if found not in ACTIVATIONS:
        raise UnsupportedError(
            f"{where}: the activation {name!r} is not supported. Supported: Identity, Sigmoid, Softmax."
        )
    return found


def read_matryoshka(reader: ConfigReader) -> tuple[int, ...] | None:
    """Sizes to which vectors may be cut: matryoshka_dimensions, or all where is_matryoshka is true, else none."""
    sizes = reader.integers("matryoshka_dimensions", minimum=1)
    is_matryoshka = reader.flag("is_matryoshka", default=bool(sizes))
    if sizes:
        return tuple(sorted(sizes))
    return () if is_matryoshka else None
