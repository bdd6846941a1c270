"""The names and nouns that a story's slots are filled with. Knows nothing of numbers or steps."""

from __future__ import annotations

from random import Random

SHE = (
    "Anna Maya Lily Emma Zoe Nora Ruth Clara Ivy Elena Grace Hana Ines Julia Kira Leila Mona Nina Olga Priya Rosa "
    "Sara Tara Uma Vera Wendy Yara Amara Bella Dina Esther Freya Gina Holly Isla Jade Karen Laura Mary Naomi"
).split()
HE = (
    "Tom Ben Sam Leo Max Omar Paul Raj Hugo Ian Jack Karl Liam Noah Oscar Peter Quinn Ravi Simon Theo Victor Will "
    "Yusuf Adam Boris Carlos David Eric Felix George Henry Ivan James Kevin Luis Mark Nils Otto Ryan Tim"
).split()

# Each noun is written once, as singular/plural.
POOLS: dict[str, str] = {
    # things one owns and counts
    "x": "marble/marbles sticker/stickers stamp/stamps book/books pencil/pencils card/cards coin/coins button/buttons "
    "shell/shells stone/stones bead/beads crayon/crayons ball/balls toy/toys balloon/balloons candle/candles "
    "ribbon/ribbons badge/badges magnet/magnets postcard/postcards brick/bricks notebook/notebooks pen/pens "
    "puzzle/puzzles photo/photos key/keys block/blocks bottle/bottles feather/feathers kite/kites "
    "ticket/tickets poster/posters brush/brushes cup/cups plate/plates spoon/spoons leaf/leaves map/maps",
    # things one eats and counts
    "f": "apple/apples cookie/cookies orange/oranges egg/eggs pear/pears muffin/muffins cupcake/cupcakes grape/grapes "
    "peach/peaches banana/bananas plum/plums sandwich/sandwiches cherry/cherries candy/candies carrot/carrots "
    "tomato/tomatoes potato/potatoes lemon/lemons bun/buns pancake/pancakes walnut/walnuts strawberry/strawberries "
    "pretzel/pretzels cracker/crackers mango/mangoes melon/melons onion/onions pie/pies",
    # living things
    "m": "duck/ducks hen/hens cow/cows sheep/sheep goat/goats horse/horses rabbit/rabbits bird/birds frog/frogs "
    "cat/cats dog/dogs pig/pigs goose/geese fish/fish turtle/turtles bee/bees pigeon/pigeons mouse/mice",
    # what holds things
    "k": "box/boxes bag/bags basket/baskets crate/crates jar/jars tray/trays drawer/drawers pack/packs carton/cartons "
    "bucket/buckets case/cases sack/sacks tin/tins bin/bins packet/packets",
    # groups of people
    "g": "friend/friends student/students child/children player/players worker/workers cousin/cousins guest/guests "
    "neighbor/neighbors sister/sisters brother/brothers helper/helpers visitor/visitors teacher/teachers",
    # what one buys
    "i": "hat/hats shirt/shirts toy car/toy cars mug/mugs scarf/scarves lamp/lamps book/books game/games "
    "notebook/notebooks plant/plants cake/cakes sandwich/sandwiches ticket/tickets ball/balls doll/dolls belt/belts "
    "pizza/pizzas pen/pens cushion/cushions bottle of juice/bottles of juice kite/kites towel/towels",
    # how long things take
    "t": "day/days week/weeks hour/hours month/months",
    "p": "shop market fair museum school library park beach farm garden bakery kitchen club station playground "
    "town hall street village camp office",
    "d": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "v": "red blue green yellow white black pink purple orange brown silver gold",
}
MULTIWORD = ("toy car", "toy cars", "bottle of juice", "bottles of juice", "town hall")

# A sentence that changes nothing, put before some stories.
SCENES = (
    "It is {D} morning.",
    "It is a sunny day.",
    "It rained all night.",
    "School is over for the day.",
    "{B} is watching.",
    "{A} likes to keep count.",
    "The {P} is busy on {D}.",
    "{A} and {B} are good friends.",
    "Everyone is at the {P}.",
    "On {D} there is no school.",
    "{B} tells {A} a story.",
    "The weather is cold.",
)


def _entries(pool: str) -> list[tuple[str, str]]:
    text = POOLS[pool]
    for index, phrase in enumerate(MULTIWORD):
        text = text.replace(phrase, f"\x00{index}\x00")
    pairs = []
    for word in text.split():
        singular, _, plural = word.partition("/")
        pairs.append((_restore(singular), _restore(plural or singular)))
    return pairs


def _restore(word: str) -> str:
    for index, phrase in enumerate(MULTIWORD):
        word = word.replace(f"\x00{index}\x00", phrase)
    return word


NOUNS = {pool: _entries(pool) for pool in POOLS}


def draw_cast(random: Random) -> dict[str, str]:
    """Fill every slot once: {x} is singular, {Xs} plural; slots of one pool (x and y, D and E, ...) differ."""
    cast: dict[str, str] = {}
    chosen = random.sample([(name, "he") for name in HE] + [(name, "she") for name in SHE], 3)
    for slot, (name, _) in zip("ABC", chosen, strict=True):
        cast[slot] = name
    masculine = chosen[0][1] == "he"
    cast["he"], cast["his"], cast["him"] = ("he", "his", "him") if masculine else ("she", "her", "her")
    cast["He"], cast["His"] = cast["he"].capitalize(), cast["his"].capitalize()
    for slots, pool in (("xy", "x"), ("fn", "f"), ("mo", "m"), ("kl", "k"), ("g", "g"), ("ij", "i"), ("t", "t")):
        for slot, (singular, plural) in zip(slots, random.sample(NOUNS[pool], len(slots)), strict=True):
            cast[slot], cast[slot.upper() + "s"] = singular, plural
    for slots, pool in (("P", "p"), ("DE", "d"), ("VW", "v")):
        for slot, (word, _) in zip(slots, random.sample(NOUNS[pool], len(slots)), strict=True):
            cast[slot] = word
    return cast
