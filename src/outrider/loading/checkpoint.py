"""Reads tensors by name from a directory of safetensors, one at a time, or from the single pickle of an old drafter.

It does not know what the tensors are for.
"""

import json
import pickle
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from outrider.core.errors import CheckpointError
from outrider.loading.files import check_kinds
from outrider.loading.gguf.file import gguf_remedy, refuse_gguf

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"


class Checkpoint:
    """The tensors of one directory. The constructor checks names and files; `tensors` reads the data."""

    def __init__(self, directory: str | Path) -> None:
        refuse_gguf(directory)
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise CheckpointError(f"{directory} is not a directory. Give a local directory that holds {SINGLE}.")
        check_kinds(self.directory)
        index = self.directory / INDEX
        self._names_of_file = _read_index(index) if index.is_file() else self._read_single()
        for file, names in self._names_of_file.items():
            self._check(file, names)

    @property
    def names(self) -> frozenset[str]:
        """Every tensor, by the name it has in the files."""
        return frozenset(name for names in self._names_of_file.values() for name in names)

    def tensors(self, chosen: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor on the host in its stored dtype), file by file, one at a time; all, or the `chosen` names."""
        for file, names in self._names_of_file.items():
            with _opened(self.directory / file) as opened:
                for name in names:
                    if chosen is None or name in chosen:
                        yield name, opened.get_tensor(name)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold tensors."""
        return tuple(self._names_of_file)

    def tensors_of(self, file: str) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all tensors in one of `files`."""
        with _opened(self.directory / file) as opened:
            for name in self._names_of_file[file]:
                yield name, opened.get_tensor(name)

    def headers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor on PyTorch's meta device, which has no data) of all tensors, read from headers."""
        for file, names in self._names_of_file.items():
            with _opened(self.directory / file) as opened:
                for name in names:
                    yield name, _header(opened, name, where=self.directory / file)

    def _read_single(self) -> dict[str, list[str]]:
        file = next((file for file in (SINGLE, PICKLE) if (self.directory / file).is_file()), None)
        if file is None and any(self.directory.glob("consolidated*")):
            raise CheckpointError(
                f"{self.directory} holds the weights as consolidated files only: this layout has other names, and rows"
                f" of q and k in another order, and is not supported. Download {SINGLE}, or {INDEX} and its files."
            )
        if file is None:
            others = sorted(entry.name for entry in self.directory.glob("*") if entry.suffix in (".bin", ".pt"))
            found = f" It holds {', '.join(others)}: save it again as safetensors." if others else ""
            found += gguf_remedy(self.directory)
            raise CheckpointError(f"{self.directory} holds neither {SINGLE} nor {INDEX} nor {PICKLE}.{found}")
        with _opened(self.directory / file) as opened:
            return {file: list(opened.keys())}

    def _check(self, file: str, names: list[str]) -> None:
        path = self.directory / file
        if not path.is_file():
            raise CheckpointError(f"{INDEX} names {file}, which is not in {self.directory}. Download the missing file.")
        with _opened(path) as opened:
            missing = sorted(set(names) - set(opened.keys()))
        if missing:
            raise CheckpointError(
                f"{INDEX} says that {path} holds {missing[0]!r}, and it does not ({len(missing)} such tensors)."
                " Download index and files of one revision."
            )


def _read_index(path: Path) -> dict[str, list[str]]:
    """File name -> names of its tensors, in the order of the index."""
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an index of safetensors ({error!r}). Download it again.") from error
    files: dict[str, list[str]] = {}
    for name, file in weight_map:
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{path} names {file!r} for {name!r}: files must lie in the directory itself.")
        files.setdefault(file, []).append(name)
    return files


class _Pickle:
    """A pickle that holds only tensors, with the interface of safetensors. Memory-mapped, so reading names is cheap."""

    def __init__(self, path: Path) -> None:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path} is truncated or not a pickle of tensors alone ({error})."
                " Download it again, or save it as safetensors."
            ) from error
        if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise CheckpointError(f"{path} is not a dict of tensors. Save the state_dict of the model as safetensors.")
        self._tensors = tensors

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name]


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
"""dtypes by their names in safetensors."""


def _header(opened: Any, name: str, *, where: Path) -> Tensor:
    if isinstance(opened, _Pickle):
        return opened.get_tensor(name).to("meta")
    found = opened.get_slice(name)
    dtype = found.get_dtype()
    if dtype not in _DTYPES:
        raise CheckpointError(
            f"{where}: {name!r} is stored as {dtype}, which is not read. Known: {', '.join(_DTYPES)}."
        )
    return torch.empty(found.get_shape(), dtype=_DTYPES[dtype], device="meta")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.name == PICKLE:
        yield _Pickle(path)
        return
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error}). Download it again.") from error
