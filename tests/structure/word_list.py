"""Phrases that do not belong in this project's prose, with plain words to use in their place.

Add a phrase when a review finds one that an English-speaking engineer would not write. Keep the expressions narrow: a
correct sentence must never need an exception.
"""

from typing import NamedTuple

ODD_BEGINNINGS = r"(Of|What|Who|Whose|Where|How|Whether|As|The same|Most(?! of))\b"
"""First words of a docstring or a help text that hide the thing described."""


class Phrase(NamedTuple):
    """A regular expression, matched in any case, that finds odd wording."""

    expression: str
    advice: str
    """The plain words, for the failure message."""
    example: str
    """A sentence that the expression finds."""


MORE = "longer|more|less|fewer|better|worse|smaller|larger|slower|faster|matter|different"
STANDS = r"\bstands? (?!for\b|in for\b|alone\b|out\b|aside\b|by\b)|\bstands?[,.;:)]|\bstanding in\b"
AFTER = "tokens?|drafts?|blocks?|rows?|states?|positions?|index|indices|masks?|chunks?|one|it|them|last"

PHRASES = [
    # denials
    Phrase(rf"(?<!there )(?<!it )\b(is|are) no (?!{MORE})", 'say "is not a …" or "must be a …"', "port=x is no port"),
    Phrase(r"(?<!there )\b(is|are) none\b", 'say "is not one", or name the thing', "an unfinished call is none"),
    Phrase(r"\bnobody\b|\banybody\b", 'name it: "no request", "no caller", "unused"', "nobody's request ends"),
    Phrase(r"\bwhoever\b", 'name it: "the request that …"', "whoever samples in it may have as many"),
    Phrase(r"\bis neither (true|a|an)\b", 'say "must be true or false"', "qk_norm=3 is neither true nor false"),
    Phrase(r"\b(is|are) not understood\b", 'say "must be …"', "prompt 3 is not understood"),
    Phrase(r"\b(do|does) not go with\b", 'say "cannot be combined with"', "min_tokens does not go with it"),
    # existing, coming and going
    Phrase(STANDS, 'say "is", "is stored", "is ready"', "wait until the engine stands."),
    Phrase(r"\bstood\b", 'say "was", "was ready"', "the engine has died before it stood"),
    Phrase(r"\b(has|have|had) died\b", 'say "exited"', "the engine has died while this request ran"),
    Phrase(r"\b(is|are) gone\b", 'say "has exited", "has disconnected", "was removed"', "the engine is gone"),
    Phrase(r"\bthat (is|are) here\b|\b(is|are) here, but\b", 'say "available"', "a GPU that is here cannot be used"),
    Phrase(r"\b(is|are) not here\b", 'say "does not exist", "is not available"', "/v2 is not here"),
    Phrase(r"\blets? in\b|\b(is|are|was|were) let in\b", 'say "is admitted"', "a grammar was let in"),
    Phrase(r"\bcomes? to a point\b", 'say "reaches a state"', "the grammar has come to a point"),
    Phrase(r"\b(cannot|could not) go on\b", 'say "cannot continue"', "the output could not go on"),
    # giving, taking, telling
    Phrase(
        r"\b(give|gives|given|giving|gave) (it |them |up |its own )?back\b",
        'say "returns" or "frees"',
        "before a row is given back",
    ),
    Phrase(
        r"\b(take|takes|taken|took|taking) (it |them |a request |the request |requests )?back\b",
        'say "aborts", "rejects" or "undoes"',
        "Take a request back; its iterator ends",
    ),
    Phrase(r"\b(is|are|was|were) told\b", 'say "is passed", "is notified"', "Chooses, and is told what happened"),
    Phrase(r"\b(tells?|told) no\b|\b(do|does) not tell\b", 'say "does not report"', "the server tells no rates"),
    Phrase(r"\b(it|this) is said\b", 'say "is reported"', "A server without counters: it is said."),
    Phrase(r"\bhears? (of|so)\b|\bheard (of|so)\b", 'say "is notified of"', "the engine hears of it"),
    Phrase(r"\bwhat opens\b", 'name it: "the password of the key"', "TLS: what opens the key."),
    Phrase(
        r"\bthought of (each|a|the|tokens)\b|\bwhat (a|the) model thought\b",
        'say "log-probability of"',
        "the model thought of each scored token",
    ),
    Phrase(r"\bwhat (is|was) asked\b", 'say "the request", "the requested …"', "One call: what was asked"),
    Phrase(r"\b(is|are|was|were) wanted\b", 'say "is expected" or "is needed"', "one of them is wanted"),
    Phrase(r"\bbe had\b", 'say "is available", "can be used"', "ConfigError where it cannot be had"),
    # time and manner
    Phrase(r"\banew\b", 'say "again"', "Record it anew."),
    Phrase(r"\bunasked\b", 'say "automatically", "by default"', "a new file is tested unasked"),
    Phrase(r"\buntried\b", 'say "untested"', "the platform exists untried"),
    Phrase(r"\bat hand\b", 'say "available" or "current"', "bytes at hand over bytes of a block"),
    Phrase(r"\bso many\b", 'say "that many", or give the number', "at most so many at once"),
    Phrase(
        r"\b(rides?|rode|ridden|riding)\b",
        'say "is in every second step", "share a batch"',
        "it rides every second step",
    ),
    Phrase(r"\blongest (of no use|unused)\b", 'say "least recently used"', "the one that was longest of no use"),
    Phrase(r"\bgone through again\b", 'say "is repeated"', "a file with fewer prompts is gone through again"),
    Phrase(r"\bdrafts? no more\b", 'say "stops drafting"', "the drafter has failed, and drafts no more"),
    Phrase(r"\b(come|comes|came) about\b", 'say "how it is computed"', "how they came about"),
    Phrase(r"\bwhat (came|comes) of\b", 'say "the result of"', "it learns what came of it"),
    Phrase(r"\bby fault of\b", 'say "because of"', "listed by fault of the bracket"),
    Phrase(r"\bfor the sake of\b", 'say "for" or "to"', "trials for the sake of times"),
    Phrase(r"\bby (a|the) draw\b", 'say "at random"', "accepted by a draw"),
    Phrase(r"\bin the place of\b", 'say "instead of" or "in place of"', "experts in the place of the MLP"),
    # quantities
    Phrase(r"\ball else\b", 'say "everything else"', "all else of the step is real"),
    Phrase(r"\b(is|are) but (one|a|few)\b", 'say "only one"', "where there is but one"),
    Phrase(r"\bbut for (a|an|the|its|their|those|what)\b", 'say "except for"', "at least 1, but for a row of -inf"),
    Phrase(r"\b(best|first|last|median|whole)'s\b", 'name it: "of the best window"', "the total is the best's"),
    Phrase(r"\bone part in this\b", 'say "1 / n of"', "at most one part in this of the room"),
    Phrase(r"\bsome thousand\b", 'say "several thousand"', "a histogram of some thousand tokens"),
    Phrase(r"\b(is|are) believed\b", 'say "is estimated"', "No time is believed to be below this"),
    # comparisons
    Phrase(r"\bas (the )?[\w'-]+ (\w+ )?(has|have) (it|them)\b", 'say "as in …"', "multiplied as the reference has it"),
    Phrase(
        r"\b(hold|holds|held) \S+( \S+)? against\b|\bheld against\b",
        'say "compare with"',
        "the tests hold it against SciPy's values",
    ),
    Phrase(r"\bagrees? with nothing\b", 'say "never matches"', "random weights agree with nothing"),
    Phrase(r"\balarm(s|ed)? without cause\b", 'say "false alarm"', "bounds that alarm without cause in 1 %"),
    Phrase(r"\bforgives?\b", 'say "tolerates"', "what the entry forgives"),
    Phrase(
        r"\bwhat reading its bytes allows\b",
        'say "the memory-bandwidth limit"',
        "81 % of what reading its bytes allows",
    ),
    # order
    Phrase(rf"\b({AFTER}) behind\b", 'say "after"', "no token behind the block"),
    Phrase(
        r"\bbehind (each|its|their|every) (first|last|draft|token|chunk|block|leading|prompt)",
        'say "after"',
        "a snapshot behind each prompt chunk",
    ),
    # persons
    Phrase(r"\b(?-i:he|his|him|himself)\b", 'say "they", or name the part', "never more than his own output"),
    # private names in the sampler
    Phrase(
        r"\bfirm (tokens?|ones?)\b|\brivals?\b|\bhopefuls?\b|\bquiet (rows?|tokens?)\b",
        'say "incumbent", "candidates", "shortlist"',
        "noise decides among the rivals",
    ),
]
