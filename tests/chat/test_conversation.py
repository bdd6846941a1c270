"""Conversations with scripted answers: commands, repeated answers and their comparison, failures, Ctrl-C."""

import os
import signal
from collections.abc import Generator, Sequence

import pytest

from outrider.chat.answer import Answer, Message, Settings, Update, comparison
from outrider.chat.conversation import Conversation
from outrider.core.errors import RequestError
from outrider.core.outputs import SpeculationStats

STEPS = 6


class Scripted:
    """Answers with the seed and the number of messages, a word a step, or two words with drafts."""

    description = "scripted"
    has_drafter = True

    def __init__(self) -> None:
        self.asked: list[tuple[list[Message], Settings]] = []
        self.fails = False
        self.is_exact = True
        self.presses = 0

    def answer(self, messages: Sequence[Message], settings: Settings) -> Generator[Update, None, None]:
        self.asked.append((list(messages), settings))
        if self.fails:
            raise RequestError("the conversation is too long.")
        width = 2 if settings.has_drafts else 1
        for step, begin in enumerate(range(0, STEPS, width)):
            for _ in range(self.presses):
                os.kill(os.getpid(), signal.SIGINT)
            odd = 0 if self.is_exact or settings.has_drafts else 1
            ids = [1000 * (settings.seed or 0) + number + odd for number in range(begin, begin + width)]
            num_drafts = (width - 1) * (step + 1)
            counts = SpeculationStats(num_steps=step + 1, num_draft_tokens=num_drafts, num_accepted_tokens=num_drafts)
            pieces = [(f"{number} ", place > 0) for place, number in enumerate(ids)]
            yield Update(pieces=pieces, token_ids=ids, stats=counts, num_tokens=begin + width)


class Heard:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answers: list[Answer] = []

    def begin(self) -> None:
        pass

    def take(self, update: Update, answer: Answer) -> None:
        pass

    def end(self, answer: Answer) -> None:
        self.answers.append(answer)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def conversation(scripted: Scripted, heard: Heard) -> Conversation:
    return Conversation(scripted, heard, Settings(seed=7), system=None)


def test_each_answer_sees_what_was_said(conversation: Conversation, scripted: Scripted) -> None:
    for text in ("one", "/system Be short.", "two"):
        conversation.hear(text)
    messages, _ = scripted.asked[1]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == "Be short." and messages[2]["content"].startswith("7000 ")


def test_spec_off_answers_again_without_drafts(conversation: Conversation, scripted: Scripted, heard: Heard) -> None:
    for text in ("one", "two", "/spec off", "three"):
        conversation.hear(text)
    assert scripted.asked[2][0] == scripted.asked[1][0], "the same question after the same conversation"
    assert [settings.has_drafts for _, settings in scripted.asked] == [True, True, False, False]
    assert heard.said[0].startswith("The same tokens, all 6. With drafts 3 steps, ")
    assert "without 6 steps, " in heard.said[0]
    assert [message["role"] for message in scripted.asked[3][0]] == ["user", "assistant"] * 2 + ["user"]


def test_a_drawn_seed_is_kept_for_the_repetition(scripted: Scripted, heard: Heard) -> None:
    conversation = Conversation(scripted, heard, Settings(), system=None)
    for text in ("one", "/spec off", "/retry"):
        conversation.hear(text)
    first, again, other = (settings.seed for _, settings in scripted.asked)
    assert first == again and other not in (None, first)


def test_a_difference_is_said(conversation: Conversation, scripted: Scripted, heard: Heard) -> None:
    scripted.is_exact = False
    for text in ("one", "/spec off"):
        conversation.hear(text)
    assert heard.said == ["The tokens differ from those of the answer before."]


def test_the_slower_way_is_named() -> None:
    def answer(has_drafts: bool, seconds: float) -> Answer:
        return Answer(Settings(has_drafts=has_drafts), token_ids=[1], begin=0.0, end=seconds)

    assert "drafts cost more time than they saved" in comparison(answer(True, 3.0), answer(False, 2.0))[0]
    assert "drafts made it 1.50 times as fast" in comparison(answer(False, 3.0), answer(True, 2.0))[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/seed x", "/seed x is not a number"),
        ("/temperature 11", "out of range. Use 0 to 10"),
        ("/temperature nan", "out of range"),
        ("/max_tokens 0", "out of range. Use 1 to"),
        ("/spec maybe", "Use /spec off or /spec on"),
        ("/retry", "there is no answer to repeat"),
        ("/sede 3", "/sede is not a command. Commands: /help, "),
    ],
)
def test_a_wrong_command_is_named_and_changes_nothing(
    conversation: Conversation, heard: Heard, scripted: Scripted, text: str, words: str
) -> None:
    before = conversation.settings
    conversation.hear(text)
    assert words in heard.said[0] and conversation.settings == before and not scripted.asked


def test_settings_are_those_of_the_next_answer(conversation: Conversation, scripted: Scripted) -> None:
    for text in ("/seed 11", "/temperature 0.5", "/max_tokens 9", "one", "/seed", "/temperature", "/max_tokens"):
        conversation.hear(text)
    assert scripted.asked[0][1] == Settings(seed=11, temperature=0.5, max_tokens=9)
    assert conversation.settings == Settings()


def test_an_answer_that_fails_leaves_the_conversation_as_it_was(
    conversation: Conversation, scripted: Scripted, heard: Heard
) -> None:
    conversation.hear("one")
    scripted.fails = True
    for text in ("two", "/spec off"):
        conversation.hear(text)
    assert heard.said == ["the conversation is too long."] * 2
    scripted.fails = False
    conversation.hear("three")
    contents = [message["content"] for message in scripted.asked[-1][0]]
    assert contents[0] == "one" and contents[2] == "three" and len(contents) == 3


def test_ctrl_c_ends_the_answer_after_its_step(conversation: Conversation, scripted: Scripted, heard: Heard) -> None:
    before = signal.getsignal(signal.SIGINT)
    scripted.presses = 1
    conversation.hear("one")
    assert len(heard.answers[0].token_ids) == 2 and signal.getsignal(signal.SIGINT) == before
    scripted.presses = 2
    with pytest.raises(KeyboardInterrupt):
        conversation.hear("two")
    assert signal.getsignal(signal.SIGINT) == before


def test_clear_forgets_and_exit_ends(conversation: Conversation, scripted: Scripted) -> None:
    for text in ("one", "/clear", "two", "/exit"):
        conversation.hear(text)
    assert len(scripted.asked[1][0]) == 1 and conversation.is_over
