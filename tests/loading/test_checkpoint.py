"""Reading safetensors: single and sharded files, and every way in which they can be broken."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from outrider.core.errors import CheckpointError
from outrider.loading.checkpoint import INDEX, PICKLE, SINGLE, Checkpoint
from outrider.loading.hf import read_json

TENSORS = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "b.weight": torch.ones(4, dtype=torch.bfloat16),
    "c": torch.tensor([7, 8]),
}


def _write_shards(directory):
    """a and c in the first file, b in the second; the second also holds a tensor that the index does not name."""
    save_file({name: TENSORS[name] for name in ("a.weight", "c")}, directory / "one.safetensors")
    save_file({"b.weight": TENSORS["b.weight"], "stray": torch.zeros(1)}, directory / "two.safetensors")
    weight_map = {"c": "one.safetensors", "b.weight": "two.safetensors", "a.weight": "one.safetensors"}
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return weight_map


def _assert_complete(checkpoint):
    read = dict(checkpoint.tensors())
    assert read.keys() == TENSORS.keys() == checkpoint.names
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_a_single_file_gives_its_tensors(tmp_path):
    save_file(TENSORS, tmp_path / SINGLE)
    _assert_complete(Checkpoint(tmp_path))


def test_shards_follow_the_index_and_nothing_else(tmp_path):
    _write_shards(tmp_path)
    save_file({"a.weight": torch.zeros(9)}, tmp_path / "consolidated.safetensors")
    save_file({"a.weight": torch.zeros(9)}, tmp_path / SINGLE)
    _assert_complete(Checkpoint(tmp_path))


def test_a_pickle_is_read_where_there_is_nothing_else(tmp_path):
    torch.save(TENSORS, tmp_path / PICKLE)
    _assert_complete(Checkpoint(tmp_path))
    assert dict(Checkpoint(tmp_path).tensors({"c", "d"})).keys() == {"c"}
    save_file({"other": torch.zeros(2)}, tmp_path / SINGLE)
    assert Checkpoint(tmp_path).names == {"other"}


class _Code:
    def __reduce__(self):
        return print, ("loaded",)


@pytest.mark.parametrize("content", [{"a": _Code()}, [torch.ones(2)], {"a": 3}], ids=["code", "list", "number"])
def test_a_pickle_of_more_than_tensors_is_refused(tmp_path, content, capsys):
    torch.save(content, tmp_path / PICKLE)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is .* of tensors"):
        Checkpoint(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_truncated_pickle_is_named(tmp_path):
    torch.save(TENSORS, tmp_path / PICKLE)
    (tmp_path / PICKLE).write_bytes((tmp_path / PICKLE).read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is truncated or not a pickle"):
        Checkpoint(tmp_path)


def test_tensors_are_read_one_at_a_time(tmp_path):
    _write_shards(tmp_path)
    stream = Checkpoint(tmp_path).tensors()
    next(stream)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"two\.safetensors"):
        list(stream)


@pytest.mark.parametrize("kept", [4, 20, -1], ids=["length cut", "header cut", "data cut"])
@pytest.mark.parametrize("file", [SINGLE, "two.safetensors"])
def test_a_truncated_file_is_named(tmp_path, file, kept):
    _write_shards(tmp_path) if file != SINGLE else save_file(TENSORS, tmp_path / SINGLE)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=rf"{file} is truncated or not a safetensors.*Download it again"):
        Checkpoint(tmp_path)


def test_a_file_that_is_something_else_is_named(tmp_path):
    (tmp_path / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or not a safetensors file"):
        Checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    _write_shards(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names two\.safetensors, which is not in .*Download"):
        Checkpoint(tmp_path)


def test_an_index_that_promises_too_much_is_named(tmp_path):
    weight_map = _write_shards(tmp_path) | {"d.weight": "one.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"one\.safetensors holds 'd\.weight', and it does not"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', "\xff"])
def test_a_broken_index_is_named(tmp_path, content):
    (tmp_path / INDEX).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"is not an index of safetensors"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/hostname", 3])
def test_an_index_cannot_leave_its_directory(tmp_path, file):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(CheckpointError, match=r"files must lie in the directory itself"):
        Checkpoint(tmp_path)


def test_a_directory_without_weights_says_what_it_holds(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither model.safetensors nor"):
        Checkpoint(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"It holds weights\.pt: save it again as safetensors"):
        Checkpoint(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(CheckpointError, match=r"is not a directory. Give a local directory"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("file", ["consolidated.safetensors", "consolidated.00.pth"])
def test_the_consolidated_layout_is_refused_by_name(tmp_path, file):
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"consolidated files only.*Download model\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"params\.json and no config\.json: the consolidated layout"):
        read_json(tmp_path, "config.json")
