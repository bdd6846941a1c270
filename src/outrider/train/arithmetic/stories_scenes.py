"""More training stories, of many small scenes and sentence shapes. Read by `families.parse`."""

STORIES = """
== scene_bus_seats
a 20..80, b 2..70, b < a
left s = a - b
> A bus has {a} seats and {b} of them are taken. How many seats are free?
> If {b} of the {a} seats in a coach are occupied, how many are empty?

== scene_battery
a 20..100, b 5..90, b < a
lose s = a - b
> The battery of a tablet is at {a} percent. Watching a film uses {b} percent. How many percent are
    left?
> A candle burns for {a} minutes. It has burned for {b} minutes already. For how many minutes will
    it still burn?

== scene_temperature
a 2..40, b 2..30
gain s = a + b
> At dawn it was {a} degrees. By noon it was {b} degrees warmer. How warm was it at noon?
> The river stood at {a} centimeters and rose by {b} centimeters. How high does it stand now?

== scene_colder
a 10..60, b 2..50, b < a
lose s = a - b
> It was {a} degrees at noon and {b} degrees colder at night. How many degrees was it at night?
> A balloon floats at {a} meters and sinks by {b} meters. At what height is it then?

== scene_recipe
a 2..12, b 2..20
groups s = a * b
> A recipe calls for {b} spoons of sugar. {A} cooks it {a} times. How many spoons of sugar does {he}
    need?
> One loaf takes {b} cups of flour. How many cups are needed for {a} loaves?

== scene_recipe_have
a 2..12, b 2..12, c 2..60
groups s = a * b
need r = s - c
> {A} bakes {a} loaves and each takes {b} cups of flour. {He} has {c} cups. How many cups are
    missing?
> {a} tents need {b} poles each. Only {c} poles were packed. How many poles are lacking?

== scene_goals
a 2..60, b 2..60, c 2..60
total s = a + b
total r = s + c
> The home team made {a} shots in the first part, {b} in the second and {c} in the third. How many
    shots was that?
> {A} did {a} push-ups, then {b}, and at last {c}. How many push-ups did {he} do?

== scene_score_more
a 10..100, b 2..60
more s = a + b
> {A} has {a} points. {B} is {b} points ahead of {A}. How many points does {B} have?
> {A} jumped {a} centimeters high, and {B} jumped {b} centimeters higher. How high did {B} jump?

== scene_score_behind
a 10..150, b 2..80, b < a
fewer s = a - b
> {A} has {a} points and {B} is {b} points behind. How many points does {B} have?
> {A} threw the ball {a} feet. The throw of {B} was {b} feet shorter. How far did {B} throw?

== scene_fuel
a 20..90, b 2..9, c 2..9
rate s = b * c
left r = a - s
> A car has {a} liters of fuel and burns {b} liters an hour. How much fuel is left after {c} hours?
> {A} has {a} tablets and takes {b} of them each day. How many are left after {c} days?

== scene_snow
a 2..12, b 2..30
rate s = a * b
> It snows {b} centimeters an hour. How much snow falls in {a} hours?
> A snail crawls {b} inches in a minute. How many inches does it crawl in {a} minutes?

== scene_print
b 2..12, e 5..60, s = b * e
each r = s / b
> A printer needs {b} minutes for {s} pages. How many pages does it print in one minute?
> In {b} nights {A} slept {s} hours, the same every night. How many hours did {he} sleep a night?

== scene_classroom
a 2..10, b 2..6, c 2..12
groups s = a * b
more r = s + c
> In a classroom stand {a} tables with {b} pupils at each, and {c} pupils sit on the floor. How many
    pupils are there?
> {a} vans with {b} people each and one bus with {c} people drive to the coast. How many people is
    that?

== scene_wall
a 3..30, b 3..12, c 2..60
groups s = a * b
left r = s - c
> A wall has {a} rows of {b} tiles. {c} tiles fell off. How many are still on the wall?
> A calendar has {a} pages with {b} pictures on each. {A} cut out {c} pictures. How many pictures
    are left in it?

== scene_garland
b 2..12, e 3..30, s = b * e
pack r = s / b
> {A} has {s} flowers and uses {b} for one garland. How many garlands can {he} make?
> It takes {b} screws to build a stool. How many stools can be built with {s} screws?

== scene_stairs
b 2..12, e 3..30, s = b * e
share r = s / b
> A staircase of {s} steps has {b} equal flights. How many steps are in one flight?
> {s} kilometers are walked in {b} equal stages. How long is one stage?

== scene_pool
a 5..90, b 5..90, c 2..60
total s = a + b
lose r = s - c
> {a} girls and {b} boys are in the pool. {c} of the swimmers get out. How many are still in the
    pool?
> {A} picks {a} daisies and {B} picks {b}. {c} of the daisies wilt. How many are fresh?

== scene_choir
a 10..120, b 2..40, c 2..40
lose s = a - b
gain r = s + c
> A choir has {a} singers. {b} quit in spring, and {c} sign up in autumn. How many singers does it
    have after that?
> {a} bikes are parked at the school. {b} are ridden away, then {c} are parked there. How many bikes
    are at the school?

== scene_clinic
a 10..90, b 2..40, c 2..40
lose s = a - b
lose r = s - c
> {a} patients wait at the clinic. The nurse calls in {b}, and {c} get tired and leave. How many
    still wait?
> A jar holds {a} pickles. {A} takes {b} out on {D} and {c} on {E}. How many pickles are in it now?

== scene_bees
a 2..12, b 2..60
groups s = a * b
> A beekeeper owns {a} hives, and {b} bees sit in front of every hive. How many bees sit there?
> Each page of a photo book shows {b} pictures. How many pictures are on {a} pages?

== scene_juice
a 20..200, b 2..10, c 2..10
groups s = b * c
left r = a - s
> {A} has {a} ounces of juice and fills {b} cups with {c} ounces each. How many ounces are left?
> From {a} stickers {A} gives {c} to each of {b} {Gs}. How many stickers does {he} keep?

== scene_ribbon
a 20..300, b 2..9, c 2..20
groups s = b * c
left r = a - s
> {A} cuts {b} strips of {c} inches from a ribbon that is {a} inches long. How many inches remain?
> A baker has {a} pounds of flour and bakes {b} batches that take {c} pounds each. How many pounds
    remain?

== scene_coach_order
a 2..12, b 2..15, c 2..15
total s = b + c
groups r = s * a
> Every player gets {b} shirts and {c} pairs of socks. There are {a} players. How many things are
    handed out?
> A meal costs ${b} and a drink costs ${c}. How much do {a} people pay who each take a meal and a
    drink?

== scene_pair_price
a 2..12, b 3..40, c 2..30, c < b
fewer s = b - c
cost r = s * a
> A {i} costs ${b}, but there is ${c} off. How much do {a} of them cost?
> A ticket is ${b}. With a card it is ${c} cheaper. What do {a} tickets cost with the card?

== scene_tip
a 10..150, b 2..40
gain s = a + b
> The dinner is ${a} and {A} leaves a tip of ${b}. How much does {he} pay?
> A flight costs ${a}, and a bag costs ${b} extra. What is the whole price?

== scene_allowance
a 2..12, b 2..20, c 2..60
rate s = a * b
lose r = s - c
> {A} gets ${b} a week. After {a} weeks {he} pays ${c} for a {i}. How much does {he} have then?
> A machine makes {b} {Xs} an hour. In {a} hours it makes many, but {c} are thrown away. How many
    are good?

== scene_sale
a 2..12, b 2..30, c 2..12, d 2..30
cost s = a * b
cost r = c * d
diff u = s - r
> {A} sells {a} {Is} for ${b} each. For that {he} bought {c} bags of cloth for ${d} each. What is
    {his} profit?
> {a} rows of {b} plants were set. {c} rows of {d} plants dried up. How many plants live?

== scene_rooms
a 2..9, b 2..9, c 2..60
groups s = a * b
diff r = s - c
> A school has {a} floors with {b} rooms each. {c} rooms are in use. How many are not in use?
> {A} has {a} packs of {b} cards and {B} has {c} cards. How many more cards does {A} have?

== scene_stack
a 2..12, b 2..30, c 2..30
groups s = a * b
groups r = a * c
total u = s + r
> {a} {Gs} carry {b} stones and {c} bricks each. How many stones and bricks do they carry in all?
> For {a} days {A} ran {b} minutes in the morning and {c} minutes at night. How many minutes did
    {he} run?

== scene_two_trips
a 10..120, b 10..120, c 2..12, d 2..12
total s = a + b
groups r = c * d
left u = s - r
> {A} has {a} nails and buys {b}. {He} builds {c} birdhouses with {d} nails each. How many nails are
    left?
> There are {a} {Fs} in one bowl and {b} in another. {c} {Gs} eat {d} each. How many {Fs} are left?

== scene_equal_piles
a 5..90, b 5..90, c 2..9
total s = a + b
share r = s / c
> {A} mixes {a} {V} and {b} {W} beads and makes {c} equal piles. How many beads are in a pile?
> {a} adults and {b} children are put in {c} equal groups. How many people are in each group?

== scene_rest_piles
a 10..120, b 2..60, c 2..9
lose s = a - b
share r = s / c
> {A} keeps {b} of {his} {a} coins and splits the rest evenly between {c} {Gs}. How many coins does
    each receive?
> Of {a} plants {b} die. The living ones are set in {c} equal rows. How many plants are in each row?

== scene_rest_bags
a 10..150, b 2..60, c 2..10
lose s = a - b
pack r = s / c
> A baker bakes {a} buns and sells {b}. The unsold buns go in bags of {c}. How many bags is that?
> {A} has {a} inches of tape, wastes {b}, and cuts the rest into strips of {c} inches. How many
    strips does {he} get?

== scene_more_packs
a 2..12, b 2..12, c 2..12
total s = a + b
groups r = s * c
> {A} has {a} packs and {B} has {b} packs. There are {c} cards in every pack. How many cards do they
    have?
> On {D} {A} filled {a} jars and on {E} {b} jars. A jar takes {c} {Fs}. How many {Fs} did {he} use?

== scene_fewer_packs
a 5..20, b 2..15, c 2..12, b < a
lose s = a - b
groups r = s * c
> A shop had {a} cartons and sold {b}. Every carton has {c} cans. How many cans are left in the
    shop?
> {a} benches stand in the hall and {b} are carried out. {c} people fit on a bench. How many people
    can sit in the hall?

== scene_half_day
e 5..120, s = e * 2
part r = s / 2
> A trip is {s} miles long. {A} has done half of it. How many miles has {he} done?
> {A} reads half of a book that has {s} pages. How many pages does {he} read?

== scene_half_then_pack
e 5..60, s = e * 2, b 2..9
part r = s / 2
pack u = r / b
> Half of {s} {Fs} are put in bags of {b}. How many bags are there?
> A club has {s} members. Half of them play in teams of {b}. How many teams are there?

== scene_double_then_share
a 5..60, b 2..9
times s = a * 2
share r = s / b
> {A} doubles the dough for {a} rolls and lays the rolls evenly on {b} trays. How many rolls are on
    a tray?
> A shelf held {a} toys. Now it holds twice as many, in {b} equal groups. How many toys are in each
    group?

== scene_double_minus
a 5..90, b 2..60
times s = a * 2
lose r = s - b
> The number of {Ms} in the yard doubled from {a}. Then {b} ran off. How many were left?
> {A} had ${a}, doubled it at the fair, and then spent ${b}. How much money does {he} have?

== scene_triple
a 2..90
times s = a * 3
> {A} has {a} {Xs}. {B} has three times as many. How many {Xs} does {B} have?
> A tree was {a} inches tall. Now it is three times as tall. How tall is it now?

== scene_triple_total
a 2..60
times s = a * 3
total r = a + s
> {A} caught {a} fish and {B} caught three times as many. How many fish did they catch together?
> On {D} {a} people came, and on {E} three times as many. How many people came on the two days?

== scene_third_then_lose
e 4..60, s = e * 3, b 2..50, b < e
part r = s / 3
lose u = r - b
> One third of {s} {Gs} went by bus, but {b} of those got off early. How many rode to the end?
> {A} took a third of {s} {Fs} and ate {b}. How many does {A} have left?

== scene_quarter_gift
e 4..60, s = e * 4, b 2..50
part r = s / 4
gain u = r + b
> {A} gets a quarter of {s} {Xs} and finds {b} more. How many does {A} have?
> {B} owns {b} {Fs} and is given one fourth of {s}. How many {Fs} does {B} own then?

== scene_age_sum
a 5..60, b 2..30
more s = a + b
total r = a + s
> {A} is {a} and {B} is {b} years older. How old are they together?
> A cup costs ${a} and a jug costs ${b} more than the cup. What do the cup and the jug cost
    together?

== scene_age_after
a 5..60, b 2..30, c 2..20
more s = a + b
gain r = s + c
> {A} is {a} years old and {B} is {b} years older. How old will {B} be in {c} years?
> {A} weighs {a} pounds, {B} weighs {b} pounds more, and {C} weighs {c} pounds more than {B}. What
    does {C} weigh?

== scene_three_costs
a 2..60, b 2..60, c 2..60, d 30..300
total s = a + b
total r = s + c
left u = d - r
> {A} has ${d} and pays ${a} for food, ${b} for gas and ${c} for books. How much is left?
> Of {d} seats, {a} are kept for parents, {b} for pupils and {c} for teachers. How many seats are
    open?

== scene_three_days_goal
a 2..90, b 2..90, d 30..300
total s = a + b
need r = d - s
> {A} wants to walk {d} miles. {He} walked {a} miles in May and {b} miles in June. How many miles
    are still to go?
> A school needs {d} books. It got {a} from parents and {b} from a shop. How many books does it
    still need?

== scene_stops
a 5..60, b 2..30, c 2..30, d 2..30
gain s = a + b
lose r = s - c
gain u = r + d
> {a} people are in a tram. At the first stop {b} get in, at the next {c} get out, and then {d} get
    in. How many are in it?
> {A} had {a} {Xs}, bought {b}, lost {c} and was given {d}. How many {Xs} does {he} have at last?

== scene_fish_tanks
a 2..9, b 2..20, c 2..9, d 2..20
groups s = a * b
groups r = c * d
diff u = s - r
> {a} big tanks hold {b} fish each and {c} small ones hold {d} each. How many more fish are in the
    big tanks?
> {A} worked {a} days for {b} hours, {B} worked {c} days for {d} hours. How many hours more did {A}
    work?

== scene_machine_two
a 2..20, b 2..20, c 2..9
total s = a + b
rate r = s * c
> One machine makes {a} {Xs} a minute and another makes {b}. How many do they make together in {c}
    minutes?
> {A} writes {a} lines an hour and {B} writes {b}. How many lines do both write in {c} hours?

== scene_machine_diff
a 2..40, b 2..30, c 2..9, b < a
diff s = a - b
rate r = s * c
> {A} types {a} words a minute and {B} types {b}. How many more words does {A} type in {c} minutes?
> A hare runs {a} feet a second and a dog {b} feet. By how many feet is the hare ahead after {c}
    seconds?

== scene_price_back
b 2..12, e 2..30, s = b * e, c 2..60
each r = s / b
gain u = r + c
> {b} {Is} cost ${s}. {A} buys one of them and a {j} for ${c}. How much does {he} pay?
> {b} equal stones weigh {s} pounds. One of them and a brick of {c} pounds lie on a scale. What does
    it show?

== scene_how_many_each_left
b 2..10, e 3..20, s = b * e, c 2..15, c < e
share r = s / b
left u = r - c
> {s} {Fs} are shared fairly by {b} {Gs}. {A}, one of them, has eaten {c}. How many does {A} have
    left?
> A hike of {s} miles takes {b} equal days. Today {A} has gone {c} miles. How many miles are left
    today?

== scene_boxes_left
a 2..12, b 2..12, c 2..12, d 2..9
groups s = a * b
gain r = s + c
share u = r / d
> {A} has {a} bunches of {b} {Fs} and {c} single ones. {d} {Gs} split them all evenly. How many does
    each get?
> {a} tables of {b} guests and {c} guests at the bar are divided into {d} equal groups. How large is
    a group?

== scene_tickets_sold
a 100..400, b 2..9, c 10..40
rate s = b * c
left r = a - s
> {a} tickets are printed and {c} are sold every day. How many are unsold after {b} days?
> A film has {a} scenes. {c} scenes are shot each week. How many scenes are left after {b} weeks?

== scene_first_more_second
a 5..80, b 2..40, c 2..40
more s = a + b
fewer r = s - c
> {A} has {a} {Xs}, {B} has {b} more than {A}, and {C} has {c} fewer than {B}. How many {Xs} does
    {C} have?
> On {D} {a} cars were washed, on {E} {b} more than that, and the day after {c} fewer than on {E}.
    How many were washed then?

== scene_swap
a 10..90, b 2..30, c 2..30, b < a
lose s = a - b
gain r = s + c
> {A} swaps {b} of {his} {a} {Xs} for {c} of {B}. How many {Xs} does {A} have after the swap?
> {A} has {a} {Fs}. {He} trades {b} of them and gets {c} others. How many {Fs} does {he} have?

== scene_two_piles
a 10..200, b 5..150, b < a
diff s = a - b
> Two piles have {a} {Xs} together. One of them has {b}. How many are in the other pile?
> {A} and {B} picked {a} {Fs} together. {A} picked {b} of them. How many did {B} pick?

== scene_three_piles
a 30..250, b 5..90, c 5..90
lose s = a - b
lose r = s - c
> Three shelves hold {a} jars. The first holds {b} and the second {c}. How many jars are on the
    third shelf?
> {A}, {B} and {C} have {a} dollars in all. {A} has {b} and {B} has {c}. How many dollars does {C}
    have?

== scene_per_pack_cost
a 2..9, b 2..9, c 2..9
groups s = a * b
cost r = s * c
> {A} buys {a} crates with {b} melons each and pays ${c} for a melon. How much does {he} pay?
> {a} families have {b} children each. Every child pays ${c}. How many dollars do they pay?

== scene_needed_packs
a 5..90, b 5..90, c 2..10
total s = a + b
pack r = s / c
> A kitchen needs {a} {Fs} for lunch and {b} for dinner. They are sold in nets of {c}. How many nets
    are needed?
> {A} has {a} small and {b} large photos and glues {c} on a page. How many pages does {he} fill?

== scene_speed
b 2..12, e 5..60, s = b * e, c 2..9
each r = s / b
rate u = r * c
> A train goes {s} miles in {b} hours. How far does it go in {c} hours?
> {b} cooks peel {s} {Fs}, each the same number. How many do {c} cooks peel?
"""
