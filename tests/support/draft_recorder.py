"""Records the logits and picks of a chain drafter's passes; its drafts become the truth, or sometimes a wrong id."""

import torch

from outrider.speculation.chain import ChainDrafter


class Recorder:
    """Replaces the drafter's pick: records (position, logits, id picked) and drafts the true token, or a wrong one."""

    def __init__(self, answer: list[int], *, vocab_size: int, wrong_every: int | None) -> None:
        self.answer = answer + [0] * 64
        self.vocab_size = vocab_size
        self.wrong_every = wrong_every
        self.seen: list[list[tuple[int, torch.Tensor, int]]] = []
        self.count = 0

    def install(self, monkeypatch) -> None:
        recorder = self
        original, own_pick = ChainDrafter.propose, ChainDrafter._pick

        def propose(drafter, batch, *, hidden, verified):
            recorder.seen.append([])
            return original(drafter, batch, hidden=hidden, verified=verified)

        def pick(drafter, logits, batch, position):
            assert len(position) == 1
            place = int(position)
            recorder.seen[-1].append((place, logits[0].clone(), int(own_pick(drafter, logits, batch, position))))
            recorder.count += 1
            is_wrong = recorder.wrong_every is not None and recorder.count % recorder.wrong_every == 0
            return torch.tensor([(recorder.answer[place] + is_wrong) % self.vocab_size])

        monkeypatch.setattr(ChainDrafter, "propose", propose)
        monkeypatch.setattr(ChainDrafter, "choose_drafts", pick)
