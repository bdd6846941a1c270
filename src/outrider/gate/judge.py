"""The verdict: whether the drafter has become worse than its baseline.

On the platform of the baseline every integer must be equal, because the engine is exact. Elsewhere, and over HTTP,
each rate gets a bound. With b the baseline, τ the entry's relative tolerance, SE the standard error of the paired
difference and c the critical value of all tests together at the alarm level (`statistics.py`):

    one-sided (positions, steps with drafts)    fails if  b − now   > max(τ·b, c·SE)
    two-sided (mean acceptance length)          fails if |b − now|  > max(τ·b, c·SE)

So a change is reported if it is larger than the tolerance and larger than noise explains. If nothing changed, the whole
check alarms with at most the stated probability. An improvement can fail only the two-sided test,
which then says so: the baseline no longer describes the drafter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from outrider.gate import statistics
from outrider.gate.errors import GateError
from outrider.gate.sample import Measurement, Sample
from outrider.gate.statistics import LENGTH, Ratio


class Moved(StrEnum):
    """The kind of difference between two runs of one request."""

    TEXT = "text"
    """Different tokens: the target changed, so acceptance cannot be compared."""
    LOGITS = "logits"
    """Same tokens from different logits: the target's arithmetic changed."""
    ACCEPTANCE = "acceptance"
    """Same tokens and logits, different accepted drafts: the drafter changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first difference in one request."""

    prompt: str
    turn: int
    moved: Moved
    token: int | None
    """Index of the output token, from 0; None if only digests are known."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """The test of one rate against its baseline."""

    name: str
    baseline: float
    now: float
    margin: float
    """Margin that noise explains at this test's share of the alarm level."""
    tolerance: float
    """Tolerance of the entry, absolute."""
    is_two_sided: bool
    detectable_fall: float

    __test__ = False  # for pytest: not a test case

    @property
    def threshold(self) -> float:
        return max(self.margin, self.tolerance)

    @property
    def difference(self) -> float:
        return self.now - self.baseline

    @property
    def lower_bound(self) -> float:
        return self.baseline - self.threshold

    @property
    def upper_bound(self) -> float | None:
        return self.baseline + self.threshold if self.is_two_sided else None

    @property
    def passed(self) -> bool:
        return self.now >= self.lower_bound and (self.upper_bound is None or self.now <= self.upper_bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Result of a check."""

    is_exact: bool
    """True if integers were compared; False if rates with bounds."""
    differences: tuple[Difference, ...]
    tests: tuple[Test, ...]
    """Tests of the rates; with is_exact for information only."""
    alarm_level: float
    num_requests: int

    @property
    def passed(self) -> bool:
        return not self.differences if self.is_exact else all(test.passed for test in self.tests)

    @property
    def cause(self) -> str:
        """One sentence that names what changed."""
        if self.is_exact and self.differences:
            counts = {moved: sum(entry.moved is moved for entry in self.differences) for moved in Moved}
            first = self.differences[0]
            where = f"first in prompt {first.prompt}, turn {first.turn}" + (
                f", output token {first.token}" if first.token is not None else ""
            )
            if counts[Moved.TEXT]:
                what = f"the text changed in {counts[Moved.TEXT]} of {self.num_requests} requests: the target changed"
            elif counts[Moved.LOGITS]:
                what = (
                    f"the text is the same, logits differ in {counts[Moved.LOGITS]} of {self.num_requests} requests: "
                    "the target's arithmetic changed"
                )
            else:
                what = (
                    f"text and logits are the same, acceptance moved in {counts[Moved.ACCEPTANCE]} of "
                    f"{self.num_requests} requests: only the drafter changed"
                )
            return f"{what} ({where})"
        if self.is_exact:
            return f"every integer and digest of {self.num_requests} requests equals the baseline"
        failed = [test for test in self.tests if not test.passed]
        if not failed:
            return "no rate left its bounds"
        if all(test.now > test.baseline for test in failed):
            return "better than the baseline by more than noise and tolerance: record it again"
        return ", ".join(
            f"{test.name} {test.now:.4f} {'is below' if test.now < test.baseline else 'is above'} its bound "
            f"{test.lower_bound if test.now < test.baseline else test.upper_bound:.4f}"
            for test in failed
        )


def judge(
    now: Measurement, baseline: Sequence[Sample], *, is_exact: bool, tolerance: float, alarm_level: float
) -> Verdict:
    """Judges `now` against the samples of one baseline entry. Raises GateError if they cannot be compared."""
    _check_same_prompts(now.samples, baseline)
    differences = tuple(found for pair in zip(now.samples, baseline, strict=True) if (found := _first(*pair)))
    ours, theirs = statistics.ratios(now.samples), statistics.ratios(baseline)
    known = {ratio.name for ratio in ours} & {ratio.name for ratio in theirs}
    pairs = [
        (ratio, other)
        for ratio, other in zip(
            [ratio for ratio in ours if ratio.name in known],
            [ratio for ratio in theirs if ratio.name in known],
            strict=True,
        )
    ]
    num_prompts, fewest = len({sample.prompt for sample in baseline}), statistics.fewest_prompts(alarm_level)
    if not is_exact and num_prompts < fewest:
        raise GateError(
            f"the baseline has {num_prompts} prompts; at an alarm level of {alarm_level:.1%} fewer than {fewest} "
            "cannot show a fall. Record with more prompts."
        )
    tests = compare_rates(pairs, tolerance=tolerance, alarm_level=alarm_level)
    return Verdict(
        is_exact=is_exact,
        differences=differences,
        tests=tuple(tests),
        alarm_level=alarm_level,
        num_requests=len(baseline),
    )


def compare_rates(pairs: Sequence[tuple[Ratio, Ratio]], *, tolerance: float, alarm_level: float) -> list[Test]:
    """One test per (now, baseline) pair; together their false alarm probability is at most alarm_level."""
    two_sided = [baseline.name == LENGTH for _, baseline in pairs]
    critical = statistics.critical_value(pairs, two_sided, alarm_level=alarm_level)
    tests = []
    for (now, baseline), is_two_sided in zip(pairs, two_sided, strict=True):
        difference = statistics.difference(now, baseline)
        margin = critical * difference.standard_error
        forgiven = tolerance * baseline.value
        tests.append(
            Test(
                name=baseline.name,
                baseline=baseline.value,
                now=now.value,
                margin=margin,
                tolerance=forgiven,
                is_two_sided=is_two_sided,
                detectable_fall=statistics.smallest_detectable_fall(difference, max(margin, forgiven)),
            )
        )
    return tests


def _check_same_prompts(now: Sequence[Sample], baseline: Sequence[Sample]) -> None:
    if [(sample.prompt, sample.turn) for sample in now] != [(sample.prompt, sample.turn) for sample in baseline]:
        raise GateError(
            f"the prompts are not those of the baseline: {len(now)} requests here, {len(baseline)} there, or other "
            "ids. Use the baseline's prompt file, or record again."
        )
    for ours, theirs in zip(now, baseline, strict=True):
        if ours.seed != theirs.seed:
            raise GateError(
                f"prompt {ours.prompt}: seed {ours.seed} here, {theirs.seed} in the baseline. Record again."
            )
        if ours.turn == 1 and ours.prompt_digest != theirs.prompt_digest:
            raise GateError(
                f"prompt {ours.prompt} has other token ids than in the baseline: the file, the tokenizer or the chat "
                "template changed. Use the baseline's, or record again."
            )


def _first(now: Sample, baseline: Sample) -> Difference | None:
    """Returns the first difference of one request; None if there is none."""

    def difference(moved: Moved, token: int | None, detail: str) -> Difference:
        return Difference(prompt=now.prompt, turn=now.turn, moved=moved, token=token, detail=detail)

    if now.prompt_digest != baseline.prompt_digest:  # a later turn: an earlier answer differs already
        return difference(Moved.TEXT, None, "another prompt, because an earlier answer differs")
    if now.token_ids != baseline.token_ids:
        place = _first_place(now.token_ids, baseline.token_ids)
        was, is_now = _at(baseline.token_ids, place), _at(now.token_ids, place)
        return difference(Moved.TEXT, place, f"token id {was} became {is_now}")
    if now.tokens_digest != baseline.tokens_digest:
        return difference(Moved.TEXT, None, f"text digest {baseline.tokens_digest} became {now.tokens_digest}")
    if now.logits_digest != baseline.logits_digest:
        return difference(Moved.LOGITS, None, f"logits digest {baseline.logits_digest} became {now.logits_digest}")
    if now.accepted_by_step != baseline.accepted_by_step:
        place = _first_place(now.is_draft, baseline.is_draft)
        step = _first_place(now.accepted_by_step, baseline.accepted_by_step)
        was, is_now = _at(baseline.accepted_by_step, step), _at(now.accepted_by_step, step)
        return difference(Moved.ACCEPTANCE, place, f"step {step} accepted {is_now} drafts, it was {was}")
    for name in ("num_steps", "num_drafts", "num_draft_tokens", "num_accepted_tokens", "num_accepted_tokens_per_pos"):
        was, is_now = getattr(baseline, name), getattr(now, name)
        if was != is_now:
            return difference(Moved.ACCEPTANCE, None, f"{name} {was} became {is_now}")
    return None


def _first_place(left: Sequence[object], right: Sequence[object]) -> int:
    """First index at which two sequences differ; the shorter length if one is a prefix of the other."""
    places = (index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    return next(places, min(len(left), len(right)))


def _at(values: Sequence[object], place: int) -> object:
    return values[place] if place < len(values) else "the end"
