"""Training stories of equal groups: multiply, share, pack, compare by times. Read by `families.parse`."""

STORIES = """
== boxes_of
a 2..30, b 2..20
groups s = a * b
> {A} has {a} {Ks}. There are {b} {Xs} in each {k}. How many {Xs} does {he} have?
> Each {k} holds {b} {Fs}. How many {Fs} are in {a} {Ks}?
> There are {a} {Ks} with {b} {Xs} each. How many {Xs} is that altogether?

== rows_of
a 2..25, b 2..20
groups s = a * b
> A {P} has {a} rows of chairs with {b} chairs in every row. How many chairs are there?
> {A} plants {a} rows of flowers. Each row has {b} flowers. How many flowers does {he} plant?

== each_person
a 2..40, b 2..12
groups s = a * b
> {a} {Gs} each bring {b} {Fs}. How many {Fs} do they bring in all?
> Every one of {a} {Gs} gets {b} {Xs}. How many {Xs} are given out?

== legs
a 2..60
groups s = a * 4
> How many legs do {a} {Os} have if each has 4 legs?
> A car has 4 wheels. How many wheels do {a} cars have?

== per_day
a 2..14, b 2..40
rate s = a * b
> {A} reads {b} pages every day. How many pages does {he} read in {a} days?
> A baker makes {b} {Fs} a day. How many {Fs} does the baker make in {a} days?
> {A} walks {b} minutes each day. How many minutes is that in {a} days?

== dozens
a 2..20
groups s = a * 12
> A dozen is 12. {A} buys {a} dozen {Fs}. How many {Fs} is that?
> {A} has {a} {Ks}, and each holds one dozen {Fs}. How many {Fs} are there?

== twice_as_many
a 2..150
times s = a * 2
> {A} has {a} {Xs}. {B} has twice as many. How many {Xs} does {B} have?
> {B} picked two times as many {Fs} as {A}, who picked {a}. How many {Fs} did {B} pick?
> {A} doubled {his} {a} {Xs}. How many {Xs} does {he} have now?

== times_as_many
a 2..60, b 3..9
times s = a * b
> {A} has {a} {Xs}. {B} has {b} times as many {Xs} as {A}. How many {Xs} does {B} have?
> There are {b} times as many {V} {Ys} as {W} {Ys}. There are {a} {W} ones. How many {V} {Ys} are
    there?

== shared_equally
b 2..12, e 2..30, s = b * e
share r = s / b
> {A} has {s} {Xs} and shares them equally among {b} {Gs}. How many {Xs} does each one get?
> {s} {Fs} are divided equally between {b} {Gs}. How many {Fs} does each get?
> {b} {Gs} split {s} {Xs} evenly. How many {Xs} are there for each?

== put_in_equal
b 2..12, e 2..30, s = b * e
share r = s / b
> {A} puts {s} {Fs} into {b} {Ks} with the same number in each. How many {Fs} are in each {k}?
> {s} {Xs} fill {b} {Ks} equally. How many {Xs} are in one {k}?

== packed_by
b 2..12, e 2..30, s = b * e
pack r = s / b
> {A} packs {s} {Fs} in {Ks} of {b}. How many {Ks} does {he} need?
> Each {k} holds {b} {Xs}. How many {Ks} are needed for {s} {Xs}?
> {s} {Gs} stand in rows of {b}. How many rows are there?

== teams_of
b 2..12, e 2..25, s = b * e
pack r = s / b
> There are {s} {Gs}. They make teams of {b}. How many teams are there?
> {b} {Gs} can sit at one table. How many tables do {s} {Gs} need?

== half_of
e 2..150, s = e * 2
part r = s / 2
> {A} has {s} {Xs}. Half of them are {V}. How many {Xs} are {V}?
> {B} has half as many {Xs} as {A}. {A} has {s}. How many does {B} have?
> Half of the {s} {Gs} at the {P} went home. How many went home?

== third_of
e 2..80, s = e * 3
part r = s / 3
> {A} has {s} {Fs}. A third of them are ripe. How many {Fs} are ripe?
> One third of the {s} {Gs} sing. How many {Gs} sing?

== quarter_of
e 2..80, s = e * 4
part r = s / 4
> A quarter of the {s} {Xs} in the {k} are {V}. How many {Xs} are {V}?
> {A} gave one fourth of {his} {s} {Xs} to {B}. How many {Xs} did {B} get?

== fifth_of
e 2..60, s = e * 5
part r = s / 5
> A fifth of {s} {Gs} are late. How many {Gs} are late?
> {A} has {s} {Fs} and gives one fifth of them to {B}. How many {Fs} does {B} get?

== groups_plus
a 2..20, b 2..20, c 2..60
groups s = a * b
gain r = s + c
> {A} has {a} {Ks} of {b} {Xs} and {c} more loose {Xs}. How many {Xs} does {he} have?
> There are {a} {Ks} with {b} {Fs} each. {A} adds {c} {Fs}. How many {Fs} are there in all?
> {A} had {c} {Xs}. Then {he} bought {a} {Ks} with {b} {Xs} in each. How many {Xs} does {he} have
    now?

== groups_minus
a 2..20, b 2..20, c 2..90
groups s = a * b
lose r = s - c
> {A} has {a} {Ks} with {b} {Fs} in each {k}. {He} eats {c} {Fs}. How many {Fs} are left?
> {A} buys {a} {Ks} of {b} {Xs} and gives {c} {Xs} to {B}. How many {Xs} does {A} still have?
> {a} tables have {b} chairs each. {c} chairs are broken. How many chairs are fine?

== two_kinds_of_groups
a 2..12, b 2..12, c 2..12, d 2..12
groups s = a * b
groups r = c * d
total u = s + r
> {A} has {a} {Ks} with {b} {Xs} each and {c} {Ls} with {d} {Xs} each. How many {Xs} does {he} have?
> There are {a} rows of {b} {V} chairs and {c} rows of {d} {W} chairs. How many chairs are there?

== gain_then_share
b 2..10, e 2..20, u = b * e, c 2..60, c < u, s = u - c
gain p = s + c
share r = p / b
> {A} has {s} {Xs} and gets {c} more. {He} shares them equally among {b} {Gs}. How many {Xs} does
    each get?
> {A} picked {s} {Fs} and {B} picked {c}. They put all of them equally into {b} {Ks}. How many {Fs}
    are in each {k}?

== lose_then_share
b 2..10, e 2..20, u = b * e, c 2..60, s = u + c
lose p = s - c
share r = p / b
> {A} has {s} {Fs}. {He} eats {c} and splits the rest equally among {b} {Gs}. How many {Fs} does
    each get?
> Of {s} {Xs}, {c} are broken. The others go into {b} {Ks} with the same number in each. How many go
    in each {k}?

== lose_then_pack
b 2..10, e 2..20, u = b * e, c 2..60, s = u + c
lose p = s - c
pack r = p / b
> {A} baked {s} {Fs}. {c} of them burned. {He} packs the rest in {Ks} of {b}. How many {Ks} does
    {he} fill?
> {s} {Gs} came, but {c} left early. The rest made teams of {b}. How many teams were there?

== groups_then_share
a 2..12, b 2..12, d 2..10
groups r = a * b
share u = r / d
> {A} has {a} {Ks} with {b} {Fs} each. {He} shares all the {Fs} equally among {d} {Gs}. How many
    {Fs} does each get?
> {a} {Ks} of {b} {Xs} are opened and divided evenly among {d} {Gs}. How many {Xs} does each one
    have?

== share_then_gain
b 2..10, e 2..20, s = b * e, c 2..40
share r = s / b
gain u = r + c
> {s} {Xs} are shared equally by {b} {Gs}. {A} is one of them and already has {c} {Xs}. How many
    {Xs} does {A} have now?
> {A} and others, {b} people in all, split {s} {Fs} evenly. Then {A} finds {c} more. How many {Fs}
    does {A} have?

== share_then_lose
b 2..10, e 6..30, s = b * e, c 2..20, c < e
share r = s / b
lose u = r - c
> {b} {Gs} share {s} {Fs} equally. One of them, {A}, eats {c}. How many {Fs} does {A} have left?
> {A} puts {s} {Xs} equally into {b} {Ks}. Then {he} takes {c} out of one {k}. How many {Xs} are in
    that {k}?

== half_then_lose
e 5..90, s = e * 2, c 2..60, c < e
part r = s / 2
lose u = r - c
> {A} has {s} {Xs}. {He} gives half of them to {B} and {c} to {C}. How many {Xs} does {A} have left?
> Half of {s} {Fs} were eaten, and then {c} more were eaten. How many {Fs} are left?

== half_then_gain
e 5..90, s = e * 2, c 2..60
part r = s / 2
gain u = r + c
> {A} had {s} {Xs} and gave half of them away. Then {he} bought {c}. How many {Xs} does {he} have
    now?
> Half of the {s} {Gs} left the {P}. Later {c} came. How many {Gs} were there then?

== third_gone
e 3..60, s = e * 3
part r = s / 3
left u = s - r
> {A} has {s} {Fs}. {He} eats a third of them. How many {Fs} are left?
> One third of {s} {Xs} are {V}. The rest are {W}. How many {Xs} are {W}?

== quarter_gone
e 3..60, s = e * 4
part r = s / 4
left u = s - r
> {A} had {s} {Xs} and gave a quarter of them to {B}. How many {Xs} does {A} have left?
> A fourth of the {s} {Gs} went home. How many {Gs} stayed?

== twice_then_together
a 2..90
times s = a * 2
total r = a + s
> {A} has {a} {Xs}. {B} has twice as many as {A}. How many {Xs} do they have together?
> {A} read {a} pages on {D} and twice as many on {E}. How many pages did {he} read in all?

== times_then_together
a 2..40, b 3..8
times s = a * b
total r = a + s
> {A} has {a} {Fs} and {B} has {b} times as many. How many {Fs} do the two have together?
> There are {a} {Ms} and {b} times as many {Os} on a farm. How many animals is that?

== times_then_diff
a 2..40, b 3..8
times s = a * b
diff r = s - a
> {A} has {a} {Xs}. {B} has {b} times as many. How many more {Xs} does {B} have than {A}?
> One {k} holds {a} {Fs}. A bigger one holds {b} times as many. How many more does the bigger one
    hold?

== twice_plus
a 2..90, c 2..50
times s = a * 2
more r = s + c
> {A} has {a} {Xs}. {B} has {c} more than twice as many. How many {Xs} does {B} have?
> {B} is {c} years more than twice the age of {A}. {A} is {a}. How old is {B}?

== twice_minus
a 5..90, c 2..30, c < a
times s = a * 2
fewer r = s - c
> {A} has {a} {Xs}. {B} has {c} fewer than twice as many. How many {Xs} does {B} have?
> {B} picked {c} less than two times the {Fs} that {A} picked. {A} picked {a}. How many {Fs} did {B}
    pick?

== per_person_then_pack
a 2..30, b 2..8, c 2..10
groups r = a * b
pack u = r / c
> {A} wants {b} {Fs} for each of {a} {Gs}. The {Fs} come in {Ks} of {c}. How many {Ks} does {he}
    need?
> {a} {Gs} need {b} {Xs} each. There are {c} {Xs} in a {k}. How many {Ks} are needed?

== per_hour
a 2..12, b 2..60
rate s = a * b
> A machine makes {b} {Ys} in one hour. How many {Ys} does it make in {a} hours?
> A car goes {b} miles every hour. How far does it go in {a} hours?

== per_hour_back
b 2..12, e 2..60, s = b * e
each r = s / b
> A machine made {s} {Ys} in {b} hours. How many did it make each hour?
> {A} walked {s} miles in {b} days, the same each day. How many miles did {he} walk a day?
> {A} read {s} pages in {b} days. {He} read the same number every day. How many pages a day is that?

== how_long
b 2..12, e 2..40, s = b * e
pack r = s / b
> {A} reads {b} pages a day. How many days does {he} need for a book of {s} pages?
> A tap fills {b} liters in a minute. How many minutes does it take to fill {s} liters?
> {A} wants {s} {Xs} and makes {b} a day. In how many days will {he} have them?

== half_hourly
a 2..24
times s = a * 2
> A bell rings 2 times every hour. How many times does it ring in {a} hours?
> {A} has {a} pairs of socks. A pair is 2 socks. How many socks is that?
"""
