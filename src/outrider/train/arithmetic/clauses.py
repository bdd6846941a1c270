"""The clauses that composed stories are made of: beginnings, events, ends. Training only.

{a}, {b} stand for numbers of a beginning, {q} for the number of an event or end. Every clause fits every
noun, so that stories cannot be learnt by heart. Knows nothing of how clauses are put together.
"""

ONE_AMOUNT = """
{A} has {a} {Xs}.
{A} starts with {a} {Xs}.
{A} starts the day with {a} {Xs}.
There are {a} {Xs} in the {k} of {A}.
There are {a} {Xs} at the {P}.
{A} owns {a} {Xs}.
In the morning {A} has {a} {Xs}.
{A} counts {a} {Xs} in {his} {k}.
A {k} holds {a} {Xs}.
The {P} has {a} {Xs}.
{a} {Xs} lie in a {k}.
{a} {Xs} are in the {P}.
{A} begins with {a} {Xs}.
{A} has got {a} {Xs} from {B}.
{A} brings {a} {Xs} to the {P}.
{A} made {a} {Xs}.
We find {a} {Xs} in the {k}.
At first there are {a} {Xs}.
The {g} has {a} {Xs}.
A {g} carries {a} {Xs}.
{A} gathers {a} {Xs}.
{A} buys {a} {Xs} on {D}.
In a {P} one can see {a} {Xs}.
{a} {Xs} were counted on {D}.
"""

TWO_AMOUNTS = """
{A} has {a} {V} {Xs} and {b} {W} {Xs}.
{A} has {a} {Xs} and {B} has {b} {Xs}. They put them together.
There are {a} {V} {Xs} and {b} {W} {Xs} in a {k}.
{A} collects {a} {Xs} on {D} and {b} on {E}.
{A} brings {a} {Xs} and {B} brings {b}.
One {k} has {a} {Xs} and another {k} has {b} {Xs}.
{a} {Xs} come from {A} and {b} from {B}.
In the first {k} are {a} {Xs}, in the second are {b}.
{A} makes {a} {Xs} before noon and {b} {Xs} after noon.
{A} gets {a} {Xs} from {B} and {b} {Xs} from {C}.
The {P} has {a} old {Xs} and {b} new {Xs}.
On {D} {a} {Xs} arrive, and on {E} {b} {Xs} arrive.
{A} counts {a} large and {b} small {Xs}.
A {g} has {a} {Xs}, and a second {g} has {b}.
{A} takes {a} {Xs} out of one {k} and {b} {Xs} out of the other.
"""

EQUAL_GROUPS = """
{A} has {a} {Ks} with {b} {Xs} in each.
There are {a} {Ks}. Each {k} holds {b} {Xs}.
There are {a} {Ks} with {b} {Xs} in every {k}.
{A} fills {a} {Ks} and puts {b} {Xs} in every {k}.
Every {k} has {b} {Xs}, and there are {a} {Ks}.
One {k} takes {b} {Xs}. {A} fills {a} {Ks}.
One {k} has room for {b} {Xs}, and {a} {Ks} are full.
{A} packs {b} {Xs} to a {k}. {He} packs {a} {Ks}.
{a} {Gs} bring {b} {Xs} each.
{a} {Gs} have {b} {Xs} each.
Each of {a} {Gs} gets {b} {Xs}.
In each of {a} {Ks} there are {b} {Xs}.
{a} {Ks} of {b} {Xs} each arrive.
{A} buys {a} {Ks} of {b} {Xs}.
At {b} {Xs} per {k}, {A} loads {a} {Ks}.
{A} sets up {a} rows of {b} {Xs}.
{A} lays {b} {Xs} in a row and makes {a} such rows.
A {k} is made with {b} {Xs}. {A} makes {a} {Ks}.
It takes {b} {Xs} to fill a {k}. {A} fills {a} of them.
{A} uses {b} {Xs} for one {k}, and {he} has {a} {Ks}.
The {P} has {a} {Ks}, and every {k} has {b} {Xs} in it.
{A} needs {b} {Xs} for every {g}. There are {a} {Gs}.
{A} gives {b} {Xs} to each of {a} {Gs}.
All {a} {Gs} carry {b} {Xs} apiece.
{A} makes {b} {Xs} a day for {a} days.
{A} makes {b} {Xs} an hour and works for {a} hours.
Every week {A} gets {b} {Xs}. This goes on for {a} weeks.
For {a} days {A} collects {b} {Xs} every day.
In one minute {b} {Xs} are made, and {a} minutes go by.
Each {g} wants {b} {Xs}, and {a} {Gs} come.
A row has {b} {Xs}. {A} counts {a} rows.
{A} owns {a} sets of {b} {Xs}.
"""

GAINS = """
{A} {gains} {q} {Xs}.
{He} {gains} {q} more.
{He} {gains} {q} {Xs} on {D}.
{q} more {Xs} are {gained}.
{q} new {Xs} are {gained}.
Then {he} {gains} {q} {Xs}.
Another {q} {Xs} are {gained}.
At the {P} {he} {gains} {q} more {Xs}.
Later {B} {gains} {q} more for {him}.
{He} finds {q} more.
{B} gives {him} {q} {Xs}.
{He} buys {q} {Xs} at the {P}.
{He} wins {q} at a game.
Then {he} gets {q} from {C}.
{He} makes {q} new ones.
On {D} {his} mother brings {q} {Xs}.
{He} receives {q} by mail.
{C} hands over {q} {Xs}.
Another {q} are added.
{He} picks up {q} on the way.
Grandfather sends {q} {Xs}.
{q} more are put in.
{q} more come.
Then {q} {Xs} are brought in.
{B} adds {q} {Xs}.
{B} brings back {q} {Xs}.
{q} {Xs} are returned.
Later {q} others join them.
A truck delivers {q} {Xs}.
After that {q} {Xs} arrive.
{He} borrows {q} {Xs} from {B}.
{He} earns {q} {Xs} for {his} work.
The number grows by {q}.
{q} new {Xs} are made.
On {E} {q} more show up.
{C} drops in {q} more.
{He} gains {q} {Xs}.
{He} takes {q} {Xs} from {B}.
{He} is given {q} {Xs}.
{His} father lays {q} {Xs} beside them.
{He} collects another {q}.
"""

LOSSES = """
{A} {loses} {q} {Xs}.
{He} {loses} {q} of them.
{He} {loses} {q} {Xs} on {D}.
{B} {loses} {q} of these {Xs}.
{q} {Xs} are {lost}.
{q} of them are {lost}.
{q} of the {Xs} have been {lost}.
Then {q} are {lost}.
Later {he} {loses} {q} {Xs} at the {P}.
During the night {q} {Xs} are {lost}.
{He} gives {q} to {B}.
{He} loses {q} of them.
{C} takes {q} {Xs}.
{He} sells {q} at the {P}.
{q} of them break.
Then {he} throws away {q}.
{He} lends {q} {Xs} to {C}.
On {D} {he} uses {q}.
{He} leaves {q} at the {P}.
{q} {Xs} are stolen.
{He} trades away {q}.
{He} hands {q} to a {g}.
{q} of the {Xs} are sold.
{q} go away.
Then {q} are taken out.
{B} carries off {q} {Xs}.
{B} borrows {q} {Xs}.
Later {q} {Xs} are removed.
A truck takes away {q} {Xs}.
After that {q} {Xs} leave.
{He} pays {q} {Xs} to {B}.
{He} gives back {q} {Xs}.
The number drops by {q}.
{q} {Xs} are bad and thrown out.
On {E} {q} are gone.
{C} steals {q}.
{He} spends {q} {Xs}.
{He} needs {q} {Xs} for {his} work.
{q} {Xs} fall down and are ruined.
{His} sister gets {q} {Xs}.
{q} of the {Xs} are used up.
{He} sends {q} {Xs} to {C}.
{He} takes home {q} and leaves the others there.
"""

GAIN_VERBS = """
buys|finds|makes|gets|wins|collects|picks|catches|earns|borrows|bakes|draws|writes|grows|builds|saves|gathers|receives
|discovers|adds|produces|orders|brings|inherits|learns|plants|paints|prints|sews|digs up|takes in|fetches|hunts|harvests
"""

GAIN_PARTICIPLES = """
added|bought|found|made|brought|built|delivered here|collected|picked|put in|born|grown|printed|painted|planted|written
|caught|gathered|brought in|returned|handed in|donated to them|discovered|baked|sewn|finished|set up|filled in|drawn
"""

LOSS_VERBS = """
loses|sells|gives away|throws out|throws away|breaks|uses|spends|eats|drops|burns|donates|mails|ships|delivers|hides
|destroys|cuts off|tears|trades away|wastes|removes|lends out|gambles away|forgets|ruins|drinks|serves|hands out|buries
|crosses out|returns to the shop|uses up|gives back|sends off|leaves behind|lets go|pays out|spoils|takes apart|empties
"""

LOSS_PARTICIPLES = """
lost|sold|eaten|stolen|broken|burned|thrown away|given away|used|used up|removed|destroyed|shipped|mailed|delivered|torn
|cut off|taken away|hidden|washed away|blown away|melted|spoiled|spent|traded away|crossed out|taken out|sent away
|wasted
|lent out|carried away|missing|gone|damaged|crushed|drunk|served|emptied|opened|scrapped|cancelled|closed|dead|dried up
"""

DOUBLINGS = """
Then the number of {Xs} doubles.
{B} gives {him} as many again.
{He} doubles the number of {Xs}.
A day later there are twice as many.
Soon there are two times as many {Xs}.
"""

HALVINGS = """
{He} gives half of them to {B}.
Half of the {Xs} are sold.
Half of them break.
{He} keeps only half of the {Xs}.
One half of the {Xs} are taken away.
"""

ASK_AMOUNT = """
How many {Xs} does {A} have now?
How many {Xs} are there at the end?
How many {Xs} are left?
What number of {Xs} is that in the end?
How many {Xs} are there now?
How many {Xs} is that?
How many {Xs} are there in all?
What is the number of {Xs} now?
How many {Xs} are there altogether?
Find the number of {Xs}.
How many {Xs} remain?
"""

ASK_SUM = """
How many {Xs} are there in all?
How many {Xs} is that altogether?
How many {Xs} are there together?
What is the total number of {Xs}?
How many {Xs} do they have in total?
How many {Xs} are there?
"""

SHARE_ENDS = """
{q} {Gs} share the {Xs} equally. How many {Xs} does each {g} get?
The {Xs} are divided equally among {q} {Gs}. How many {Xs} does every {g} get?
{A} puts the {Xs} into {q} {Ls}, the same number in each. How many {Xs} are in each {l}?
They are split evenly between {q} {Gs}. How many {Xs} does one {g} have?
{q} {Gs} divide them so that everybody has the same. How many {Xs} does a {g} get?
{A} hands them out to {q} {Gs}. Every {g} gets the same number. How many {Xs} is that for each?
All the {Xs} go into {q} equal piles. How many {Xs} are in a pile?
{A} lays them in {q} equal rows. How many {Xs} are in one row?
The {Xs} fill {q} {Ls} equally. How many {Xs} are in one {l}?
{A} uses them all up in {q} days, the same number every day. How many {Xs} is that a day?
They are loaded evenly onto {q} {Ls}. How many {Xs} are on every {l}?
{q} {Gs} get equal parts of the {Xs}. How large is one part?
The {Xs} are for {q} {Gs}, and all get the same. How many {Xs} are there for each {g}?
"""

PACK_ENDS = """
{A} packs them in {Ls} of {q}. How many {Ls} does {he} fill?
One {l} holds {q} {Xs}. How many {Ls} are needed?
Each {l} has room for {q} {Xs}. How many {Ls} can be filled?
The {Xs} are put in {Ls}, {q} {Xs} to a {l}. How many {Ls} are there?
{A} makes groups of {q}. How many groups are there?
Every {g} gets {q} {Xs}. For how many {Gs} is that enough?
They stand in rows of {q}. How many rows are there?
{A} uses {q} {Xs} a day. How many days do they last?
It takes {q} {Xs} to make one {l}. How many {Ls} can {A} make?
{A} gives {q} {Xs} to every {g}. How many {Gs} get {Xs}?
{q} {Xs} fit in a {l}. How many {Ls} does {A} need for them?
They are tied in bundles of {q}. How many bundles is that?
"""

PRICE_ENDS = """
{A} sells all of them for ${q} each. How much money does {he} get?
Each {x} costs ${q}. How many dollars do the {Xs} cost?
Every one is worth ${q}. How much are they worth together?
They are sold at ${q} apiece. How many dollars is that?
{A} pays ${q} for each of them. How much does {he} pay?
One {x} weighs {q} pounds. How many pounds do they weigh?
"""

MORE_ENDS = """
{B} has {q} more {Xs} than that. How many {Xs} does {B} have?
{C} has {q} more. How many {Xs} does {C} have?
In another {k} there are {q} {Xs} more. How many {Xs} are in it?
{B} beats that number by {q}. How many {Xs} does {B} have?
"""

FEWER_ENDS = """
{B} has {q} {Xs} fewer. How many {Xs} does {B} have?
{C} has {q} less than that. How many {Xs} does {C} have?
In another {k} there are {q} {Xs} fewer. How many {Xs} are in it?
{B} falls short of that number by {q}. How many {Xs} does {B} have?
"""

TIMES_ENDS = """
{B} has {q} times as many. How many {Xs} does {B} have?
In another {k} there are {q} times as many {Xs}. How many {Xs} are in it?
Next year there will be {q} times that number. How many {Xs} is that?
"""

DIFFERENCE_ENDS = """
{B} has {q} {Xs}. How many more {Xs} does {A} have than {B}?
There are only {q} {Ys}. How many more {Xs} than {Ys} are there?
{B} has {q}. By how many is that less?
{B} has {q}. How many {Xs} is {B} behind?
"""

NEED_ENDS = """
{A} needs {q} {Xs}. How many {Xs} are missing?
{A} wants to have {q} {Xs}. How many more does {he} need?
There is room for {q} {Xs}. How many more {Xs} fit in?
The goal is {q} {Xs}. How many {Xs} are still to go?
"""

OPENERS = """
On {D}
On {E}
In the {P}
At the {P}
After lunch
Before breakfast
Today
Last year
This week
Near the {P}
In spring
At night
With the help of {C}
During the holidays
As always
"""

ADJECTIVES = """
old heavy tiny wooden pretty clean dirty cheap fine thin thick long short wide soft hard warm cold dry wet bright dark
quiet loud fresh rare common strange plain funny lovely broken shiny dusty sweet bitter smooth rough hollow golden
local busy happy careful quick slow early late young modern ancient famous secret special simple
"""
