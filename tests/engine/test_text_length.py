"""A text that is certainly too long is refused before its tokens are made."""

from pathlib import Path

import pytest

from outrider import RequestError, SamplingParams
from outrider.engine.admission import Admission
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer

ZOO = Path(__file__).parents[2] / "zoo" / "tiny"
MAX_MODEL_LEN = 64


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(ZOO)


def admission(tokenizer: Tokenizer) -> Admission:
    return Admission(tokenizer=tokenizer, vocab_size=3072, max_model_len=MAX_MODEL_LEN, eos_token_ids=(0,), seed=0)


def test_too_long_a_text_is_refused_without_a_token(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    most = MAX_MODEL_LEN * tokenizer.longest_token
    checks = admission(tokenizer)
    monkeypatch.setattr(tokenizer._tokenizer, "encode", lambda *args, **options: pytest.fail("it was tokenized"))
    with pytest.raises(RequestError, match=f"{most + 1} characters, which are more than 64 tokens"):
        checks.request("x" * (most + 1), SamplingParams(), request_id="0")
    with pytest.raises(RequestError, match="more than 64 tokens"):
        checks.request("x" * (1 << 18 | 1), SamplingParams(truncate_prompt_tokens=5), request_id="0")
    with pytest.raises(RequestError, match="more than 64 tokens"):
        options = ChatOptions(chat_template="{{ messages[0].content * 1000 }}")
        encode_chat(tokenizer, [{"role": "user", "content": "x" * most}], options, max_tokens=MAX_MODEL_LEN)


def test_a_text_that_fits_is_never_refused_by_its_length(tokenizer: Tokenizer) -> None:
    """The longest token as often as the context holds it, and a text that is cut before it is looked at."""
    vocabulary = tokenizer._backend.get_vocab()
    longest = max(
        vocabulary, key=lambda token: len(tokenizer.token_bytes.of(vocabulary[token]).decode(errors="replace"))
    )
    text = tokenizer.token_bytes.of(vocabulary[longest]).decode(errors="replace") * (MAX_MODEL_LEN - 1)
    tokenizer.check_length(text, max_tokens=MAX_MODEL_LEN)
    cut = admission(tokenizer).request("y " * 20_000, SamplingParams(truncate_prompt_tokens=5), request_id="0")
    assert len(cut.prompt_token_ids) == 5
