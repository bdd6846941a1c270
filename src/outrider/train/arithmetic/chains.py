"""Training stories put together from events: a start, one to four gains and losses, a question.

The sentences of each setting combine freely, so that a model cannot learn them as whole templates.
Knows nothing of hold-outs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from .facts import Fact, is_in_scope, spell
from .families import CUES, Problem
from .words import draw_cast


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    starts: tuple[str, ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    questions: tuple[str, ...]


SETTINGS = (
    Setting(
        "chain_things",
        (
            "{A} has {q} {Xs}.",
            "{A} starts with {q} {Xs}.",
            "There are {q} {Xs} in the {k} of {A}.",
            "{A} owns {q} {Xs}.",
            "In the morning {A} has {q} {Xs}.",
        ),
        (
            "{He} finds {q} more.",
            "{B} gives {him} {q} {Xs}.",
            "{He} buys {q} {Xs} at the {P}.",
            "{He} wins {q} at a game.",
            "Then {he} gets {q} from {C}.",
            "{He} makes {q} new ones.",
            "On {D} {his} mother brings {q} {Xs}.",
            "{He} receives {q} by mail.",
            "{C} hands over {q} {Xs}.",
            "Another {q} are added.",
            "{He} picks up {q} on the way.",
            "Grandfather sends {q} {Xs}.",
        ),
        (
            "{He} gives {q} to {B}.",
            "{He} loses {q} of them.",
            "{C} takes {q} {Xs}.",
            "{He} sells {q} at the {P}.",
            "{q} of them break.",
            "Then {he} throws away {q}.",
            "{He} lends {q} {Xs} to {C}.",
            "On {D} {he} uses {q}.",
            "{He} leaves {q} at the {P}.",
            "{q} {Xs} are stolen.",
            "{He} trades away {q}.",
            "{He} hands {q} to a {g}.",
        ),
        (
            "How many {Xs} does {A} have now?",
            "How many {Xs} are there at the end?",
            "How many {Xs} does {he} have left?",
            "What number of {Xs} is that in the end?",
        ),
    ),
    Setting(
        "chain_people",
        (
            "There are {q} {Gs} at the {P}.",
            "{q} people sit in a bus.",
            "A train leaves with {q} people.",
            "{q} {Gs} wait in line.",
            "At noon the {P} has {q} people in it.",
        ),
        (
            "{q} more come.",
            "Then {q} get on.",
            "{q} others join them.",
            "After an hour {q} new people arrive.",
            "{q} walk in.",
            "At the next stop {q} people enter.",
            "{A} brings {q} {Gs}.",
            "{q} return.",
        ),
        (
            "{q} go home.",
            "Then {q} get off.",
            "{q} of them leave.",
            "After a while {q} walk away.",
            "{q} people go out.",
            "At the next stop {q} people exit.",
            "{A} leaves with {q} {Gs}.",
            "{q} are called away.",
        ),
        ("How many are there now?", "How many people is that?", "How many people are left?"),
    ),
    Setting(
        "chain_money",
        (
            "{A} has ${q}.",
            "{A} takes ${q} to the {P}.",
            "There is ${q} in the {k} of {A}.",
            "{A} begins the week with ${q}.",
        ),
        (
            "{He} earns ${q}.",
            "{B} pays {him} ${q}.",
            "{He} gets ${q} for {his} birthday.",
            "{He} finds ${q}.",
            "{He} sells a {i} for ${q}.",
            "On {D} {he} is paid ${q}.",
            "{His} father gives {him} ${q}.",
            "{He} saves ${q} more.",
        ),
        (
            "{He} spends ${q}.",
            "{He} buys a {i} for ${q}.",
            "{He} pays ${q} for a {j}.",
            "{He} gives ${q} to {B}.",
            "{He} loses ${q}.",
            "A {j} costs {him} ${q}.",
            "{He} donates ${q}.",
            "On {D} {he} spends ${q} on food.",
        ),
        (
            "How much money does {A} have now?",
            "How many dollars are left?",
            "How many dollars does {he} have in the end?",
        ),
    ),
    Setting(
        "chain_food",
        (
            "{A} bakes {q} {Fs}.",
            "There are {q} {Fs} on a plate.",
            "The {k} has {q} {Fs} in it.",
            "{A} picks {q} {Fs}.",
            "A {P} has {q} {Fs} to sell.",
        ),
        (
            "{B} brings {q} more.",
            "{A} bakes another {q}.",
            "Then {q} {Fs} are put in.",
            "{C} picks {q} {Fs} as well.",
            "A truck delivers {q} {Fs}.",
            "{B} adds {q}.",
        ),
        (
            "{B} eats {q}.",
            "{q} of them fall on the floor.",
            "The {Gs} eat {q} {Fs}.",
            "{q} are bad and thrown out.",
            "{C} takes {q} home.",
            "{q} {Fs} are sold.",
            "A dog eats {q}.",
            "{A} serves {q} to the {Gs}.",
        ),
        ("How many {Fs} are left?", "How many {Fs} are there now?", "How many {Fs} remain?"),
    ),
)


def draw_chain(random: Random) -> Problem:
    """One story of one to four events whose amount stays between 1 and 999."""
    setting = random.choice(SETTINGS)
    cast = draw_cast(random)
    limit = random.choice((20, 60, 150, 300))
    amount = random.randrange(2, limit)
    sentences = [_fill(random.choice(setting.starts), cast, amount)]
    lines: list[str] = []
    facts: list[Fact] = []
    for _ in range(random.choice((1, 2, 2, 3, 3, 4))):
        is_gain = random.random() < 0.5 or amount < 4
        change = random.randrange(2, max(4, limit // 2)) if is_gain else random.randrange(1, amount)
        fact = Fact(amount, "+" if is_gain else "-", change)
        if not is_in_scope(fact):
            break
        text, stated = spell(fact)
        sentences.append(_fill(random.choice(setting.gains if is_gain else setting.losses), cast, change))
        lines.append(f"{CUES['gain' if is_gain else 'lose'][1]}: {text}.")
        facts += stated
        amount = fact.value
    if not lines:
        return draw_chain(random)
    question = " ".join([*sentences, _fill(random.choice(setting.questions), cast, 0)])
    answer = "\n".join([*lines, f"#### {amount}"])
    numbers = tuple(int(number) for number in re.findall(r"\d+", question))
    return Problem(setting.name, question, answer, amount, numbers, tuple(facts))


def _fill(sentence: str, cast: dict[str, str], number: int) -> str:
    filled = re.sub(r"\{(\w+)\}", lambda match: str(number) if match[1] == "q" else cast[match[1]], sentence)
    return filled[0].upper() + filled[1:]
