"""Stories composed of random clauses: a beginning, events, an end. Training only; knows nothing of hold-outs.

The sequence of operations is random too, so a model has to read every clause for what it does.
"""

from dataclasses import dataclass
from random import Random

from outrider_recipe.arithmetic.facts import Fact, is_in_scope
from outrider_recipe.arithmetic.families import Problem, explain, fill, make_problem
from outrider_recipe.arithmetic.lists import read_lines
from outrider_recipe.arithmetic.stories import Rule
from outrider_recipe.arithmetic.wording import disturb, reword
from outrider_recipe.arithmetic.words import INVENTED, draw_cast


def _clauses(name: str) -> list[str]:
    return read_lines("clauses.txt", name)


BEGINNINGS = [_clauses(name) for name in ("one_amount", "two_amounts", "equal_groups")]
GAINS, LOSSES = _clauses("gains"), _clauses("losses")
DOUBLINGS, HALVINGS = _clauses("doublings"), _clauses("halvings")
ASK_AMOUNT, ASK_SUM = _clauses("ask_amount"), _clauses("ask_sum")


@dataclass(frozen=True, slots=True)
class End:
    kind: str  # a key of stories.CUES
    operator: str
    clauses: list[str]
    is_reversed: bool = False  # the clause's number comes first: 50 - amount


ENDS = (
    End("share", "/", _clauses("share_ends")),
    End("pack", "/", _clauses("pack_ends")),
    End("cost", "*", _clauses("price_ends")),
    End("more", "+", _clauses("more_ends")),
    End("fewer", "-", _clauses("fewer_ends")),
    End("times", "*", _clauses("times_ends")),
    End("diff", "-", _clauses("difference_ends")),
    End("need", "-", _clauses("need_ends"), is_reversed=True),
)
END_WEIGHTS = (5, 5, 2, 1, 1, 1, 1, 1)
NAMES = "abcdepqrs"


class Draft:
    """An unfinished story: the sentences so far, and the amount that they lead to."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.limit = random.choice((20, 60, 150, 300))
        self.values: dict[str, int] = {}
        self.sentences: list[str] = []
        self.rules: list[Rule] = []
        self.facts: list[Fact] = []
        self.amount = 0

    def number(self, low: int, high: int) -> str:
        """Draw a number of the story and return its name."""
        name = NAMES[len(self.values)]
        self.values[name] = self.random.randint(low, max(low, high))
        return name

    def apply(self, rule: Rule, fact: Fact) -> bool:
        if not is_in_scope(fact):
            return False
        self.rules.append(rule)
        self.facts.append(fact)
        self.amount = fact.value
        return True

    def begin(self) -> bool:
        kind = self.random.choice((0, 0, 1, 2, 2))
        self.sentences.append(self.random.choice(BEGINNINGS[kind]))
        if kind == 0:
            self.amount = self.values[self.number(2, self.limit)]
            return True
        bounds = (self.limit, self.limit) if kind == 1 else (12, 20)
        left, right = self.number(2, bounds[0]), self.number(2, bounds[1])
        operator = "+" if kind == 1 else "*"
        fact = Fact(self.values[left], operator, self.values[right])
        return self.apply(Rule("", left, operator, right, "total" if kind == 1 else "groups"), fact)

    def event(self) -> bool:
        roll = self.random.random()
        if roll < 0.08 and self.amount <= 200:
            self.sentences.append(self.random.choice(DOUBLINGS))
            return self.apply(Rule("", self._here(), "*", "2", "times"), Fact(self.amount, "*", 2))
        if roll < 0.16 and self.amount % 2 == 0:
            self.sentences.append(self.random.choice(HALVINGS))
            return self.apply(Rule("", self._here(), "/", "2", "part"), Fact(self.amount, "/", 2))
        is_gain = roll < 0.55 or self.amount < 4
        here = self._here()
        name = self.number(2, self.limit // 2) if is_gain else self.number(1, self.amount - 1)
        clause = _with_verb(self.random.choice(GAINS if is_gain else LOSSES), self.random)
        self.sentences.append(clause.replace("{q}", f"{{{name}}}"))
        operator = "+" if is_gain else "-"
        fact = Fact(self.amount, operator, self.values[name])
        return self.apply(Rule("", here, operator, name, "gain" if is_gain else "lose"), fact)

    def end(self) -> bool:
        end = self.random.choices(ENDS, END_WEIGHTS)[0]
        here, amount = self._here(), self.amount
        if end.operator == "/":
            divisors = [n for n in range(2, 13) if amount % n == 0 and amount // n > 1]
            if not divisors:
                return False
            name = self.number(2, 2)
            self.values[name] = self.random.choice(divisors)
        elif end.operator == "*":
            name = self.number(2, 9)
        elif end.is_reversed:
            name = self.number(amount + 1, amount + self.limit)
        else:
            name = self.number(1, amount - 1 if end.operator == "-" else self.limit)
        self.sentences.append(self.random.choice(end.clauses).replace("{q}", f"{{{name}}}"))
        left, right = (name, here) if end.is_reversed else (here, name)
        first, second = (self.values[name], amount) if end.is_reversed else (amount, self.values[name])
        return self.apply(Rule("", left, end.operator, right, end.kind), Fact(first, end.operator, second))

    def ask(self) -> bool:
        is_sum = bool(self.rules) and self.rules[-1].kind in ("total", "groups")
        self.sentences.append(self.random.choice(ASK_SUM if is_sum else ASK_AMOUNT))
        return bool(self.rules)

    def _here(self) -> str:
        """The operand that stands for the amount so far: the story's first number until something was computed."""
        return "" if self.rules else "a"


VERBS = {
    "{gains}": _clauses("gain_verbs"),
    "{gained}": _clauses("gain_participles"),
    "{loses}": _clauses("loss_verbs"),
    "{lost}": _clauses("loss_participles"),
}


def _with_verb(clause: str, random: Random) -> str:
    for slot, verbs in VERBS.items():
        if slot in clause:
            clause = clause.replace(slot, random.choice(verbs))
    return clause


def compose(random: Random) -> Problem:
    while True:
        draft = Draft(random)
        is_good = draft.begin()
        for _ in range(random.choice((0, 0, 1, 1, 2, 3))):
            is_good = is_good and draft.event()
        is_good = is_good and (draft.end() if random.random() < 0.5 else draft.ask())
        if not is_good:
            continue
        telling = disturb(reword(" ".join(draft.sentences), random), random)
        question, places = fill(telling, draw_cast(random, invented=INVENTED), draft.values)
        lines = [explain(question, places, rule, fact) for rule, fact in zip(draft.rules, draft.facts, strict=True)]
        return make_problem("composed", question, lines=lines, facts=draft.facts, value=draft.amount)
