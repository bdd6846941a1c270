"""Stories that are never trained on and whose errors were not looked at: the last word on a trained model."""

STORIES = """
== heldout_bridge
a 10..120, b 5..90, c 5..60
total s = a + b
lose r = s - c
> In the morning {a} cars cross the bridge, and in the afternoon {b} cars cross it. {c} of all these
    cars are red. How many of the cars are not red?
> A shepherd counts {a} white lambs and {b} black lambs. Later {c} lambs are led away to another
    meadow. How many lambs stay behind?

== heldout_candles
a 2..12, b 3..15, c 5..50
groups s = a * b
left r = s - c
> {A} decorates {a} cakes and puts {b} candles on every cake. {c} candles have burned down. How many
    candles are still burning?
> The gym has {a} racks with {b} balls on each. The team takes {c} balls outside. How many balls
    remain in the gym?

== heldout_postman
a 40..300, b 10..120, c 10..120
lose s = a - b
lose r = s - c
> A postman starts the day with {a} letters. He delivers {b} letters on the first street and {c}
    letters on the second street. How many letters are still in his bag?
> The phone of {A} has room for {a} photos. {He} takes {b} photos at the wedding and {c} photos at
    the lake. How many more photos can {he} take?

== heldout_soup
b 2..10, e 3..15, s = b * e
share r = s / b
> {A} pours {s} liters of soup evenly into {b} pots. How many liters of soup are in every pot?
> {s} chairs are set up in {b} equal rows. How many chairs stand in a row?

== heldout_sheets
b 2..12, e 3..20, s = b * e
pack r = s / b
> A teacher has {s} sheets of paper and gives {b} sheets to every child. How many children get
    paper?
> {A} glues stars on cards, {b} stars on each card. {He} uses {s} stars. How many cards does {he}
    make?

== heldout_boat
a 2..12, b 3..40
rate s = a * b
> A boat carries {b} people on every trip. It makes {a} trips. How many people does it carry in all?
> {A} does {b} jumps every minute. How many jumps does {he} do in {a} minutes?

== heldout_tower
a 20..200, b 5..80
fewer s = a - b
total r = a + s
> A tower is {a} meters high. The hall next to it is {b} meters lower. How many meters are the tower
    and the hall together?
> {A} sold {a} tickets. {B} sold {b} tickets fewer than {A}. How many tickets did both of them sell?

== heldout_twins
a 3..40, b 2..30
times s = a * 2
more r = s + b
> {A} swims {a} laps. {B} swims twice as many laps and then {b} laps more. How many laps does {B}
    swim?
> There are {a} pears on the small tree. The big tree has double that number plus {b}. How many
    pears does the big tree have?

== heldout_gap
a 20..300, b 5..200, b < a
diff s = a - b
> The old road is {a} kilometers long. The new road is only {b} kilometers long. How many kilometers
    shorter is the new road?
> {A} scored {a} points in the game and {B} scored {b}. By how many points did {A} win?

== heldout_picnic
a 2..9, b 2..15, c 2..9, d 2..15
cost s = a * b
cost r = c * d
total u = s + r
> For a picnic {A} buys {a} salads at ${b} each and {c} drinks at ${d} each. How many dollars does
    the picnic cost?
> A painter sells {a} small pictures for ${b} each and {c} large pictures for ${d} each. How much
    money does the painter receive?

== heldout_bike
a 60..300, b 10..90, c 2..9, d 5..20
lose s = a - b
rate r = c * d
left u = s - r
> A bike costs ${a}, but today the price is ${b} lower. {A} has saved ${d} a week for {c} weeks. How
    many dollars are missing?
> {A} has a roll of {a} meters of wire. {b} meters are rusty and thrown out. Then {he} cuts off {c}
    pieces of {d} meters. How many meters of good wire are left?

== heldout_nests
a 2..12, b 2..9, c 2..40
groups s = a * b
lose r = s - c
> There are {a} nests in the old barn with {b} chicks in each. {c} chicks have learned to fly and
    are gone. How many chicks are still in the barn?
> {A} fills {a} shelves with {b} jars of jam each. By spring {c} jars have been opened. How many
    jars are still closed?

== heldout_camp
a 10..90, b 10..90, c 2..9
total s = a + b
share r = s / c
> {a} girls and {b} boys come to the camp. They sleep in {c} tents, with the same number in each
    tent. How many sleep in one tent?
> {A} and {B} earn ${a} and ${b} by washing cars. Together with some others they split the money
    evenly, {c} people in all. How many dollars does each person get?

== heldout_saplings
a 10..150, b 5..60, c 5..60
gain s = a + b
gain r = s + c
> A park has {a} trees. In spring {b} saplings are planted, and in autumn {c} more. How many trees
    does the park have then?
> {A} knows {a} words of Spanish. In May {he} learns {b} new words and in June {c} new words. How
    many words does {he} know now?

== heldout_halves
e 5..80, s = e * 2, b 2..40, b < e
part r = s / 2
lose u = r - b
> {A} fills a jug with {s} cups of tea. Half of the tea is drunk at breakfast, and {b} cups are
    drunk later. How many cups are left in the jug?
> A rope of {s} meters is cut in half. From one half {A} cuts away {b} meters. How many meters long
    is that piece now?

== heldout_factory
a 5..40, b 2..7, c 5..80, d 2..9
rate s = a * b
lose r = s - c
share u = r / d
> A workshop builds {a} chairs a day for {b} days. {c} chairs are sold at once. The rest are stored
    in {d} rooms, the same number in each. How many chairs are in every room?
> {A} picks {a} kilos of beans a day for {b} days, keeps {c} kilos, and divides the rest evenly
    among {d} neighbors. How many kilos does every neighbor get?
"""
