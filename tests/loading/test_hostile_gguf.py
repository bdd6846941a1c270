"""GGUF files that somebody made to do harm, or that are cut off: each gives one clear error, soon, without memory."""

import itertools
import os
import re
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from outrider.core.config import engine_config
from outrider.core.errors import CheckpointError, OutriderError, UnsupportedError
from outrider.engine.tokenizer import Tokenizer
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.generation_config import read_sampling_defaults
from outrider.loading.gguf.file import GgufFile
from outrider.loading.gguf.tensors import GgufTensors
from outrider.loading.hf import read_json
from outrider.loading.hub_model import HubModel
from outrider.loading.model_source import local_path, with_local_files
from outrider.models import read_model_config
from tests.support.gguf_files import add_values, write_gguf
from tests.support.paged_runner import load_tiny
from tests.support.tiny_models import write_tiny_model

U32, TEXT, ARRAY = 4, 8, 9


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, *, dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file(
    keys: list[bytes], tensors: tuple[bytes, ...] | list[bytes] = (), *, version: int = 3, data: int = 64
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join([*keys, *tensors])
    return head + bytes(-len(head) % 32 + data)


NAME = key("general.architecture", TEXT, text("llama"))
HUGE = struct.pack("<Q", 2**63)

BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cannot be read"),
    "another file": (b"PK\3\4" + bytes(100), "it does not begin with GGUF"),
    "counts": (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0) + bytes(64), "it states 9223372036854775808 tensors"),
    "count of keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40) + bytes(64), "and 1099511627776 keys"),
    "length of a name": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + HUGE + bytes(64), "a name of 9223372036854775808"),
    "length of a text": (file([key("a", TEXT, HUGE)]), "it ends inside its header"),
    "length of an array": (file([key("a", ARRAY, struct.pack("<I", 0) + HUGE)]), "has 9223372036854775808 entries"),
    "array of nothing": (file([key("a", ARRAY, struct.pack("<IQ", 8, 2**21))]), "it ends inside its header"),
    "many arrays": (
        file([key(f"a{index}", ARRAY, struct.pack("<IQ", 0, 2**21) + bytes(2**21)) for index in range(3)]),
        "are the most for all arrays",
    ),
    "arrays of arrays": (file([key("a", ARRAY, struct.pack("<IQIQ", ARRAY, 1, 0, 1) + b"\1")]), "an array of type 9"),
    "type of a value": (file([key("a", 77, b"")]), "a value of type 77"),
    "bytes": (file([key("a", TEXT, text(b"\xff\xfe"))]), "the key 'a' is not UTF-8"),
    "bytes of a name": (file([key(b"\xff", U32, bytes(4))]), "a name is not UTF-8"),
    "key twice": (file([NAME, NAME]), "the key 'general.architecture' occurs twice"),
    "tensor twice": (file([NAME], [tensor("a"), tensor("a")]), "the tensor 'a' occurs twice"),
    "dimensions": (file([NAME], [tensor("a", dims=(1,) * 9)]), "the tensor 'a' has 9 dimensions"),
    "no values": (file([NAME], [tensor("a", dims=(0,))]), r"the tensor 'a' has shape \[0\]"),
    "sizes": (file([NAME], [tensor("a", dims=(2**63, 2**63))]), "the tensor 'a' ends after the file"),
    "sizes that wrap around": (file([NAME], [tensor("a", dims=(2**32, 2**32))]), "the tensor 'a' ends after the file"),
    "offset": (file([NAME], [tensor("a", offset=2**63)]), "the tensor 'a' ends after the file"),
    "crooked offset": (file([NAME], [tensor("a", offset=7)]), "and offset 7"),
    "blocks": (file([NAME], [tensor("a", dims=(33, 2), kind=8)]), r"has shape \[2, 33\], type Q8_0"),
    "alignment": (file([NAME, key("general.alignment", U32, bytes(4))], [tensor("a")]), "alignment=0 is not a power"),
    "cut off": (file([NAME], [tensor("a", dims=(8, 99))]), "the tensor 'a' ends after the file, which has"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_soon_and_without_memory(tmp_path: Path, case: str) -> None:
    data, says = BROKEN[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    begin, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=says) as caught:
        GgufFile(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000
    assert time.monotonic() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300 << 10  # KiB


def test_a_file_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    keys = [NAME, key("a", ARRAY, struct.pack("<IQ", TEXT, 2) + text("x") + text("yz")), key("b", U32, bytes(4))]
    whole, path = file(keys, [tensor("t", dims=(4, 4))]), tmp_path / "model.gguf"
    path.write_bytes(whole)
    assert GgufFile(path).tensors["t"].num_bytes == 64 and path.stat().st_size == len(whole)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            GgufFile(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (file([NAME], version=1), "has version 1, and versions 2 and 3"),
        (file([NAME], version=3 << 24), "is in the byte order of other machines"),
        (file([NAME, key("split.count", U32, struct.pack("<I", 3))]), "is one of 3 parts.*llama-gguf-split --merge"),
        (
            file([key("general.architecture", TEXT, text("mamba"))]),
            "'mamba' is not supported in GGUF. Supported: llama",
        ),
        (file([NAME], [tensor("token_embd.weight", dims=(256, 8), kind=10)], data=999), "'token_embd.weight' .* Q2_K"),
        (file([NAME], [tensor("token_embd.weight", kind=99)]), "type number 99, which is not supported"),
        (file([NAME], [tensor("blk.0.ssm_a")]), "tensor 'blk.0.ssm_a' is not supported"),
    ],
)
def test_forms_that_are_not_read_are_named_with_the_remedy(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "model.gguf").write_bytes(data)
    read = read_model_config if b"mamba" in data else GgufTensors
    with pytest.raises(UnsupportedError, match=says) as caught:
        read(tmp_path / "model.gguf")
    assert re.search("Use|Merge|Convert", str(caught.value))


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "device.gguf").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a named pipe"), ("device", "a device")):
        for read in (GgufTensors, read_model_config, Tokenizer, load_tiny):
            with pytest.raises(CheckpointError, match=f"{name}.gguf is {kind}, not a file"):
                read(tmp_path / f"{name}.gguf")


@pytest.mark.parametrize(
    "fields",
    [
        {"block_count": 2**31 - 1},
        {"block_count": 4000},
        {"embedding_length": 2**31 - 1},
        {"feed_forward_length": 2**31 - 1},
        {"attention.head_count": 2**31 - 1},
        {"attention.head_count_kv": 3},
        {"context_length": 2**31 - 1},
        {"attention.layer_norm_rms_epsilon": float("nan")},
    ],
)
def test_sizes_are_compared_with_the_tensors_before_memory_is_taken(tmp_path: Path, fields: dict) -> None:
    path = write_gguf(tmp_path / "model.gguf", write_tiny_model(tmp_path / "directory"), fields=fields)
    begin = time.monotonic()
    with pytest.raises(OutriderError) as caught:
        load_tiny(path, max_positions=fields.get("context_length", 64))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 2000 and time.monotonic() - begin < 10


OTHERS = ("text", "", True, 3, -1, 2**31, 0.5, float("nan"), float("inf"), [1], [], ["a", "b"], [0.5])


@pytest.mark.slow
def test_values_of_other_types_are_refused_or_harmless(tmp_path: Path) -> None:
    """Each key in turn has each other value; every error is one of ours."""
    model = write_tiny_model(tmp_path / "directory", "gemma3")
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", *(f"t{index}" for index in range(497))]
    tokenizer = {
        "ggml.tokens": tokens, "ggml.token_type": [2, 3, 3, *[1] * 500], "ggml.scores": [0.5] * 503,
        "ggml.pre": "gpt-2",
        "ggml.merges": ["a b"], "ggml.bos_token_id": 1, "ggml.eos_token_id": 2, "ggml.eot_token_id": 2,
        "ggml.add_bos_token": True, "ggml.add_space_prefix": False, "chat_template": "x", "chat_template.rag": "y",
    }  # fmt: skip
    plain = write_gguf(tmp_path / "model.gguf", model, tokenizer=tokenizer | {"ggml.model": "gpt2"})
    keys = [key for key in GgufFile(plain).section("") if key != "general.name"]
    outcomes = set()
    for kind, name in itertools.product(("gpt2", "llama"), [*keys, "general.sampling.temp", "split.count"]):
        for value in OTHERS:
            values = {f"tokenizer.{key}": one for key, one in (tokenizer | {"ggml.model": kind}).items()}
            path = rewrite(plain, tmp_path / "other.gguf", values | {name: value})
            for read in (read_model_config, Tokenizer, read_sampling_defaults):
                try:
                    read(path)
                    outcomes.add("harmless")
                except OutriderError as error:
                    assert len(str(error)) < 2000, error
                    outcomes.add("refused")
    assert outcomes == {"harmless", "refused"}


def rewrite(source: Path, path: Path, values: dict) -> Path:
    """A copy of a file with other values, and its tensors as headers of no size that matters."""
    found = GgufFile(source)
    writer = GGUFWriter(path, "gemma3")
    writer.kv_data[0].clear()
    add_values(writer, {key: value for key, value in (found.section("") | values).items() if value != []})
    for name, tensor in found.tensors.items():
        writer.add_tensor(name, np.zeros(tensor.shape, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_without_the_package_the_remedy_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(file([NAME]))
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "gguf.constants", raising=False)
    for read in (lambda: with_local_files(engine_config(str(path))), lambda: GgufFile(path)):
        with pytest.raises(
            UnsupportedError, match=r"need the gguf package. Install it: pip install 'outrider\[gguf\]'$"
        ):
            read()
    with pytest.raises(UnsupportedError, match="org/name:Q8_0: GGUF files need the gguf package"):
        local_path(HubModel(name="org/name:Q8_0"))


def test_a_path_that_leads_nowhere_and_a_directory_of_files_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.gguf' does not exist"):
        local_path(HubModel(name=str(tmp_path / "nowhere.gguf")))
    (tmp_path / "a.Q4_K_M.gguf").write_bytes(file([NAME]))
    for read in (lambda: read_json(tmp_path, "config.json"), lambda: Checkpoint(tmp_path)):
        with pytest.raises(CheckpointError, match=r"a\.Q4_K_M\.gguf.*[Gg]ive the path of the file"):
            read()


def test_heads_and_quantising_take_no_file(tmp_path: Path) -> None:
    (tmp_path / "head.gguf").write_bytes(file([NAME]))
    with pytest.raises(
        UnsupportedError, match=r"head.gguf is a GGUF file, which is read for targets and draft models only"
    ):
        Checkpoint(tmp_path / "head.gguf")
    with pytest.raises(UnsupportedError, match="which is read for targets and draft models only"):
        read_json(tmp_path / "head.gguf", "config.json")
