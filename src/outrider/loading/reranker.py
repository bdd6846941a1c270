"""Finds language models that were trained to judge pairs of texts: their answer, yes or no, is the score.

Released checkpoints have the config of an ordinary language model. They are known by their name, or by keys that users
of other engines add to config.json.
"""

from pathlib import Path

from tokenizers import Tokenizer

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import CheckpointError, ConfigError
from outrider.core.pooler_config import (
    ANSWER_HEAD,
    SCORE_HEAD,
    SIGMOID,
    PoolerConfig,
    Reranker,
    classifier,
    read_activation,
    split_form,
)
from outrider.loading.names import is_named


def read_reranker(
    reader: ConfigReader, directory: Path, reranker: Reranker, *, architecture: str
) -> PoolerConfig | None:
    """The pooler of a reranker; None if the model in `directory` is not one.

    An original checkpoint answers with a token; a converted one has a linear layer for the difference of the answers.
    """
    given = reader.texts("classifier_from_token")
    is_marked = any(reader.flag(key) for key in reranker.keys)
    if not (given or is_marked or is_named(directory, reranker.marks)):
        return None
    if split_form(architecture)[1]:
        reader.ignore("id2label", "num_labels", reason="the one label is the score")
        return classifier(
            labels=("score",),
            activation=read_activation(reader, num_labels=1),
            head=SCORE_HEAD,
            pair_template=reranker.template,
        )
    answers = given or reranker.answers
    if len(answers) != len(reranker.answers):
        raise ConfigError(f"{reader.said('classifier_from_token')} must be two tokens: no, then yes.")
    no, yes = (_token_id(directory, answer) for answer in answers)
    return classifier(
        labels=("score",),
        activation=SIGMOID,
        head=ANSWER_HEAD,
        pair_template=reranker.template,
        answer_token_ids=(no, yes),
    )


def _token_id(directory: Path, text: str) -> int:
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{directory} has no tokenizer.json, and the model's answers are tokens. Add it.")
    token_id: int | None = Tokenizer.from_file(str(path)).token_to_id(text)
    if token_id is None:
        raise CheckpointError(f"{path} has no token {text!r}, one of the answers. Download it again.")
    return token_id
