"""Training stories of money, pay and savings. Read by `families.parse`."""

STORIES = """
== price_times
a 2..15, b 2..40
cost s = a * b
> A {i} costs ${b}. How much do {a} {Is} cost?
> {A} buys {a} {Is} for ${b} each. How many dollars does {he} pay?
> Each {i} is ${b}. {A} takes {a}. What is the total price in dollars?

== change_from
a 10..200, b 2..180, b < a
left s = a - b
> {A} has ${a} and buys a {i} for ${b}. How many dollars does {he} have left?
> {A} pays for a {i} of ${b} with ${a}. How much change does {he} get?

== two_prices
a 2..150, b 2..150
total s = a + b
> A {i} costs ${a} and a {j} costs ${b}. How much do both cost?
> {A} spent ${a} on a {i} and ${b} on a {j}. How much did {he} spend?

== price_each
b 2..12, e 2..40, s = b * e
each r = s / b
> {A} paid ${s} for {b} {Is}. What is the price of one {i}?
> {b} {Is} cost ${s}. How much does one cost?

== how_many_can_buy
b 2..12, e 2..30, s = b * e
pack r = s / b
> A {i} costs ${b}. How many {Is} can {A} buy with ${s}?
> {A} has ${s}. Each {i} is ${b}. How many {Is} can {he} get?

== saved_and_got
a 5..200, b 2..100
gain s = a + b
> {A} has ${a}. {He} earns ${b} more. How much money does {A} have?
> {A} saved ${a}, and {B} gave {him} ${b}. How many dollars is that?

== cost_then_change
a 2..9, b 2..20, c 20..200, s = a * b, s < c
cost r = a * b
left u = c - r
> {A} buys {a} {Is} for ${b} each and pays with ${c}. How much change does {he} get?
> {A} has ${c}. {He} buys {a} {Is} that cost ${b} each. How much money is left?

== two_items_then_change
a 2..60, b 2..60, c 20..200
total s = a + b
left r = c - s
> {A} has ${c}. {He} buys a {i} for ${a} and a {j} for ${b}. How many dollars are left?
> A {i} is ${a}, a {j} is ${b}. {A} takes both and pays with ${c}. What is the change in dollars?

== two_kinds_cost
a 2..9, b 2..20, c 2..9, d 2..20
cost s = a * b
cost r = c * d
total u = s + r
> {A} buys {a} {Is} at ${b} each and {c} {Js} at ${d} each. How much does {he} spend?
> A {i} costs ${b} and a {j} costs ${d}. How much do {a} {Is} and {c} {Js} cost in all?

== cost_plus_fee
a 2..12, b 2..30, c 2..40
cost s = a * b
gain r = s + c
> {A} orders {a} {Is} for ${b} each. Sending them costs ${c} more. How much does {he} pay in all?
> {A} buys {a} {Is} at ${b} each and one {j} for ${c}. What is the whole price in dollars?

== earns_per_hour
a 2..12, b 5..40
rate s = a * b
> {A} earns ${b} an hour. How much does {he} earn in {a} hours?
> {A} works {a} hours and gets ${b} for every hour. How many dollars does {he} get?

== earns_then_spends
a 2..12, b 5..40, c 5..150
rate s = a * b
lose r = s - c
> {A} earns ${b} an hour and works {a} hours. Then {he} buys a {i} for ${c}. How much money is left?
> {A} sells {a} {Fs} at ${b} each and spends ${c}. How many dollars does {he} keep?

== saves_per_week
a 2..12, b 2..40
rate s = a * b
> {A} saves ${b} every week. How much does {he} save in {a} weeks?
> Every week {A} puts ${b} in a {k}. How much is in the {k} after {a} weeks?

== had_and_saves
a 2..12, b 2..30, c 5..150
rate s = a * b
gain r = s + c
> {A} has ${c} and saves ${b} a week. How much will {he} have after {a} weeks?
> {A} saved ${b} each week for {a} weeks. {B} then gave {him} ${c}. How much money does {A} have?

== weeks_to_save
b 2..12, e 2..30, s = b * e
pack r = s / b
> A {i} costs ${s}. {A} saves ${b} a week. How many weeks does {he} have to save?
> {A} wants ${s}. {He} earns ${b} a day. How many days does it take?

== needs_then_weeks
b 2..12, e 2..20, u = b * e, c 5..100, s = u + c
need p = s - c
pack r = p / b
> A {i} costs ${s}. {A} has ${c} and saves ${b} a week. In how many weeks can {he} buy it?
> {A} needs ${s} and has ${c}. {He} earns ${b} a day. How many days must {he} work?

== split_bill
b 2..10, e 3..40, s = b * e
share r = s / b
> {b} {Gs} share a bill of ${s} equally. How much does each pay?
> A gift costs ${s}. {b} {Gs} pay for it together in equal parts. How many dollars is one part?

== two_then_split
b 2..8, e 4..30, u = b * e, c 2..60, c < u, s = u - c
total p = s + c
share r = p / b
> The food costs ${s} and the drinks cost ${c}. {b} {Gs} share the cost equally. How much does each
    pay?
> {A} earned ${s} on {D} and ${c} on {E}. {He} splits the money equally among {b} {Gs}. How much
    does each get?

== half_price
e 2..90, s = e * 2
part r = s / 2
> A {i} costs ${s}. Today it is half price. How much is it today?
> {A} had ${s} and spent half of it. How much did {he} spend?

== half_spent_then_more
e 6..90, s = e * 2, c 2..60, c < e
part r = s / 2
lose u = r - c
> {A} has ${s}. {He} spends half of it at the {P} and then ${c} on a {i}. How much is left?
> {A} gave half of {his} ${s} to {B} and paid ${c} for a {j}. How many dollars does {A} have now?

== cheaper
a 6..200, b 2..100, b < a
fewer s = a - b
> A {i} costs ${a}. A {j} is ${b} cheaper. How much is the {j}?
> The price of a {i} was ${a}. It went down by ${b}. What is the price now?

== dearer
a 2..200, b 2..90
more s = a + b
> A {i} costs ${a}. A {j} costs ${b} more. How much is the {j}?
> The price of a {i} was ${a} and went up by ${b}. What is the new price?

== cheaper_then_both
a 10..150, b 2..60, b < a
fewer s = a - b
total r = a + s
> A {i} costs ${a}. A {j} costs ${b} less. How much do both cost together?

== profit
a 20..300, b 5..250, b < a
diff s = a - b
> {A} bought {Is} for ${b} and sold them for ${a}. What was the profit in dollars?
> {A} made things for ${b} and sold them for ${a}. How much did {he} gain?

== profit_of_many
a 2..12, b 3..30, c 5..90
cost s = a * b
left r = s - c
> {A} sells {a} {Is} for ${b} each. Making them cost ${c} in all. How much is the profit?
> {A} spent ${c} on flour and sold {a} {Fs} at ${b} each. How much money did {he} make?

== coins
a 2..30
groups s = a * 5
> {A} has {a} coins of 5 cents. How many cents is that?
> A nickel is 5 cents. How many cents are {a} nickels?

== dimes
a 2..40
groups s = a * 10
> A dime is 10 cents. How many cents are {a} dimes?
> {A} has {a} bills of $10. How many dollars does {he} have?
"""
