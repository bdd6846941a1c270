"""Staging: lists go to the device in one copy, in place on a CPU, through a ring of pinned buffers elsewhere."""

import numpy as np
import pytest
import torch

from outrider.device.staging import _LEAST, _LEAST_RECORD, _RECORDS, _RING, Staging
from outrider.platforms.base import select_platform
from tests.support.recording_accelerator import Platform

LISTS = {"rows": [3, 1, 2], "none": [], "large": np.array([1 << 40, -5])}


def stagings() -> list[Staging]:
    return [Staging(select_platform("cpu")), Staging(Platform())]


@pytest.mark.parametrize("staging", stagings(), ids=["in place", "pinned"])
def test_lists_come_back_by_name_from_one_copy(staging):
    put = staging.put(LISTS)
    assert list(put) == list(LISTS)
    assert all(tensor.dtype == torch.int64 for tensor in put.values())
    assert {name: tensor.tolist() for name, tensor in put.items()} == {name: list(v) for name, v in LISTS.items()}
    assert len({tensor.untyped_storage().data_ptr() for tensor in put.values()}) == 1


@pytest.mark.parametrize("staging", stagings(), ids=["in place", "pinned"])
def test_put_into_overwrites_the_same_memory(staging):
    target = torch.zeros(2, 3, dtype=torch.int64)
    place = target.data_ptr()
    staging.put_into(target, np.arange(6).reshape(2, 3))
    assert target.tolist() == [[0, 1, 2], [3, 4, 5]] and target.data_ptr() == place
    with pytest.raises(AssertionError, match="5 values for 6 places"):
        staging.put_into(target, np.arange(5))


@pytest.mark.parametrize("staging", stagings(), ids=["in place", "pinned"])
def test_each_list_begins_at_16_bytes(staging):
    places = [tensor.data_ptr() % 16 for tensor in staging.put(LISTS | {"last": [7]}).values()]
    assert len(places) == 4 and set(places) == {places[0]}


@pytest.mark.parametrize("staging", stagings(), ids=["in place", "pinned"])
def test_a_record_is_its_parts_one_after_the_other(staging):
    parts = [np.array([3, 1]), np.array([], dtype=np.int64), np.array([1 << 40])]
    assert staging.put_record(parts).tolist() == [3, 1, 1 << 40]


def test_a_pinned_buffer_is_used_again_only_after_its_last_copy():
    platform = Platform()
    staging, calls = Staging(platform), platform.recording.calls
    assert calls == [("pinned", _LEAST)] * _RING + [("pinned", _LEAST_RECORD)] * _RECORDS
    calls.clear()
    kept = [staging.put({"x": [number]})["x"] for number in range(_RING + 3)]
    expected = [call for number in range(_RING + 3) for call in (("query", number % _RING), ("record", number % _RING))]
    assert calls == expected, "the event of a buffer is asked before it is filled, and recorded after the copy"
    assert [tensor.tolist() for tensor in kept] == [[number] for number in range(_RING + 3)]
    assert [int(buffer[0]) for buffer in platform.recording.buffers[:4]] == [_RING, _RING + 1, _RING + 2, 3]


def test_a_buffer_grows_to_the_next_power_of_two_and_stays():
    platform = Platform()
    staging, recording = Staging(platform), platform.recording
    many = list(range(_LEAST + 1))
    recording.calls.clear()
    assert staging.put({"x": many})["x"].tolist() == many
    assert recording.calls == [("query", 0), ("pinned", 2 * _LEAST), ("record", _RING + _RECORDS)]
    for _ in range(_RING):
        staging.put({"x": [1]})
    recording.calls.clear()
    staging.put({"x": many})
    assert ("pinned", 2 * _LEAST) in recording.calls, "each buffer of the ring grows by itself"
    for _ in range(_RING - 2):
        staging.put({"x": [1]})
    recording.calls.clear()
    assert staging.put({"x": many})["x"].tolist() == many
    assert [name for name, _ in recording.calls] == ["query", "record"]


def test_the_host_does_not_wait_for_a_buffer_whose_copy_has_not_ended():
    platform = Platform()
    staging, recording = Staging(platform), platform.recording
    for number in range(_RING):
        staging.put({"x": [number]})
    recording.pending.add(0)
    recording.calls.clear()
    staging.put({"x": [5]})
    assert recording.calls == [("query", 0), ("pinned", _LEAST), ("record", _RING + _RECORDS)]
    assert int(recording.buffers[0][0]) == 0, "the copy that has not ended reads what it was given"
    recording.calls.clear()
    recording.pending.clear()
    staging.put({"x": [6]})
    assert recording.calls == [("query", 0), ("record", 0)]
