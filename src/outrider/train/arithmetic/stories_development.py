"""Stories on which the recipe was chosen while they were held out; the last leg of training has them, too."""

STORIES = """
== development_library
a 30..300, b 5..90, c 5..90
lose s = a - b
gain r = s + c
> The school library owns {a} books about space. On {D} the class borrows {b} of these books. On {E}
    the class brings back {c} books. How many space books are on the shelf?
> A shelf has {a} comics. Readers take home {b} comics and later return {c}. How many comics are on
    the shelf now?

== development_aquarium
a 3..60, b 3..60, c 3..60
total s = a + b
total r = s + c
> An aquarium has {a} clownfish, {b} sea horses and {c} starfish. How many sea animals live in the
    aquarium?
> {A} counts {a} gulls, {b} crabs and {c} seals at the harbor. What is the number of animals that
    {he} counts?

== development_necklace
a 2..12, b 5..40
groups s = a * b
> {A} strings necklaces for a craft fair. One necklace takes {b} pearls. How many pearls go into {a}
    necklaces?
> Every bracelet is made with {b} tiny stars. {A} makes {a} bracelets. How many tiny stars does {he}
    use?

== development_eggs
b 6..12, e 2..20, s = b * e
pack r = s / b
> The farmer gathers {s} eggs before breakfast. One carton has room for {b} eggs. How many cartons
    can the farmer fill?
> {s} tulips are tied in bunches, {b} tulips to a bunch. How many bunches does {A} tie?

== development_elevator
a 6..40, b 2..20, c 2..20, b < a
lose s = a - b
gain r = s + c
> {a} people ride the elevator. At the third floor {b} people step out and {c} step in. How many
    people ride the elevator now?
> A ferry starts with {a} passengers. At the island {b} passengers leave the ferry and {c} climb
    aboard. How many passengers does it carry now?

== development_pizza
b 2..8, e 2..12, s = b * e
share r = s / b
> A giant pizza is sliced into {s} pieces. {b} hungry campers divide the pieces so that everybody
    has the same. How many pieces does every camper eat?
> The coach hands out {s} water bottles to {b} runners. Every runner gets the same number. How many
    bottles does a runner get?

== development_concert
a 5..20, b 10..30, c 5..90
groups s = a * b
left r = s - c
> A small theater has {a} rows, and every row has {b} seats. Tonight {c} people sit in the theater.
    How many seats stay empty?
> {A} prints {a} sheets with {b} labels on every sheet. {He} uses {c} labels for the school play.
    How many labels are left over?

== development_marathon
a 2..20, b 2..10
more s = a + b
total r = a + s
> {A} trains for a race. On {D} {he} runs {a} miles, and on {E} {he} runs {b} miles more than on
    {D}. How many miles does {he} run on both days together?
> The red team scores {a} points. The green team scores {b} points more than the red team. How many
    points do the teams score together?

== development_paint
a 2..9, b 5..20, c 10..60
cost s = a * b
gain r = s + c
> {A} paints the kitchen. {He} needs {a} cans of paint that cost ${b} each, and a ladder for ${c}.
    How many dollars does {he} need?
> A zoo ticket is ${b}. {A} pays for {a} tickets and also pays ${c} for parking. How much does {he}
    pay altogether?

== development_tank
a 50..300, b 5..40, c 2..7
rate s = b * c
left r = a - s
> A water tank holds {a} liters. A family uses {b} liters every day. How many liters are in the tank
    after {c} days?
> A puzzle has {a} pieces. {A} fits {b} pieces every evening. How many pieces are missing after {c}
    evenings?

== development_orchard
a 3..12, b 4..20, c 2..9
groups s = a * b
share r = s / c
> {a} trees in the orchard give {b} kilos of fruit each. The fruit is loaded evenly onto {c} carts.
    How many kilos are on each cart?
> {A} has {a} albums with {b} pictures each. {He} moves all the pictures into {c} new albums, the
    same number in each. How many pictures are in a new album?

== development_ages
a 5..40
times s = a * 2
> {A} is {a} years old. {His} uncle is twice as old. How old is the uncle?
> A puppy weighs {a} kilos. Its mother weighs two times as much. What is the weight of the mother in
    kilos?

== development_budget
a 100..400, b 10..120, c 10..120
lose s = a - b
lose r = s - c
> The chess club has ${a}. It pays ${b} for new boards and ${c} for a trip. How many dollars does
    the club still have?
> A truck carries {a} parcels. The driver delivers {b} parcels before lunch and {c} after lunch. How
    many parcels are still in the truck?

== development_bakery
a 2..12, b 3..12, c 2..40, d 2..8
groups s = a * b
lose r = s - c
share u = r / d
> A cook bakes {a} sheets of rolls with {b} rolls on each sheet. {c} rolls are served at lunch. The
    other rolls are divided equally over {d} baskets. How many rolls are in each basket?
> {A} owns {a} sets of {b} chess pieces. {c} pieces are missing, and {he} sorts the others into {d}
    equal piles. How many pieces are in each pile?

== development_garden
a 3..12, b 3..15, c 3..12, d 3..15
groups s = a * b
groups r = c * d
total u = s + r
> A gardener plants {a} beds with {b} roses each and {c} beds with {d} lilies each. How many flowers
    does the gardener plant?
> A hotel has {a} floors with {b} rooms on each floor, and a second house with {c} floors and {d}
    rooms on each floor. How many rooms are there in both houses?

== development_fund
a 2..9, b 3..15, c 2..9, d 3..15, e 60..400
cost s = a * b
cost r = c * d
total u = s + r
left z = e - u
> The art teacher has ${e}. She orders {a} sets of paint at ${b} each and {c} rolls of paper at ${d}
    each. How many dollars are left in the budget?
> {A} goes to the bookstore with ${e} and buys {a} novels for ${b} each and {c} comics for ${d}
    each. How much money does {he} bring home?
"""
