"""add_special_tokens: bos is added to completions unless a request says no, and to chats only if it says yes."""

from pathlib import Path

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer
from outrider.server.completions import CompletionRequest

from .tokenizers_made_here import save_byte_level

BOS = 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer that puts <|user|> in front of a text."""
    directory: Path = save_byte_level(tmp_path_factory.mktemp("bos"))
    fast = PreTrainedTokenizerFast.from_pretrained(directory)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", BOS)]
    )
    fast.save_pretrained(directory)
    return Tokenizer(directory)


def test_a_chat_gets_none_unless_it_asks(tokenizer: Tokenizer) -> None:
    talk, template = [{"role": "user", "content": "the"}], "{{ messages[0].content }}"
    plain = encode_chat(tokenizer, talk, ChatOptions(chat_template=template))
    assert BOS not in plain
    added = encode_chat(tokenizer, talk, ChatOptions(chat_template=template, add_special_tokens=True))
    assert added == [BOS, *plain]


def test_a_completion_gets_them_unless_it_says_no(tokenizer: Tokenizer) -> None:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    ids = encode("the")
    assert CompletionRequest(prompt="the").prompts(encode) == ["the"]
    assert tokenizer.encode("the") == [BOS, *ids]
    bare = {"prompt": "the", "prompt_token_ids": ids}
    assert CompletionRequest(prompt="the", add_special_tokens=False).prompts(encode) == [bare]
    both = CompletionRequest(prompt=["the", "the"], add_special_tokens=False)
    assert both.prompts(encode) == [bare, bare] and both.num_prompts == 2
    given = CompletionRequest(prompt=[[5], [6]], add_special_tokens=False)
    assert given.prompts(encode) == [{"prompt_token_ids": [5]}, {"prompt_token_ids": [6]}]
