"""Two small tokenizers, trained or built on the spot: byte-level BPE, and byte fallback behind a space mark."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "def add(a, b):\n    return a + b\n",
    "Grüße aus Köln, à bientôt, mañana",
    "привет мир, как дела",
    "你好,世界。今天天气很好",
    "emoji 🙂🙃🎉 and 👩‍🚀 flags 🇩🇪",
    "STOP here. STOP there! END",
)


def save_byte_level(directory: Path) -> Path:
    """Every byte is a token, and common pairs too; some tokens end inside a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>", "<|user|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = (
        "{% for message in messages %}<|user|>{{ message.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    fast.save_pretrained(directory)
    return directory


def save_byte_fallback(directory: Path) -> Path:
    """Like Llama 2: bytes only for characters without a token of their own; U+2581 stands for a space."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁a", "▁b", "▁the", "ab", "好"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[("▁", "a"), ("▁", "b"), ("a", "b")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(directory)
    return directory
