"""Masks of grammars on the device: one buffer for all steps, which captured graphs read."""

from collections.abc import Sequence

import numpy as np
import torch

from outrider.core.plan import StepPlan
from outrider.device.staging import Staging
from outrider.sampling.sampler import SampleMasks


class MaskBuffer:
    """Masks for the samples of one step, overwritten for each step that has grammars; allocated for the first one."""

    def __init__(self, *, num_samples: int, vocab_size: int, staging: Staging, device: torch.device) -> None:
        """`num_samples`: the most that a step has."""
        self._num_samples = num_samples
        self._width = -(-vocab_size // 64)  # int64 numbers of a mask
        self._staging = staging
        self._device = device
        self._of_sample: torch.Tensor | None = None  # [num_samples] int64
        self._words: torch.Tensor | None = None  # [num_samples, width] int64

    def _buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._of_sample is None or self._words is None:
            self._of_sample = torch.full((self._num_samples,), -1, dtype=torch.int64, device=self._device)
            self._words = torch.zeros(self._num_samples, self._width, dtype=torch.int64, device=self._device)
        return self._of_sample, self._words

    def read(self, num_samples: int) -> SampleMasks:
        """The masks of a step of this many samples, as they are when the step runs."""
        of_sample, words = self._buffers()
        return SampleMasks(of_sample[:num_samples], words.view(torch.int32))

    def fill(self, plan: StepPlan, masks: Sequence[np.ndarray | None], *, samples_of_rows: Sequence[int]) -> None:
        """Overwrite the masks. masks: for each row of the plan with a grammar, those of its leading samples, [number,
        words] int32 with an even number of words, or None; its other samples, and those of other rows, get none.
        samples_of_rows: samples in the layout of each row of the plan."""
        of_sample, words = self._buffers()
        places = np.full(self._num_samples, -1, dtype=np.int64)
        given, start, count = iter(masks), 0, 0
        parts = []
        for row, num_samples in zip(plan.rows, samples_of_rows, strict=False):
            mask = next(given) if row.has_grammar else None
            if mask is not None:
                number = min(len(mask), num_samples)
                places[start : start + number] = np.arange(count, count + number)
                parts.append(mask[:number].reshape(-1).view(np.int64))
                count += number
            start += num_samples
        self._staging.put_into(of_sample, places)
        if count:
            self._staging.put_record_into(words[:count], parts)
