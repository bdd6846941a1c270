"""Training stories by shape: each part has many alternatives, and every combination is a story."""

STORIES = """
== shape_rate_then_count
a 2..12, b 2..40
groups s = a * b
1> One {k} takes {b} {Xs}.
1> Every {k} is made of {b} {Xs}.
1> {A} puts {b} {Xs} into one {k}.
1> A {k} has {b} {Xs}.
1> In a {k} there are {b} {Xs}.
1> {A} needs {b} {Xs} for a single {k}.
1> {b} {Xs} belong to each {k}.
1> {A} likes {Ks}. For one {k} {he} uses {b} {Xs}.
1> Each {k} comes with {b} {Xs}.
1> {A} works at the {P}. {He} fills every {k} with {b} {Xs}.
2> How many {Xs} are in {a} {Ks}?
2> How many {Xs} does {A} need for {a} {Ks}?
2> How many {Xs} go into {a} {Ks}?
2> {A} makes {a} {Ks}. How many {Xs} does {he} use?
2> {A} has {a} such {Ks}. How many {Xs} is that?
2> There are {a} {Ks}. How many {Xs} are there?
2> {B} wants {a} of them. How many {Xs} are needed?
2> Now {a} {Ks} are ready. How many {Xs} do they hold together?

== shape_count_then_rate
a 2..12, b 2..40
groups s = a * b
1> {A} prepares {a} {Ks}.
1> There are {a} {Ks} in the {P}.
1> {a} {Gs} come to the {P}.
1> {A} invites {a} {Gs}.
1> The {P} has {a} {Ks}.
1> {a} {Ks} stand in a row.
1> {A} brings {a} {Ks}.
2> Each one gets {b} {Xs}. How many {Xs} is that?
2> {b} {Xs} go to every one. How many {Xs} are used?
2> Every one of them has {b} {Xs}. How many {Xs} are there in all?
2> For each {he} takes {b} {Xs}. How many {Xs} does {he} take?
2> With each of them come {b} {Xs}. How many {Xs} come?
2> One of them needs {b} {Xs}. How many {Xs} do all of them need?

== shape_use_up
a 40..300, b 2..40, c 2..9
rate s = b * c
left r = a - s
1> A {k} holds {a} {Xs}.
1> {A} has {a} {Xs}.
1> There are {a} {Xs} in the {P}.
1> A {g} owns {a} {Xs}.
1> The {P} has got {a} {Xs}.
1> {A} begins with {a} {Xs}.
2> {A} uses {b} {Xs} every day.
2> Each day {b} {Xs} are sold.
2> {b} {Xs} are taken out every hour.
2> {A} gives away {b} {Xs} each week.
2> Every evening {A} finishes {b} {Xs}.
2> The {Gs} need {b} {Xs} a day.
2> {b} {Xs} are lost each night.
3> How many {Xs} are left after {c} of these times?
3> How many {Xs} are there after {c} days?
3> This goes on {c} times. How many {Xs} remain?
3> How many {Xs} remain after {c} weeks?
3> What is left after {c} evenings?
3> After {c} days, how many {Xs} are still there?
3> How many {Xs} are not used after {c} hours?

== shape_product_and_one
a 2..9, b 2..25, c 2..90
cost s = a * b
gain r = s + c
1> {A} buys {a} {Is} that cost ${b} each
1> {A} orders {a} {Is} at ${b} each
1> {A} needs {a} {Is} for ${b} apiece
1> {A} pays ${b} for each of {a} {Is}
1> {A} takes {a} {Is}, ${b} each,
1> At the {P} {A} gets {a} {Is} for ${b} each
2> and a {j} for ${c}.
2> and also a {j} that costs ${c}.
2> and pays ${c} for a {j}.
2> and one {j} at ${c}.
2> and ${c} more for the ride home.
3> How much does {he} pay in all?
3> How many dollars does {he} need?
3> How much money is that?
3> What does everything cost?
3> How many dollars does {he} spend altogether?

== shape_price_then_count_and_one
a 2..9, b 2..25, c 2..90
cost s = a * b
gain r = s + c
1> A {i} costs ${b}.
1> The price of one {i} is ${b}.
1> One {i} is ${b}.
1> At the {P} a {i} is sold for ${b}.
2> {A} buys {a} of them and pays ${c} for a {j}.
2> {A} gets {a} {Is} and a {j} for ${c}.
2> {A} takes {a} and adds a {j} that costs ${c}.
2> {A} pays for {a} {Is} and gives ${c} to {B}.
2> {A} wants {a} {Is}, and sending them costs ${c} more.
3> How much does {he} pay altogether?
3> How many dollars is that in all?
3> How much money does {he} spend?
3> What is the whole sum?

== shape_two_products
a 2..12, b 2..15, c 2..12, d 2..15
groups s = a * b
groups r = c * d
total u = s + r
1> {A} has {a} {Ks} with {b} {Xs} each
1> There are {a} {Ks} with {b} {Xs} in each
1> {A} fills {a} {Ks} with {b} {Xs} each
1> {a} {Gs} bring {b} {Xs} each
1> {A} sets {a} rows of {b} {Xs}
1> The first {P} has {a} {Ks} of {b} {Xs} each
1> On {D} {A} loads {a} {Ks} with {b} {Xs} in every one
2> and {c} {Ls} with {d} {Xs} each.
2> and {c} {Ls} with {d} {Xs} in each {l}.
2> and then {c} {Ls} of {d} {Xs}.
2> and {c} more {Ls} with {d} {Xs} in every one.
2> and beside them {c} {Ls} that hold {d} {Xs} each.
3> How many {Xs} are there in all?
3> How many {Xs} is that altogether?
3> What is the total number of {Xs}?
3> How many {Xs} does that make?
3> How many {Xs} are there in both kinds together?

== shape_budget_product
a 2..9, b 2..30, c 30..300
cost s = a * b
left r = c - s
1> {A} has ${c}.
1> {A} goes to the {P} with ${c}.
1> The {g} has ${c} to spend.
1> {A} earned ${c}.
1> There is ${c} in the {k} of {A}.
2> {He} buys {a} {Is} for ${b} each.
2> {He} pays for {a} {Is} that cost ${b} each.
2> {He} takes {a} {Is} at ${b} each.
2> {He} orders {a} {Is}, and every one costs ${b}.
2> {He} gives ${b} to each of {a} {Gs}.
3> How much money is left?
3> How many dollars does {he} still have?
3> How much does {he} bring home?
3> How many dollars remain?
3> What is left of the money?

== shape_budget_two_products
a 2..9, b 2..15, c 2..9, d 2..15, e 60..400
cost s = a * b
cost r = c * d
total u = s + r
left z = e - u
1> {A} has ${e}.
1> {A} goes to the {P} with ${e}.
1> The {g} has ${e} to spend.
1> {A} takes ${e} out of the {k}.
2> {He} buys {a} {Is} for ${b} each and {c} {Js} for ${d} each.
2> {He} orders {a} {Is} at ${b} each and {c} {Js} at ${d} each.
2> {He} pays for {a} {Is} that cost ${b} each and for {c} {Js} that cost ${d} each.
2> {He} gets {a} {Is}, ${b} each, and {c} {Js}, ${d} each.
2> {a} {Is} cost {him} ${b} each, and {c} {Js} cost {him} ${d} each.
3> How much money is left?
3> How many dollars does {he} have in the end?
3> How many dollars are left over?
3> How much money does {he} take home?
3> What remains of the money?

== shape_more_together
a 2..120, b 2..60
more s = a + b
total r = a + s
1> {A} has {a} {Xs}.
1> {A} gets {a} points.
1> On {D} {A} makes {a} {Xs}.
1> The {V} team has {a} points.
1> {A} finds {a} {Xs}.
1> In the first {k} there are {a} {Xs}.
1> {A} runs {a} miles on {D}.
2> {B} has {b} more than that.
2> {B} gets {b} more.
2> The {W} team has {b} more than the {V} team.
2> In the second there are {b} more than in the first.
2> On {E} it is {b} more than on {D}.
2> The other one has {b} more.
3> How many is that together?
3> How many do both have together?
3> What is the sum of both?
3> How many is that on both days together?
3> How many are there in all?

== shape_fewer_together
a 6..120, b 2..60, b < a
fewer s = a - b
total r = a + s
1> {A} has {a} {Xs}.
1> {A} catches {a} {Ms}.
1> On {D} {A} makes {a} {Xs}.
1> The first {k} has {a} {Xs}.
1> One rope is {a} feet long.
1> A {i} costs ${a}.
2> {B} has {b} fewer.
2> {B} catches {b} fewer than {A}.
2> On {E} it is {b} fewer.
2> The second has {b} less.
2> The other one is {b} less.
3> How many is that together?
3> How many do they make in all?
3> What is the sum of both?
3> How much are both together?

== shape_times_together
a 2..60, b 2..6
times s = a * b
total r = a + s
1> {A} has {a} {Xs}.
1> {A} picks {a} {Fs}.
1> On {D} {a} {Gs} come.
1> The small {k} holds {a} {Xs}.
2> {B} has {b} times as many.
2> {B} picks {b} times that number.
2> On {E} it is {b} times as many.
2> The large one holds {b} times as many.
3> How many is that together?
3> How many do both have in all?
3> What is the total of both?

== shape_product_share
a 2..12, b 2..20, c 2..9
groups s = a * b
share r = s / c
1> {A} has {a} {Ks} with {b} {Xs} each.
1> {a} {Gs} bring {b} {Xs} each.
1> {a} {Ks} hold {b} {Xs} each.
1> {A} collects {b} {Xs} a day for {a} days.
1> There are {a} {Ks}, and each {k} gives {b} {Xs}.
1> {A} opens {a} {Ks} with {b} {Xs} in each.
2> The {Xs} are put evenly into {c} {Ls}. How many {Xs} are in each {l}?
2> All the {Xs} are moved to {c} {Ls}, the same number in each. How many {Xs} are in one {l}?
2> {c} {Gs} share them equally. How many {Xs} does each {g} get?
2> They are divided evenly among {c} {Gs}. How many {Xs} does every {g} get?
2> {He} loads them equally onto {c} {Ls}. How many {Xs} are on every {l}?

== shape_product_lose_share
a 2..12, b 2..20, c 2..40, d 2..9
groups s = a * b
lose r = s - c
share u = r / d
1> {A} has {a} {Ks} with {b} {Xs} in each.
1> {A} makes {b} {Xs} a day for {a} days.
1> {A} bakes {a} trays of {Fs} with {b} {Fs} on each tray.
1> {a} {Gs} bring {b} {Xs} each.
1> {A} owns {a} sets of {b} {Xs}.
2> {c} of them are sold.
2> {c} are missing.
2> {c} are used at once.
2> {He} keeps {c} of them.
2> {c} of them are eaten.
3> The others are divided equally among {d} {Gs}. How many does each get?
3> The rest go into {d} {Ls}, the same number in each. How many are in each {l}?
3> {d} {Gs} share the rest evenly. How many are there for every {g}?
3> {He} sorts what is left into {d} equal piles. How many are in each pile?

== shape_out_and_in
a 8..150, b 2..60, c 2..60, b < a
lose s = a - b
gain r = s + c
1> {a} people ride in a bus.
1> {a} {Gs} are in the {P}.
1> {A} has {a} {Xs}.
1> A boat starts with {a} {Gs}.
1> The {P} owns {a} {Xs}.
1> A {k} has {a} {Xs} in it.
2> {b} go out and {c} come in.
2> At noon {b} leave and {c} arrive.
2> {b} are taken away and later {c} are brought back.
2> Then {b} get off and {c} get on.
2> On {D} {b} are given away. On {E} {c} come back.
2> {b} are borrowed, and {c} are returned.
2> {b} walk out, and after that {c} walk in.
2> {B} takes {b} and later returns {c}.
3> How many are there now?
3> How many is that in the end?
3> How many are there after that?
3> How many are left in it?

== shape_in_and_out
a 8..150, b 2..60, c 2..60
gain s = a + b
lose r = s - c
1> {a} people sit in a train.
1> {a} {Gs} are at the {P}.
1> {A} has {a} {Xs}.
1> The {P} has {a} {Xs}.
1> In a {k} there are {a} {Xs}.
2> {b} come in and {c} go out.
2> At noon {b} arrive and {c} leave.
2> {b} are added, and later {c} are taken away.
2> On {D} {b} are brought. On {E} {c} are sold.
2> Then {b} get on and {c} get off.
2> {B} brings {b} and takes {c} home.
3> How many are there now?
3> How many is that in the end?
3> How many are there after that?
3> How many remain?

== shape_two_losses
a 30..400, b 5..120, c 5..120
lose s = a - b
lose r = s - c
1> {A} has {a} {Xs}.
1> A truck carries {a} {Xs}.
1> The {P} has {a} {Xs}.
1> A {g} starts with {a} {Xs}.
1> {A} has ${a}.
2> {b} are used for one thing and {c} for another.
2> {A} gives {b} to {B} and {c} to {C}.
2> {b} are sold on {D} and {c} on {E}.
2> {b} are brought to the {P} before lunch and {c} after lunch.
2> {He} spends {b} in the morning and {c} at night.
2> First {b} are taken, then {c}.
2> {b} go to the first {g} and {c} to the second.
3> How many are still there?
3> How many are left?
3> How many remain after that?
3> How many does {he} still have?

== shape_two_gains
a 2..150, b 2..90, c 2..90
gain s = a + b
gain r = s + c
1> {A} has {a} {Xs}.
1> The {P} has {a} {Xs}.
1> {A} owns {a} {Xs}.
1> There are {a} {Xs} in a {k}.
1> {a} {Gs} belong to a club.
2> {b} are added on {D} and {c} on {E}.
2> {b} come in the first week and {c} in the second.
2> {A} gets {b} from {B} and {c} from {C}.
2> First {b} more are made, then {c} more.
2> {b} new ones arrive, and a week later {c} others.
3> How many are there then?
3> How many is that now?
3> How many does that make in all?
3> How many are there in the end?

== shape_list_of_three
a 2..90, b 2..90, c 2..90
total s = a + b
total r = s + c
1> {A} sees {a} {Ms}, {b} {Os} and {c} {Xs}.
1> In the {P} there are {a} {Xs}, {b} {Ys} and {c} {Fs}.
1> {A} counts {a} {Xs}, {b} {Ys} and {c} {Is}.
1> The {P} has {a} {V} {Xs}, {b} {W} {Xs} and {c} plain {Xs}.
1> {A} brings {a}, {B} brings {b} and {C} brings {c} {Xs}.
1> {A} makes {a} {Xs} on {D}, {b} on {E} and {c} a day later.
2> How many is that in all?
2> How many are there altogether?
2> What is the number of all of them?
2> How many does that make?
2> How many things is that?

== shape_sum_share
a 3..90, b 3..90, c 2..9
total s = a + b
share r = s / c
1> {A} has {a} {Xs} and {B} has {b} {Xs}.
1> There are {a} {V} {Xs} and {b} {W} {Xs}.
1> {A} has {a} {Ms} and {b} {Os}.
1> {A} earns ${a} on {D} and ${b} on {E}.
1> {A} gathers {a} {Xs} in the morning and {b} at night.
2> They are put in {c} equal groups. How many are in each group?
2> All of it is split evenly among {c} {Gs}. How much does each get?
2> {c} {Gs} share everything equally. How many does every {g} get?
2> They go into {c} {Ks}, the same number in each. How many are in one {k}?

== shape_sum_pack
a 3..90, b 3..90, c 2..10
total s = a + b
pack r = s / c
1> {A} has {a} {Xs} and {B} has {b} {Xs}.
1> There are {a} {V} {Xs} and {b} {W} {Xs}.
1> {A} has {a} {Ms} and {b} {Os}.
1> {A} gathers {a} {Xs} in the morning and {b} at night.
2> One {k} holds {c} of them. How many {Ks} are needed?
2> They are packed {c} to a {k}. How many {Ks} are filled?
2> They make groups of {c}. How many groups is that?
2> {c} of them fit in a {k}. How many {Ks} do they fill?

== shape_half_and_lose
e 4..90, s = e * 2, b 2..60, b < e
part r = s / 2
lose u = r - b
1> {A} has {s} {Xs}.
1> A {k} is filled with {s} {Xs}.
1> There are {s} {Xs} in the {P}.
2> Half of them are sold in the morning, and {b} are sold later.
2> {He} gives half of them to {B} and then {b} to {C}.
2> Half of the {Xs} are used at once, and {b} are used later.
2> {A} takes out half. Of the other half {b} are lost.
2> One half is given away. {b} more are taken.
3> How many are left?
3> How many {Xs} remain?
3> How many {Xs} are there then?

== shape_off_times
a 2..9, b 6..60, c 2..50, c < b
lose s = b - c
cost r = s * a
1> A {i} costs ${b}, but it is sold for ${c} less.
1> The price of a {i} was ${b} and is now ${c} lower.
1> A {i} is ${b}. With a coupon one pays ${c} less.
2> How much do {a} {Is} cost now?
2> {A} buys {a} of them. How much does {he} pay?
2> What do {a} of them cost?

== shape_each_then_more
b 2..12, e 2..30, s = b * e, c 2..12
each r = s / b
rate u = r * c
1> {b} {Is} cost ${s}.
1> {A} makes {s} {Xs} in {b} hours.
1> {b} {Ks} hold {s} {Xs}, the same in each.
1> In {b} days {A} uses {s} {Xs}, the same number every day.
2> How many is that for {c}?
2> And how many is it for {c} of them?
2> At this rate, how many is it for {c}?

== shape_total_less_two
a 30..300, b 2..120, c 2..120
total s = b + c
left r = a - s
1> There are {a} {Xs} in the {P}.
1> {A} has {a} {Xs}.
1> A hall has {a} seats.
1> {a} {Gs} come to the {P}.
2> {b} are {V} and {c} are {W}. How many are neither?
2> {b} are taken by {Gs} and {c} by parents. How many are free?
2> {b} are old, {c} are new, and the rest are broken. How many are broken?
2> {b} stay in the {P} and {c} go to the park. How many do something else?

== shape_twice_and_more
a 2..90, b 2..50
times s = a * 2
more r = s + b
1> {A} has {a} {Xs}.
1> {A} walks {a} miles.
1> There are {a} {Xs} in the small {k}.
1> On {D} {A} sells {a} {Xs}.
2> {B} has {b} more than twice as many. How many does {B} have?
2> In the large {k} there are twice as many and {b} more. How many are in the large {k}?
2> On {E} it is two times as many and then {b} more. How many is it on {E}?

== shape_difference
a 10..300, b 5..250, b < a
diff s = a - b
1> One {i} costs ${a} and another costs ${b}.
1> {A} gets {a} votes and {B} gets {b} votes.
1> One fence has {a} posts, the other {b} posts.
1> {A} weighs {a} pounds and {B} weighs {b} pounds.
1> There are {a} {Xs} and only {b} {Ys}.
1> {A} reads {a} pages, and {B} reads only {b}.
2> What is the difference?
2> How much more is the first than the second?
2> By how many is the first ahead?
2> How many less is the second?
2> By how much is the second smaller?

== shape_missing
a 10..300, b 2..250, b < a
need s = a - b
1> {A} needs {a} {Xs}.
1> {A} wants to have {a} {Xs}.
1> A {k} has room for {a} {Xs}.
1> A puzzle has {a} pieces.
1> The {g} has to make {a} {Xs}.
1> The whole way is {a} miles.
2> {b} are done. How many are missing?
2> {He} has {b}. How many more does {he} need?
2> {b} are there already. How many are still missing?
2> So far there are {b}. How many are left to go?

== shape_lose_share
a 10..200, b 2..90, c 2..9
lose s = a - b
share r = s / c
1> {A} has {a} {Xs}.
1> {A} bakes {a} {Fs}.
1> There are {a} {Xs} in the {P}.
2> {He} keeps {b} and divides the rest evenly among {c} {Gs}. How many does each get?
2> {b} are broken. The others are put in {c} equal rows. How many are in a row?
2> {b} are sold, and what is left goes into {c} {Ks} equally. How many are in each {k}?
2> {b} are thrown out. {c} {Gs} share the rest evenly. How many does every {g} get?

== shape_rate_minus
a 2..12, b 2..30, c 2..90
rate s = a * b
lose r = s - c
1> {A} makes {b} {Xs} a day for {a} days.
1> {A} fills {a} {Ks} with {b} {Xs} each.
1> There are {a} {Ks} with {b} {Xs} in each.
1> Each of {a} {Gs} has {b} {Xs}.
1> {A} prints {a} sheets with {b} {Xs} on every sheet.
1> The {P} has {a} rows, and every row has {b} {Xs}.
2> {c} of the {Xs} are sold. How many {Xs} are left?
2> {c} {Xs} are gone. How many {Xs} are still there?
2> {A} uses {c} of them. How many {Xs} remain?
2> Tonight {c} of them are taken. How many {Xs} are free?
2> {B} takes {c} {Xs} away. How many {Xs} stay?
"""
