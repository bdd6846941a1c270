"""The names and nouns that a story's slots are filled with. Knows nothing of numbers or steps."""

from random import Random

from outrider_recipe.arithmetic.lists import read_lines, read_words


def _entries(pool: str) -> list[tuple[str, str]]:
    pairs = []
    for word in read_words("words.txt", f"pool_{pool}"):
        singular, _, plural = word.replace("_", " ").partition("/")
        pairs.append((singular, plural or f"{singular}s"))
    return pairs


POOLS = "xfmkgiutpdv"  # one letter for each kind of noun; words.txt says which
NOUNS = {pool: _entries(pool) for pool in POOLS}
PEOPLE = [(name, pronoun) for pronoun in ("he", "she") for name in read_words("words.txt", pronoun)]
SCENES = read_lines("clauses.txt", "scenes")
INVENTED = 0.4  # of the names and nouns of a training story are made up, so that none is needed to understand it
MIXED = 0.3  # of the training stories are not of things but of food, animals, people, goods or measures
_ONSETS, _MIDDLES, _ENDS = (read_words("words.txt", name) for name in ("onsets", "middles", "ends"))


def invent(random: Random) -> str:
    """Make up a word."""
    word = random.choice(_ONSETS) + random.choice(_MIDDLES)
    if random.random() < 0.6:
        word += random.choice("bdfglmnprstvz") + random.choice("aeiou")
    return word + random.choice(_ENDS)


def draw_cast(random: Random, *, invented: float = 0.0) -> dict[str, str]:
    """Fill every slot once: {x} is singular, {Xs} plural; slots of one pool (x and y, D and E, ...) differ."""
    cast: dict[str, str] = {}
    chosen = random.sample(PEOPLE, 3)
    for slot, (name, _) in zip("ABC", chosen, strict=True):
        cast[slot] = invent(random).capitalize() if random.random() < invented else name
    masculine = chosen[0][1] == "he"
    cast["he"], cast["his"], cast["him"] = ("he", "his", "him") if masculine else ("she", "her", "her")
    cast["He"], cast["His"] = cast["he"].capitalize(), cast["his"].capitalize()
    for slots, pool in (("xy", "x"), ("fn", "f"), ("mo", "m"), ("kl", "k"), ("g", "g"), ("ij", "i"), ("t", "t")):
        for slot, (singular, plural) in zip(slots, random.sample(NOUNS[pool], len(slots)), strict=True):
            if pool != "t" and random.random() < invented:
                singular = invent(random)
                plural = f"{singular}s"
            cast[slot], cast[f"{slot.upper()}s"] = singular, plural
    if invented and random.random() < MIXED:  # in training, things may be anything that can be counted
        singular, plural = random.choice(NOUNS[random.choice("fmigu")])
        cast["x"], cast["Xs"] = singular, plural
    for slots, pool in (("P", "p"), ("DE", "d"), ("VW", "v")):
        for slot, (word, _) in zip(slots, random.sample(NOUNS[pool], len(slots)), strict=True):
            cast[slot] = word
    return cast


SLOTS = frozenset(draw_cast(Random(0)))  # names that numbers may not have
