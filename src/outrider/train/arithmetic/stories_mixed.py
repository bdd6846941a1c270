"""Training stories of time and measure, and longer ones of three or four steps. Read by `families.parse`."""

STORIES = """
== minutes_in_hours
a 2..12
rate s = a * 60
> There are 60 minutes in an hour. How many minutes are {a} hours?
> A film is {a} hours long. How many minutes is that, with 60 minutes to the hour?

== days_in_weeks
a 2..40
rate s = a * 7
> A week has 7 days. How many days are {a} weeks?
> {A} stays {a} weeks at the {P}. How many days is that?

== weeks_in_days
e 2..30, s = e * 7
pack r = s / 7
> How many weeks are {s} days?
> {A} was away for {s} days. How many weeks is that?

== two_tasks
a 5..90, b 5..90
total s = a + b
> {A} spends {a} minutes on reading and {b} minutes on math. How many minutes is that together?
> The bus takes {a} minutes and the walk takes {b} minutes. How many minutes is the whole way?

== task_left
a 20..240, b 5..200, b < a
left s = a - b
> A film lasts {a} minutes. {A} has seen {b} minutes. How many minutes are left?
> {A} has {a} minutes of time and uses {b}. How many minutes remain?

== there_and_back
a 2..150
times s = a * 2
> The {P} is {a} miles away. {A} goes there and back. How many miles is that?
> {A} swims to the other side, {a} meters away, and back again. How far does {he} swim?

== there_and_back_days
a 2..30, b 2..9
times s = a * 2
rate r = s * b
> The {P} is {a} miles from home. {A} goes there and back on {b} days. How many miles does {he} go?
> {A} walks {a} minutes to the {P} and {a} minutes home. {He} does this {b} times. How many minutes
    does {he} walk?

== cut_rope
b 2..12, e 2..25, s = b * e
pack r = s / b
> {A} cuts a rope of {s} feet into pieces of {b} feet. How many pieces are there?
> A board is {s} inches long. How many parts of {b} inches can be cut from it?

== cut_equal
b 2..12, e 2..25, s = b * e
share r = s / b
> {A} cuts {s} meters of string into {b} equal pieces. How long is each piece?
> A road of {s} miles has {b} equal parts. How many miles is one part?

== rope_used
a 10..200, b 2..150, b < a
left s = a - b
> A rope is {a} feet long. {A} cuts off {b} feet. How many feet are left?
> From {a} liters of water {b} liters are used. How many liters remain?

== weight_together
a 2..150, b 2..150
total s = a + b
> A {m} weighs {a} pounds and a {o} weighs {b} pounds. How many pounds do they weigh together?
> One {k} weighs {a} pounds, another weighs {b}. What do both weigh?

== around
a 2..90, b 2..90
total s = a + b
times r = s * 2
> A garden is {a} meters long and {b} meters wide. How long is the fence around it?
> A field has two sides of {a} meters and two sides of {b} meters. How many meters is it around?

== area
a 2..30, b 2..12
groups s = a * b
> A floor is {a} feet long and {b} feet wide. How many square feet is it?
> {A} lays {a} rows of {b} tiles. How many tiles does {he} lay?

== step_groups_lose_share
a 2..12, b 2..12, c 2..40, d 2..8
groups s = a * b
lose r = s - c
share u = r / d
> {A} has {a} {Ks} of {b} {Fs}. {He} eats {c} and shares the rest equally among {d} {Gs}. How many
    {Fs} does each get?
> There are {a} {Ks} with {b} {Xs} each. {c} are broken, and {d} {Gs} split the others evenly. How
    many {Xs} does each have?

== step_groups_lose_lose
a 2..12, b 2..20, c 2..40, d 2..40
groups s = a * b
lose r = s - c
lose u = r - d
> {A} buys {a} {Ks} with {b} {Fs} each. {He} eats {c} and gives {d} to {B}. How many {Fs} are left?
> {a} {Ks} hold {b} {Xs} each. {A} takes {c} and {B} takes {d}. How many {Xs} remain?

== step_gain_gain_lose
a 2..90, b 2..60, c 2..60, d 2..90
gain s = a + b
gain r = s + c
lose u = r - d
> {A} had {a} {Xs}. {He} got {b} from {B} and {c} from {C}, then lost {d}. How many {Xs} does {he}
    have?
> On {D} {A} picked {a} {Fs}, on {E} {b}, and the next day {c}. The family ate {d}. How many {Fs}
    are left?

== step_together_then_pack
a 5..90, b 5..90, c 2..10
total s = a + b
pack r = s / c
> {A} has {a} {Xs} and {B} has {b}. They put them all in {Ks} of {c}. How many {Ks} do they fill?
> {a} {Gs} and {b} parents ride in cars for {c} people. How many cars do they need?

== step_three_together_share
a 3..60, b 3..60, c 3..60, d 2..9
total s = a + b
total r = s + c
share u = r / d
> {A}, {B} and {C} picked {a}, {b} and {c} {Fs}. They share them equally among {d} {Gs}. How many
    {Fs} does each get?
> There are {a} {V}, {b} {W} and {c} plain {Xs}. They go into {d} {Ks} evenly. How many are in each
    {k}?

== step_more_together_lose
a 3..80, b 2..50, c 2..90
more s = a + b
total r = a + s
lose u = r - c
> {A} has {a} {Xs}. {B} has {b} more. Together they give away {c}. How many {Xs} do they have then?
> {A} picked {a} {Fs} and {B} picked {b} more than {A}. They ate {c} of them. How many {Fs} are
    left?

== step_twice_together_share
a 3..60, b 2..9
times s = a * 2
total r = a + s
share u = r / b
> {A} has {a} {Fs} and {B} has twice as many. They share all of them among {b} {Gs} equally. How
    many {Fs} does each get?
> {A} made {a} {Ys} on {D} and twice as many on {E}. {He} packs them evenly in {b} {Ks}. How many
    are in each {k}?

== step_two_costs_change
a 2..9, b 2..12, c 2..9, d 2..12, e 50..300
cost s = a * b
cost r = c * d
total u = s + r
left z = e - u
> {A} has ${e}. {He} buys {a} {Is} at ${b} each and {c} {Js} at ${d} each. How much money is left?
> {A} pays ${e} for {a} {Is} that cost ${b} each and {c} {Js} that cost ${d} each. How much change
    does {he} get?

== step_week_sales
a 2..30, b 2..7, c 2..12
rate s = a * b
cost r = s * c
> {A} sells {a} {Fs} a day for {b} days. Each costs ${c}. How much money does {he} get?
> Every day {A} makes {a} {Ys} and sells them for ${c} each. How many dollars is that in {b} days?

== step_groups_groups
a 2..9, b 2..9, c 2..9
groups s = a * b
groups r = s * c
> There are {a} {Ks} with {b} {Ls} in each. Every {l} holds {c} {Xs}. How many {Xs} are there?
> {a} classes have {b} tables each, and {c} {Gs} sit at each table. How many {Gs} is that?

== step_save_minus_price
a 2..12, b 3..30, c 2..40, d 5..90
rate s = a * b
gain r = s + c
lose u = r - d
> {A} saves ${b} a week for {a} weeks and gets ${c} from {B}. Then {he} buys a {i} for ${d}. How
    much is left?
> {A} works {a} hours for ${b} an hour and is given ${c} extra. {He} spends ${d}. How many dollars
    does {he} keep?

== step_half_then_share
e 4..60, s = e * 2, b 2..8
part r = s / 2
share u = r / b
> {A} keeps half of {s} {Xs} and shares the other half equally among {b} {Gs}. How many {Xs} does
    each get?
> Half of {s} {Fs} are sold. The rest go into {b} {Ks} evenly. How many {Fs} are in one {k}?

== step_third_rest_lose
e 4..50, s = e * 3, c 2..60
part r = s / 3
left u = s - r
lose z = u - c
> {A} has {s} {Xs}. {He} gives a third to {B} and then {c} to {C}. How many {Xs} does {A} have?
> One third of {s} {Gs} went home, and later {c} more went. How many {Gs} are still there?

== step_share_then_groups
b 2..9, e 2..15, s = b * e, c 2..9
share r = s / b
rate u = r * c
> {b} {Ks} hold {s} {Xs} in all, the same in each. How many {Xs} do {c} such {Ks} hold?
> {b} {Is} cost ${s}. How much do {c} {Is} cost at the same price?
> A machine makes {s} {Ys} in {b} hours. How many does it make in {c} hours?

== step_fewer_twice
a 6..90, b 2..40, b < a
fewer s = a - b
times r = s * 2
> {A} has {a} {Xs}. {B} has {b} fewer, and {C} has twice as many as {B}. How many {Xs} does {C}
    have?
> {B} is {b} years younger than {A}, who is {a}. {C} is twice as old as {B}. How old is {C}?

== step_more_times
a 2..40, b 2..30, c 2..5
more s = a + b
times r = s * c
> {A} has {a} {Fs}, {B} has {b} more than {A}, and {C} has {c} times as many as {B}. How many {Fs}
    does {C} have?

== step_double_lose_double
a 3..60, b 2..50
times s = a * 2
lose r = s - b
times u = r * 2
> {A} doubles {his} {a} {Xs}, gives away {b} and doubles what is left. How many {Xs} does {he} have?

== step_bus
a 10..90, b 2..40, c 2..40, d 2..40
lose s = a - b
gain r = s + c
lose u = r - d
> A train has {a} people. {b} get off and {c} get on. Then {d} get off. How many people are on the
    train?
> There were {a} {Ms} in the field. {b} went away, {c} came back, and {d} went away again. How many
    {Ms} are there?

== step_four_days
a 5..60, b 2..20, c 2..20
more s = a + b
more r = s + c
total u = a + s
total z = u + r
> {A} read {a} pages on {D}. The next day {he} read {b} pages more, and the day after {c} more than
    that. How many pages did {he} read in all?

== step_two_groups_lose
a 2..12, b 2..12, c 2..12, d 2..12, e 2..60
groups s = a * b
groups r = c * d
total u = s + r
lose z = u - e
> {A} has {a} {Ks} of {b} {Xs} and {c} {Ls} of {d} {Xs}. {He} gives {e} to {B}. How many {Xs} are
    left?
> A hall has {a} rows of {b} seats and {c} rows of {d} seats. {e} seats are taken. How many are
    free?

== step_two_groups_share
a 2..12, b 2..12, c 2..12, d 2..12, e 2..9
groups s = a * b
groups r = c * d
total u = s + r
share z = u / e
> {A} has {a} {Ks} of {b} {Fs} and {c} {Ls} of {d} {Fs}. {e} {Gs} share them equally. How many {Fs}
    does each get?

== step_earn_two
a 2..9, b 5..30, c 2..9, d 5..30
rate s = a * b
rate r = c * d
total u = s + r
> {A} works {a} hours at ${b} an hour and {c} hours at ${d} an hour. How much does {he} earn?
> {A} rides {a} hours at {b} miles an hour and {c} hours at {d} miles an hour. How many miles is
    that?

== step_diff_of_groups
a 2..12, b 2..15, c 2..12, d 2..15
groups s = a * b
groups r = c * d
diff u = s - r
> {A} has {a} {Ks} of {b} {Xs}. {B} has {c} {Ks} of {d} {Xs}. How many more {Xs} does {A} have?
> {A} sells {a} {Is} at ${b} each and {B} sells {c} at ${d} each. How many dollars more does {A}
    get?
"""
