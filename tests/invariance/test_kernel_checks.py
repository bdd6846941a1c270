"""Checks of kernels on this device: every function has one, what is exact passes, and leaks are found."""

from dataclasses import replace

import pytest

from outrider.invariance.check import check_kernels
from outrider.invariance.rules import ROWS, WITHOUT
from outrider.invariance.states import NAMES as STATES
from outrider.kernels import FUNCTIONS, OPTIONAL_FUNCTIONS
from tests.invariance import leaks, recorded
from tests.invariance.recorded import MEMBERS, SMALL


@pytest.fixture(scope="module")
def tiny():
    return recorded.record_tiny()


@pytest.fixture(scope="module")
def hybrid():
    return recorded.record_hybrid()


def differences(calls, **options):
    """Kernels that the quick check finds wrong, and their differences."""
    findings = check_kernels(calls, SMALL, seconds=0.0, is_quick=True, **options)
    return {finding.kernel: finding.differences for finding in findings if finding.differences}


def widest_of_each(calls):
    """The call of each function with the most rows."""
    return {call.name: call for call in sorted(calls, key=leaks.num_rows) if call.name in ROWS}


def unseen(calls):
    """Leaks that the quick check does not find."""
    missed = []
    for call in widest_of_each(calls).values():
        group = [other for other in calls if other.name in STATES] if call.name in STATES else [call]
        if call.name in STATES:
            group = list(widest_of_each(group).values())
        for name, function in leaks.leaks_of(call):
            if not differences(leaks.with_leak(group, call, function)):
                missed.append(f"{call.name}: {name}")
    return missed


def test_every_kernel_has_a_check_or_needs_none():
    assert {*ROWS, *WITHOUT, *STATES} == {*FUNCTIONS, *OPTIONAL_FUNCTIONS}
    assert not ROWS.keys() & WITHOUT.keys()


def test_what_is_exact_passes(tiny):
    assert differences(tiny) == {}
    names = {call.name for call in tiny}
    assert {"linear", "paged_attention", "choose", "process", "draft_choose", "apply_masks", "hash_rows"} <= names


def test_a_leak_in_any_kernel_is_found(tiny):
    assert unseen(tiny) == []


@pytest.mark.slow
def test_a_hybrid_passes_and_its_leaks_are_found(hybrid):
    assert differences(hybrid) == {}
    assert unseen([call for call in hybrid if call.name in (*STATES, "gate_heads", "state_rows")]) == []


@pytest.mark.slow
def test_a_leak_in_a_snapshot_is_found(hybrid):
    calls = [call for call in hybrid if call.name in STATES]
    for name in leaks.WRITTEN:
        leak = leaks.leaking_function(name, getattr(calls[0].kernels, name))
        (said,) = differences(leaks.with_kernel(calls, name, leak)).values()
        assert "behind a snapshot" in said[0]


def test_a_kernel_that_fails_is_a_difference(tiny):
    def function(*args, **kwargs):
        raise RuntimeError("out of shared memory")

    (call,) = [call for call in tiny if call.name == "add_rms_norm"]
    said = differences([replace(call, function=function)])["add_rms_norm"]
    assert "it failed: RuntimeError: out of shared memory" in said[0]


def test_tokens_that_are_never_read_may_be_anything(tiny):
    """After the last token of a row a stack may leave what it likes."""
    call = widest_of_each(tiny)["commit"]

    def function(token_ids, *args, **kwargs):
        call.function(token_ids, *args, **kwargs)
        token_ids[:, -1] += 5

    assert differences(leaks.with_leak([call], call, function)) == {}


def test_quick_forms_run_even_without_time_and_the_others_are_counted(tiny):
    (call,) = [call for call in tiny if call.name == "embedding"]
    (whole,) = check_kernels([call], SMALL, seconds=1.0, clock=lambda: 0.0)
    (none,) = check_kernels([call], SMALL, seconds=0.0, clock=lambda: 0.0)
    (quick,) = check_kernels([call], SMALL, seconds=0.0, is_quick=True)
    assert whole.num_left_out == 0 and quick.num_left_out == 0
    assert none.num_forms == quick.num_forms > 4
    assert none.num_left_out == whole.num_forms - none.num_forms > 0


@pytest.mark.slow
@pytest.mark.parametrize("member", MEMBERS)
def test_other_families_pass_and_their_leaks_are_found(member, tmp_path):
    calls = MEMBERS[member](tmp_path)
    assert differences(calls) == {}
    assert unseen(calls) == []


@pytest.mark.slow
def test_the_members_call_every_kernel(tiny, hybrid, tmp_path):
    """A kernel that no member calls has a check that no test has tried."""
    called = {call.name for call in [*tiny, *hybrid]}
    for number, (_, make) in enumerate(MEMBERS.items()):
        (directory := tmp_path / str(number)).mkdir()
        called |= {call.name for call in make(directory)}
    assert ROWS.keys() - called == {"write_kv", "text_linear", "linear_mxfp4", "experts_mxfp4"}
