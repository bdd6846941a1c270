"""Says the same in other words, so that a model learns what a story means and not how it is written.

Works on tellings before their slots are filled. Knows nothing of numbers or steps.
"""

from __future__ import annotations

import re
from random import Random

from . import clauses
from .words import invent

CHANCE = 0.6  # of each phrase to be looked up; the phrase itself is among its alternatives

# Alternatives of one line mean the same in every story; each is tried wherever it stands as whole words.
SAME = """
has|owns|keeps|holds|counts|possesses
gives|hands|passes|sends|lends|offers|donates
gave|handed|passed|sent|lent|donated
buys|gets|purchases|orders|picks up
bought|got|purchased|ordered|picked up
finds|discovers|collects|gathers|spots|digs up
found|discovered|collected|gathered|dug up
loses|misplaces|drops|breaks
lost|misplaced|dropped|ruined
eats|consumes|swallows|uses up|finishes
ate|consumed|swallowed|used up|finished
sold|given away|handed out|shipped
joined them|showed up|came along|arrived|came in
went home|left|walked away|went away|departed
go home|walk away|leave|step out|go out|depart
more come|more arrive|more show up|more join|more step in
are left|remain|are still there|are left over
is left|remains|is left over
How many {Xs}|What number of {Xs}
How many {Fs}|What number of {Fs}
How many {Gs}|What number of {Gs}
How many {Is}|What number of {Is}
How much money|How many dollars
How many dollars|How much money
does {he} have now|does {he} have then|does {he} own now|does {he} end up with
does {A} have now|does {A} have in the end|does {A} own now|does {A} end up with
does {A} have left|does {A} still have|does {A} keep|remain for {A}
in all|altogether|in total|all together
altogether|in all|in total|together
together|in total|altogether|combined
each|each|apiece
in each|in every|in one|inside each|per
in every|in each|per
Each|Every|One
every day|each day|a day|daily
every week|each week|a week|weekly
equally|evenly|fairly|in equal parts
evenly|equally|fairly
with the same number in each|so that each has the same number|each with an equal number
shares|divides|splits|distributes
share|divide|split
shared|divided|split|distributed
split|divided|shared
Then|After that|Later|Next|Afterwards
then|later|after that
picked|collected|gathered|harvested|plucked
baked|made|prepared|cooked
makes|produces|builds|creates
made|produced|built|created
costs|is priced at|sells for
spends|pays out|uses
spent|paid out|used
earns|makes|receives
earned|made|received
saves|puts aside|sets aside|puts away
saved|put aside|set aside
packs|sorts|puts|stores
puts in|adds|lays in|drops in
takes out|removes|pulls out
needs|requires|wants
wants|would like|plans
walks|runs|marches|hikes
walked|ran|marched|hiked
broke|cracked|were damaged|were ruined
are broken|are damaged|are cracked|are missing
are bad|are rotten|are spoiled|are unripe
at first|at the start|in the beginning|before
as a gift|for a birthday|as a present
already had|had before|owned
There are|There are|We see|One can count
There were|There were|We saw|One could count
fewer|less|fewer
twice as many|two times as many|double the number
twice as many as|two times as many as|double the number of
half of|one half of|half of
At the {P}|In the {P}|Near the {P}
at the {P}|in the {P}|by the {P}|near the {P}
the rest|the others|what is left|all the others
The rest|The others|What is left
now|at this moment|now
bring|carry|bring along|contribute
holds|contains|has room for|fits
hold|contain|have room for|fit
works|labors|is busy
stayed|remained|were still there
remain|are left|stay
remains|is left
used|spent|needed
went down by|dropped by|fell by
went up by|rose by|grew by
cheaper|less expensive
farm|ranch|farm
"""
_GROUPS = [line.split("|") for line in SAME.strip().splitlines()]
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
OPENERS = clauses.OPENERS.strip().splitlines()
ADJECTIVES = clauses.ADJECTIVES.split()
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


# Words that tell what happens or how much; every other plain word may be replaced by one that nobody knows.
TELLING = set(
    re.findall(
        r"[a-z]+",
        f"""{SAME} {clauses.GAINS} {clauses.LOSSES} {clauses.SHARE_ENDS} {clauses.PACK_ENDS} {clauses.EQUAL_GROUPS}
        {clauses.MORE_ENDS} {clauses.FEWER_ENDS} {clauses.TIMES_ENDS} {clauses.DIFFERENCE_ENDS} {clauses.NEED_ENDS}
        {clauses.GAIN_VERBS} {clauses.LOSS_VERBS} {clauses.GAIN_PARTICIPLES} {clauses.LOSS_PARTICIPLES}
        {clauses.DOUBLINGS} {clauses.HALVINGS} {clauses.ASK_AMOUNT} {clauses.ASK_SUM} {clauses.PRICE_ENDS}
        third fourth fifth quarter dozen nickel dime week weeks hour hours minute minutes day days year years old
        young younger older tall taller longer shorter cheaper change profit half twice double double times pair
        dollars dollar cents pounds miles feet inches meters liters degrees percent warmer colder ahead behind
        does do did is are was were be will would can could must has have had the a an of in on at to from by for
        with and or but if then than that this these those it its he she they them his her their who which what how
        many much more less fewer most all both each every any some only just not no none own another other others
        rest total together altogether left same equal price lower higher missing free done need needs needed still
        there already come comes go goes get gets off out back walk walks keeps keep thrown returned borrowed brought
        taken take takes leave leaves first second before after again worth sum whole neither""".lower(),
    )
)
DISTURBED = 0.1  # of the plain words
DESCRIBED = 0.12  # of the nouns get an adjective
OPENED = 0.1  # of the sentences get a time or a place


def disturb(telling: str, random: Random) -> str:
    """The telling with words nobody knows, adjectives and openers strewn in; its meaning stays."""
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
