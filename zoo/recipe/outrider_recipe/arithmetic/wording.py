"""Rewords stories, so that a model learns what a story means and not how it is written.

Works on tellings before their slots are filled. Knows nothing of numbers or steps.
"""

import re
from random import Random

from outrider_recipe.arithmetic.lists import read_lines, read_words
from outrider_recipe.arithmetic.words import invent

CHANCE = 0.6  # of each phrase to be looked up; the phrase itself is among its alternatives

_SAME = read_lines("phrases.txt", "same")
_GROUPS = [line.split("|") for line in _SAME]
_ALTERNATIVES = {group[0]: group for group in _GROUPS}
_ONLY_BEFORE = {  # phrases that may be replaced only before certain things
    "has": r"has(?= \{)",
    "each": r"(?<!in )each(?=\.)",
    "Each": r"Each(?= \{)",
    "Every": r"Every(?= \{)",
    "in each": r"in each(?= \{)",
    "in every": r"in every(?= \{)",
}
_KEYS = [_ONLY_BEFORE.get(key, re.escape(key)) for key in sorted(_ALTERNATIVES, key=len, reverse=True)]
_PHRASE = re.compile(rf"(?<![\w{{])({'|'.join(_KEYS)})(?![\w}}])")
OPENERS = read_lines("clauses.txt", "openers")
ADJECTIVES = read_words("words.txt", "adjectives")
ASKED_FIRST = 0.08  # of the stories put their question before the rest


def reword(telling: str, random: Random) -> str:
    """The telling with some phrases replaced, sometimes with its question first."""

    def other(match: re.Match[str]) -> str:
        return random.choice(_ALTERNATIVES[match[1]]) if random.random() < CHANCE else match[1]

    telling = _PHRASE.sub(other, telling)
    sentences = re.split(r"(?<=[.?]) ", telling)
    if len(sentences) > 1 and sentences[-1].endswith("?") and random.random() < ASKED_FIRST:
        sentences.insert(0, sentences.pop())
    return " ".join(sentences)


# Words that say what happens or how much; every other plain word may be replaced by an invented one.
_TELLING_LISTS = (
    "gains",
    "losses",
    "share_ends",
    "pack_ends",
    "equal_groups",
    "more_ends",
    "fewer_ends",
    "times_ends",
    "difference_ends",
    "need_ends",
    "gain_verbs",
    "loss_verbs",
    "gain_participles",
    "loss_participles",
    "doublings",
    "halvings",
    "ask_amount",
    "ask_sum",
    "price_ends",
)
_TELLING_TEXT = [*_SAME, *(line for name in _TELLING_LISTS for line in read_lines("clauses.txt", name))]
TELLING = set(re.findall(r"[a-z]+", " ".join(_TELLING_TEXT).lower())) | set(read_words("words.txt", "telling"))
DISTURBED = 0.1  # of the plain words
DESCRIBED = 0.12  # of the nouns get an adjective
OPENED = 0.1  # of the sentences get a time or a place


def disturb(telling: str, random: Random) -> str:
    """The telling with invented words, adjectives and openers added at random; its meaning stays the same."""
    sentences = []
    for sentence in re.split(r"(?<=[.?]) ", telling):
        words = []
        for word in sentence.split():
            plain = word.strip(".,?")
            if plain.isalpha() and plain.islower() and plain not in TELLING and random.random() < DISTURBED:
                word = word.replace(plain, invent(random))
            elif re.match(r"\{[A-Z]s\}", word) and random.random() < DESCRIBED:
                word = f"{invent(random) if random.random() < 0.3 else random.choice(ADJECTIVES)} {word}"
            words.append(word)
        if random.random() < OPENED and re.match(r"\{[ABC]\}|\{He\}|There |\{[abcdepqrs]\}", sentence):
            words[0] = {"{He}": "{he}", "There": "there"}.get(words[0], words[0])
            words.insert(0, random.choice(OPENERS))
        sentences.append(" ".join(words))
    return " ".join(sentences)
