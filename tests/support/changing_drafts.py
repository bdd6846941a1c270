"""A draft policy that asks for another number of drafts in every step: 0 … k, up and down, and each after each."""

import itertools

from outrider import LLM


class ChangingDrafts:
    """Goes through every pair of numbers, one after the other."""

    def __init__(self, most: int) -> None:
        pairs = itertools.product(range(most + 1), repeat=2)
        self._numbers = itertools.cycle([number for pair in pairs for number in pair])
        self.chosen: list[int] = []

    def choose(self, requests):
        self.chosen.append(next(self._numbers))
        return self.chosen[-1]

    def see_row(self, request, *, num_drafts, num_accepted):
        pass

    def see_step(self, *, num_rows, num_drafts, num_proposals, seconds):
        pass


def change_drafts(llm: LLM, most: int) -> ChangingDrafts:
    """Give the engine such a policy, before its first step."""
    assert llm.engine.scheduler.num_steps == 0
    policy = ChangingDrafts(most)
    llm.engine.use_draft_policy(policy)
    return policy
