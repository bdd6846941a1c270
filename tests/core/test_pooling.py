"""Parameters and outputs of pooling requests: each refusal names the parameter, its value and the remedy."""

import pickle
from array import array
from typing import Any

import pytest

from outrider.core.errors import RequestError
from outrider.core.pooling import (
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PairOptions,
    PoolingOutput,
    PoolingParams,
    PoolingRequestOutput,
    ScoringRequestOutput,
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "embedding"}, "task='embedding' is not known. Known: embed, score"),
        ({"dimensions": 0}, "dimensions=0 is out of range"),
        ({"dimensions": True}, "dimensions=True is out of range"),
        ({"task": "score", "dimensions": 8}, "dimensions=8 is for vectors"),
        ({"normalize": 1}, "normalize=1 must be True, False or None"),
        ({"use_activation": "yes"}, "use_activation='yes' must be True, False or None"),
        ({"task": "classify", "normalize": False}, "normalize=False is for vectors, and task='classify'"),
        ({"task": "embed", "normalize": False, "use_activation": True}, "contradict"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens=0 leaves no text"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens=-2 is out of range"),
        ({"truncation_side": "both"}, "truncation_side='both' is not known"),
        ({"step_tag_id": -1}, "step_tag_id=-1 is out of range"),
        ({"task": "embed", "step_tag_id": 5}, "step_tag_id is for task='token_classify'"),
        ({"returned_token_ids": []}, "is not a list of token ids"),
        ({"returned_token_ids": [1, "2"]}, "returned_token_ids='2' is out of range"),
        ({"activation": True}, "activation=True is not offered. Use use_activation."),
        ({"softmax": False}, "softmax=False is not offered. Use use_activation."),
        ({"priority": 0.5}, "priority=0.5 is out of range"),
    ],
)
def test_wrong_parameter_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        PoolingParams(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("fields", [{"max_tokens_per_doc": -1}, {"max_tokens_per_query": True}, {"instruction": 3}])
def test_wrong_option_of_a_pair_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(fields))):
        PairOptions(**fields)


def test_two_names_of_normalisation_are_one() -> None:
    assert PoolingParams().activates is None
    assert PoolingParams(normalize=False).activates is False
    assert PoolingParams(use_activation=False).activates is False
    assert PoolingParams(task="embed", normalize=True, use_activation=True).activates is True


def output(values: list[float], shape: tuple[int, ...]) -> PoolingRequestOutput:
    return PoolingRequestOutput(
        request_id="a", prompt_token_ids=[1, 2, 3], outputs=PoolingOutput(values=array("f", values), shape=shape)
    )


def test_outputs_are_lists_and_keep_the_bytes_between_processes() -> None:
    by_token = output([1, 2, 3, 4, 5, 6], (3, 2))
    assert by_token.outputs.data == [[1, 2], [3, 4], [5, 6]]
    one = output([0.1, 0.2], (2,))
    sent = pickle.loads(pickle.dumps(one))
    assert sent.outputs.values.tobytes() == array("f", [0.1, 0.2]).tobytes()
    embedding = EmbeddingRequestOutput.from_base(one).outputs
    assert embedding.embedding == one.outputs.data and embedding.hidden_size == 2
    assert ScoringRequestOutput.from_base(output([0.5], (1,))).outputs.score == 0.5
    classes = ClassificationRequestOutput.from_base(one, ("no", "yes"))
    assert classes.outputs.probs == one.outputs.data and classes.outputs.num_classes == 2
    assert classes.labels == ("no", "yes")
