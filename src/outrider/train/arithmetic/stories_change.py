"""Training stories in which an amount grows, shrinks, or is compared. Read by `families.parse`."""

STORIES = """
== bought_more
a 2..150, b 2..90
gain s = a + b
> {A} has {a} {Xs}. {He} buys {b} more. How many {Xs} does {A} have now?
> At the {P}, {A} bought {b} {Xs}. {He} already had {a}. How many {Xs} does {he} have in all?
> {A} had {a} {Xs} and then got {b} more {Xs} from the {P}. What is the total number of {Xs}?

== found_some
a 2..120, b 2..80
gain s = a + b
> {A} collects {Xs}. {He} has {a} of them and finds {b} more near the {P}. How many are there now?
> Near the {P} {A} found {b} {Xs} and added them to the {a} in the collection. How many {Xs} are in
    the collection?

== was_given
a 2..120, b 2..80
gain s = a + b
> {A} had {a} {Fs}. {B} gave {him} {b} more. How many {Fs} does {A} have?
> {B} gives {b} {Fs} to {A}, who already has {a}. How many {Fs} does {A} have after that?

== arrived
a 3..150, b 2..90
gain s = a + b
> There are {a} {Gs} at the {P}. Then {b} more come. How many {Gs} are at the {P} now?
> {a} {Gs} were at the {P} on {D}. {b} others joined them. How many {Gs} were there then?

== put_in
a 3..150, b 2..90
gain s = a + b
> A {k} holds {a} {Xs}. {A} puts in {b} more. How many {Xs} are in the {k}?
> {A} drops {b} {Xs} into a {k} that has {a} {Xs} in it already. How many does it have now?

== gave_away
a 5..200, b 2..120, b < a
lose s = a - b
> {A} has {a} {Xs}. {He} gives {b} to {B}. How many {Xs} does {A} have left?
> {A} gave {B} {b} {Xs} out of {his} {a}. How many {Xs} does {A} still have?
> Out of {a} {Xs}, {A} gave away {b}. How many remain?

== ate_some
a 5..150, b 2..90, b < a
lose s = a - b
> {A} baked {a} {Fs}. {His} family ate {b} of them. How many {Fs} are left?
> There were {a} {Fs} in the {k}. {A} and {B} ate {b}. How many {Fs} are still in the {k}?

== lost_some
a 5..180, b 2..100, b < a
lose s = a - b
> {A} had {a} {Xs} but lost {b} of them at the {P}. How many {Xs} does {he} have now?
> On {D} {A} lost {b} of {his} {a} {Xs}. How many were not lost?

== went_home
a 6..200, b 2..120, b < a
lose s = a - b
> {a} {Gs} were at the {P}. {b} of them went home. How many stayed?
> After {b} {Gs} left the {P}, how many were still there if there were {a} at first?

== flew_away
a 6..120, b 2..80, b < a
lose s = a - b
> {a} {Ms} were near the {P}. {b} {Ms} ran off. How many {Ms} are left?
> There are {a} {Ms} on a farm. The farmer sells {b}. How many {Ms} does the farmer keep?

== sold_some
a 10..300, b 5..200, b < a
left s = a - b
> A {P} had {a} {Is} in the morning. By evening {b} were sold. How many {Is} were not sold?
> {A} made {a} {Is} to sell and sold {b} of them on {D}. How many {Is} are unsold?

== broke_some
a 10..200, b 2..60, b < a
left s = a - b
> {A} packed {a} {Ys}. On the way {b} of them broke. How many {Ys} are not broken?
> Of {a} {Fs} in the {k}, {b} are bad. How many {Fs} are good?

== two_colours
a 2..150, b 2..150
total s = a + b
> There are {a} {V} {Xs} and {b} {W} {Xs} in a {k}. How many {Xs} are there altogether?
> {A} has {a} {V} {Xs} and {b} {W} ones. How many {Xs} does {he} have?

== two_people
a 2..150, b 2..150
total s = a + b
> {A} has {a} {Xs} and {B} has {b} {Xs}. How many {Xs} do they have together?
> {A} picked {a} {Fs}. {B} picked {b}. How many {Fs} did they pick in all?

== two_days
a 3..200, b 3..200
total s = a + b
> {A} read {a} pages on {D} and {b} pages on {E}. How many pages did {he} read in both days?
> On {D} the {P} had {a} visitors. On {E} it had {b}. How many visitors came on the two days?

== three_parts
a 2..90, b 2..90, c 2..90
total s = a + b
total r = s + c
> {A} has {a} {Xs}, {b} {Ys} and {c} {Fs}. How many things does {he} have?
> {A}, {B} and {C} have {a}, {b} and {c} {Xs}. How many {Xs} do they have together?
> The {P} got {a} letters on {D}, {b} on {E} and {c} the day after. How many letters is that?

== more_than
a 2..150, b 2..80
more s = a + b
> {A} has {a} {Xs}. {B} has {b} more {Xs} than {A}. How many {Xs} does {B} have?
> {B} picked {b} more {Fs} than {A}. {A} picked {a}. How many {Fs} did {B} pick?

== fewer_than
a 6..200, b 2..100, b < a
fewer s = a - b
> {A} has {a} {Xs}. {B} has {b} fewer {Xs} than {A}. How many {Xs} does {B} have?
> {B} read {b} fewer pages than {A}. {A} read {a} pages. How many pages did {B} read?

== how_many_more
a 6..200, b 2..150, b < a
diff s = a - b
> {A} has {a} {Xs} and {B} has {b} {Xs}. How many more {Xs} does {A} have than {B}?
> There are {a} {V} {Ys} and {b} {W} {Ys}. How many more {V} {Ys} than {W} {Ys} are there?

== how_many_fewer
a 6..200, b 2..150, b < a
diff s = a - b
> {B} has {b} {Fs}. {A} has {a}. How many fewer {Fs} does {B} have?
> One {k} holds {a} {Xs} and another holds {b}. How many fewer are in the second {k}?

== taller
a 20..200, b 10..190, b < a
diff s = a - b
> One tree is {a} feet tall and another is {b} feet tall. How much taller is the first tree?
> {A} has a rope of {a} meters. {B} has a rope of {b} meters. How much longer is the rope of {A}?

== older
a 4..70, b 2..30
more s = a + b
> {A} is {a} years old. {B} is {b} years older. How old is {B}?
> How old will {A} be in {b} years if {he} is {a} now?

== younger
a 10..80, b 2..30, b < a
fewer s = a - b
> {A} is {a} years old. {B} is {b} years younger. How old is {B}?
> {A} is {a} now. How old was {he} {b} years ago?

== needs_more
a 10..300, b 2..250, b < a
need s = a - b
> {A} wants to collect {a} {Xs}. {He} has {b} so far. How many more {Xs} does {he} need?
> {A} needs {a} {Fs} for the party but has only {b}. How many {Fs} are missing?
> A game costs ${a}. {A} has saved ${b}. How much more money does {he} need?

== was_at_first
a 2..120, b 2..90
total s = a + b
> After giving {b} {Xs} to {B}, {A} has {a} left. How many {Xs} did {A} have at first?
> {A} used {b} {Xs} and now has {a}. How many {Xs} were there before?

== gained_unknown
a 10..200, b 2..150, b < a
diff s = a - b
> {A} had {b} {Xs}. After a trip to the {P} {he} has {a}. How many {Xs} did {he} get there?
> This morning there were {b} {Ms} in the field. Now there are {a}. How many {Ms} came?

== lost_unknown
a 10..200, b 2..150, b < a
diff s = a - b
> {A} had {a} {Fs} and now has {b}. How many {Fs} are gone?
> There were {a} {Gs} at the {P} and {b} stayed. How many {Gs} left?

== rest_of_group
a 10..250, b 3..200, b < a
left s = a - b
> There are {a} {Xs} in a {k}. {b} of them are {V} and the rest are {W}. How many are {W}?
> Of the {a} {Gs} at the {P}, {b} wear hats. How many do not wear hats?
> {A} has a book of {a} pages and has read {b}. How many pages are left to read?

== gain_then_lose
a 3..120, b 2..80, c 2..90
gain s = a + b
lose r = s - c
> {A} has {a} {Xs}. {He} buys {b} more and then gives {c} to {B}. How many {Xs} does {A} have now?
> There are {a} {Fs} in a {k}. {A} puts in {b} and takes out {c}. How many {Fs} are in the {k}?
> {A} had {a} {Ys}, got {b} as a gift and lost {c}. How many {Ys} are left?

== lose_then_gain
a 6..150, b 2..90, c 2..90, b < a
lose s = a - b
gain r = s + c
> {A} has {a} {Xs}. {He} gives {b} to {B} and then finds {c}. How many {Xs} does {A} have?
> {a} {Gs} are at the {P}. {b} leave and {c} others come. How many are there now?
> A farmer had {a} {Ms}, sold {b} and bought {c}. How many {Ms} does the farmer have?

== lose_twice
a 10..250, b 2..90, c 2..90
lose s = a - b
lose r = s - c
> {A} has {a} {Xs}. {He} gives {b} to {B} and {c} to {C}. How many {Xs} does {A} keep?
> {A} baked {a} {Fs}. {B} ate {b} and {C} ate {c}. How many {Fs} are left?
> Of {a} pages {A} read {b} on {D} and {c} on {E}. How many pages remain?

== gain_twice
a 2..120, b 2..80, c 2..80
gain s = a + b
gain r = s + c
> {A} had {a} {Xs}. {B} gave {him} {b} and {C} gave {him} {c}. How many {Xs} does {A} have now?
> On {D} {A} had {a} {Fs}. {He} picked {b} more on {E} and {c} more the next day. How many {Fs} is
    that?

== more_then_together
a 2..100, b 2..60
more s = a + b
total r = a + s
> {A} has {a} {Xs}. {B} has {b} more than {A}. How many {Xs} do they have together?
> {A} picked {a} {Fs} and {B} picked {b} more than that. How many {Fs} did the two pick in all?

== fewer_then_together
a 6..120, b 2..60, b < a
fewer s = a - b
total r = a + s
> {A} has {a} {Xs}. {B} has {b} fewer than {A}. How many {Xs} do they have together?
> On {D} {A} read {a} pages. On {E} {he} read {b} pages less. How many pages did {he} read in the
    two days?

== two_owners_after_gift
a 5..120, b 5..120, c 2..60, c < a
gain r = b + c
> {A} has {a} {Xs} and {B} has {b}. {A} gives {c} {Xs} to {B}. How many {Xs} does {B} have now?
> {B} owns {b} {Fs}, {A} owns {a}. Then {B} gets {c} from {A}. How many {Fs} does {B} own after
    that?

== together_minus
a 5..120, b 5..120, c 2..100
total s = a + b
lose r = s - c
> {A} picked {a} {Fs} and {B} picked {b}. They ate {c}. How many {Fs} are left?
> A {k} has {a} {V} {Xs} and {b} {W} {Xs}. {C} takes {c} of them. How many {Xs} are still in the
    {k}?

== total_less_two
a 30..300, b 2..120, c 2..120
total s = b + c
left r = a - s
> There are {a} {Xs}: {b} are {V}, {c} are {W} and the others are plain. How many are plain?
> {A} has ${a}. {He} spends ${b} on a {i} and ${c} on a {j}. How much money is left?
> The {P} has {a} seats. {b} seats are taken by {Gs} and {c} by parents. How many seats are free?
"""
