"""The names and nouns that a story's slots are filled with. Knows nothing of numbers or steps."""

from __future__ import annotations

from random import Random

SHE = """
Anna Maya Lily Emma Zoe Nora Ruth Clara Ivy Elena Grace Hana Ines Julia Kira Leila Mona Nina Olga Priya Rosa Sara
Tara Uma Vera Wendy Yara Amara Bella Dina Esther Freya Gina Holly Isla Jade Karen Laura Mary Naomi Pia Rita Sofia
Tina Alice Carla Diana Eva Fatima Helga Irene Joan Kate Linda Mira Nadia Petra Rachel Susan Teresa Violet
"""
HE = """
Tom Ben Sam Leo Max Omar Paul Raj Hugo Ian Jack Karl Liam Noah Oscar Peter Quinn Ravi Simon Theo Victor Will Yusuf
Adam Boris Carlos David Eric Felix George Henry Ivan James Kevin Luis Mark Nils Otto Ryan Tim Anton Bruno Colin Dan
Emil Frank Gus Hans Igor Joel Kurt Lars Milo Nick Owen Pablo Rolf Stan Toni Uwe Vince Walter
"""

# Each noun is written once, as singular/plural; a plain word takes an s. An underscore stands for a blank.
POOLS = {
    # things one owns and counts
    "x": """
marble sticker stamp book pencil card coin button shell stone bead crayon ball toy balloon candle ribbon badge magnet
postcard brick notebook pen puzzle photo key block bottle feather kite ticket poster brush/brushes cup plate spoon
leaf/leaves map bolt screw nail flower rose basket glass/glasses cap scarf/scarves ring pebble medal doll drum flag
needle rope sock shoe shirt towel pillow blanket lamp clock mirror comic magazine letter envelope folder paper_plane
toy_car trading_card bracelet necklace pot pan bowl fork knife/knives tile board stick log wheel tire tool hammer
painting drawing record disc coupon token chip tray vase seed bulb seashell acorn pine_cone
""",
    # things one eats and counts
    "f": """
apple cookie orange egg pear muffin cupcake grape peach/peaches banana plum sandwich/sandwiches cherry/cherries
candy/candies carrot tomato/tomatoes potato/potatoes lemon bun pancake walnut strawberry/strawberries pretzel cracker
mango/mangoes melon onion pie donut waffle brownie cake roll bagel biscuit dumpling meatball sausage burger pizza
olive radish/radishes pepper cucumber pumpkin turnip bean nut almond peanut fig date kiwi apricot berry/berries
chocolate_bar lollipop ice_cream_cone slice_of_bread/slices_of_bread pea
""",
    # living things
    "m": """
duck hen cow sheep/sheep goat horse rabbit bird frog cat dog pig goose/geese fish/fish turtle bee pigeon mouse/mice
donkey pony/ponies lamb calf/calves chicken rooster turkey swan owl crow sparrow squirrel hamster lizard snail ant
butterfly/butterflies beetle spider deer/deer fox/foxes bear wolf/wolves monkey parrot camel llama
""",
    # what holds things
    "k": """
box/boxes bag basket crate jar tray drawer pack carton bucket case sack tin bin packet shelf/shelves can barrel chest
bowl pouch/pouches suitcase container cabinet locker pocket rack pile stack bundle album folder
""",
    # groups of people
    "g": """
friend student child/children player worker cousin guest neighbor sister brother helper visitor teacher boy girl
farmer nurse dancer singer camper pupil classmate uncle scout tourist customer passenger swimmer runner artist cook
driver actor soldier sailor
""",
    # what one buys
    "i": """
hat shirt toy_car mug scarf/scarves lamp book game notebook plant cake sandwich/sandwiches ticket ball doll belt pizza
pen cushion bottle_of_juice/bottles_of_juice kite towel jacket coat dress/dresses sweater skirt tie watch/watches
backpack umbrella chair table clock radio phone camera bike skateboard racket helmet glove/gloves toy_train puzzle
poster magazine album guitar flute drum_set painting vase pot pan knife/knives blanket pillow rug basket
""",
    # measures and the like, which are counted as things are
    "u": """
liter_of_milk/liters_of_milk liter_of_water/liters_of_water kilo_of_rice/kilos_of_rice kilo_of_sugar/kilos_of_sugar
meter_of_rope/meters_of_rope meter_of_cloth/meters_of_cloth pound_of_flour/pounds_of_flour cup_of_tea/cups_of_tea
bag_of_sand/bags_of_sand ton_of_coal/tons_of_coal gallon_of_paint/gallons_of_paint spoon_of_salt/spoons_of_salt
page minute hour dollar mile point word line song step seat room question picture inch/inches gram
""",
    # how long things take
    "t": "day week hour month",
    "p": """
shop market fair museum school library park beach farm garden bakery kitchen club station playground town_hall street
village camp office store mall zoo harbor church hotel theater stadium gym pool lake forest river house barn yard
classroom hospital airport castle cafe
""",
    "d": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "v": """
red blue green yellow white black pink purple orange brown silver gold gray striped round square small big new
""",
}
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
    pairs = []
    for word in POOLS[pool].split():
        singular, _, plural = word.replace("_", " ").partition("/")
        pairs.append((singular, plural or f"{singular}s"))
    return pairs


NOUNS = {pool: _entries(pool) for pool in POOLS}
PEOPLE = [(name, "he") for name in HE.split()] + [(name, "she") for name in SHE.split()]
INVENTED = 0.4  # of the names and nouns of a training story are made up, so that none is needed to understand it
MIXED = 0.3  # of the training stories are not of things but of food, animals, people, goods or measures
_ONSETS = [
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sh",
    "sk",
    "sl",
    "sn",
    "sp",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "z",
]
_MIDDLES = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "oa", "oo", "ou"]
_ENDS = ["b", "d", "ck", "g", "l", "m", "mp", "n", "nd", "nk", "nt", "p", "rd", "rk", "rn", "rt", "t", "th", "x"]


def invent(random: Random) -> str:
    """A word that nobody knows."""
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
