"""Opens a GGUF file: its metadata, and where its tensors lie. It does not know what they mean.

The header is read here and not by the gguf package, whose reader believes every count and length: somebody else made
the file, and a made-up count must neither fill the memory nor end in a traceback.
"""

import mmap
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.loading.files import check_kind

SUFFIX = ".gguf"

_MAX_HEADER_BYTES = 1 << 28
_MAX_KEYS = 1 << 16
"""Largest number of keys, and of tensors."""
_MAX_NAME_BYTES = 1 << 10
_MAX_ENTRIES = 1 << 22
"""Largest number of entries of all arrays together: large vocabularies have 2**18 tokens and 2**19 merges."""
_MAX_DIMS = 4

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""Types of values, in the letters of `struct`."""
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor as it lies in the file."""

    name: str
    shape: tuple[int, ...]
    """Rows first, as in PyTorch; a file has the columns first."""
    type_name: str
    """The encoding of its values, such as "Q4_K"."""
    offset: int
    """From the beginning of the file, in bytes."""
    num_bytes: int


class GgufFile:
    """The header of a file; its tensors' bytes are mapped, and read when they are used."""

    def __init__(self, path: str | Path) -> None:
        """Raises CheckpointError if the file is cut off or inconsistent, UnsupportedError for a form that is not
        read."""
        self.path = Path(path)
        require_gguf(self.path)
        self._map = _mapped(self.path)
        header = _Header(self._map, self.path)
        num_tensors, num_keys = header.begin()
        self._metadata = header.metadata(num_keys)
        self._refuse_parts()
        self.tensors: dict[str, StoredTensor] = header.tensors(num_tensors, alignment=self._alignment())

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the metadata: a number, a string or a list of one of them; `default` where the key is absent."""
        return self._metadata.get(key, default)

    def section(self, prefix: str) -> dict[str, Any]:
        """All values whose keys begin with `prefix`, by the rest of the key."""
        return {key[len(prefix) :]: value for key, value in self._metadata.items() if key.startswith(prefix)}

    @property
    def architecture(self) -> str:
        """The family, such as "llama"."""
        name = self.get("general.architecture")
        if not isinstance(name, str):
            raise CheckpointError(f"{self.path} has no general.architecture. Download or convert it again.")
        return name

    def stored_bytes(self, tensor: StoredTensor) -> np.ndarray:
        """The bytes of a tensor as a view of the file: [num_bytes] uint8."""
        return np.frombuffer(self._map, dtype=np.uint8, count=tensor.num_bytes, offset=tensor.offset)

    def _refuse_parts(self) -> None:
        count = self.get("split.count", 1)
        if count != 1:
            raise UnsupportedError(
                f"{self.path} is one of {count} parts, which are not read. Merge them: llama-gguf-split --merge FIRST"
                " OUTPUT, where FIRST is the part that ends in -00001-of-….gguf."
            )

    def _alignment(self) -> int:
        alignment = self.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise CheckpointError(
                f"{self.path}: general.alignment={alignment!r} is not a power of two. Download it again."
            )
        return alignment


def is_gguf(path: str | Path) -> bool:
    """True if `path` names a GGUF file, or one that does not exist; a directory may be called as it likes."""
    return str(path).lower().endswith(SUFFIX) and not Path(path).is_dir()


def refuse_gguf(path: str | Path) -> None:
    """Raises UnsupportedError for a GGUF file where a directory is needed."""
    if is_gguf(path) and Path(path).exists():
        raise UnsupportedError(
            f"{path} is a GGUF file, which is read for targets and draft models only. Give a directory that holds"
            " safetensors."
        )


def gguf_remedy(directory: Path) -> str:
    """The remedy, as a sentence with a space before it, for a directory whose only models are GGUF files; else
    nothing."""
    names = sorted(path.name for path in directory.glob(f"*{SUFFIX}"))
    return f" It holds {', '.join(names[:8])}: give the path of the file." if names else ""


def require_gguf(path: str | Path) -> None:
    """Raises UnsupportedError unless the gguf package is installed. `path`: the file that needs it."""
    try:
        import gguf.constants  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"{path}: GGUF files need the gguf package. Install it: pip install 'outrider[gguf]'"
        ) from error


def _mapped(path: Path) -> mmap.mmap:
    check_kind(path)
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(path.stat().st_mode):
                raise CheckpointError(f"{path} is not a file. Check the path.")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist. Check the path.") from error
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{path} cannot be read ({error}). Download it again.") from error


class _Header:
    """Reads a header from its beginning; each length is compared with what is left before anything is made of it."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._end = min(len(data), _MAX_HEADER_BYTES)
        self._place = 0
        self._num_entries = 0

    def begin(self) -> tuple[int, int]:
        """The numbers of tensors and of keys."""
        if self._data[:4] != b"GGUF":
            raise CheckpointError(f"{self._path} is not a GGUF file: it does not begin with GGUF. Download it again.")
        self._place = 4
        version = self._number("<I")
        if version not in (2, 3):
            reason = "is in the byte order of other machines" if version & 0xFFFF == 0 else f"has version {version}"
            raise UnsupportedError(
                f"{self._path} {reason}, and versions 2 and 3, the lowest byte first, are read. Convert it again."
            )
        num_tensors, num_keys = self._number("<Q"), self._number("<Q")
        if max(num_tensors, num_keys) > _MAX_KEYS:
            raise self._broken(f"it states {num_tensors} tensors and {num_keys} keys, and {_MAX_KEYS} are the most")
        return num_tensors, num_keys

    def metadata(self, num_keys: int) -> dict[str, Any]:
        """All values by key."""
        found: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._name()
            if key in found:
                raise self._broken(f"the key {key!r} occurs twice")
            found[key] = self._value(self._number("<I"), key)
        return found

    def tensors(self, num_tensors: int, *, alignment: int) -> dict[str, StoredTensor]:
        """All tensors by name, whose bytes are known to lie in the file."""
        entries: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(num_tensors):
            name = self._name()
            if name in entries:
                raise self._broken(f"the tensor {name!r} occurs twice")
            num_dims = self._number("<I")
            if not 1 <= num_dims <= _MAX_DIMS:
                raise self._broken(f"the tensor {name!r} has {num_dims} dimensions")
            shape = tuple(self._number("<Q") for _ in range(num_dims))[::-1]
            entries[name] = shape, self._number("<I"), self._number("<Q")
        begin = -(-self._place // alignment) * alignment
        return {name: self._stored(name, *entry, begin=begin, alignment=alignment) for name, entry in entries.items()}

    def _stored(
        self, name: str, shape: tuple[int, ...], type_id: int, offset: int, *, begin: int, alignment: int
    ) -> StoredTensor:
        type_name, values_per_block, bytes_per_block = _encoding(type_id)
        num_values = 1
        for size in shape:
            num_values *= size
        if not num_values or shape[-1] % values_per_block or offset % alignment:
            raise self._broken(f"the tensor {name!r} has shape {list(shape)}, type {type_name} and offset {offset}")
        num_bytes = num_values // values_per_block * bytes_per_block
        if begin + offset + num_bytes > len(self._data):
            raise self._broken(f"the tensor {name!r} ends after the file, which has {len(self._data)} bytes")
        return StoredTensor(name=name, shape=shape, type_name=type_name, offset=begin + offset, num_bytes=num_bytes)

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return list(self._array(key))
        raise self._broken(f"the key {key!r} has a value of type {kind}, which there is not")

    def _array(self, key: str) -> Iterator[Any]:
        kind, count = self._number("<I"), self._number("<Q")
        self._num_entries += count
        if self._num_entries > _MAX_ENTRIES:
            raise self._broken(f"the key {key!r} has {count} entries, and {_MAX_ENTRIES} are the most for all arrays")
        if kind in _SCALARS:
            dtype = np.dtype(_SCALARS[kind])
            return iter(np.frombuffer(self._take(count * dtype.itemsize), dtype=dtype).tolist())
        if kind == _STRING:
            return (self._string(key) for _ in range(count))
        raise self._broken(f"the key {key!r} has an array of type {kind}, which is not read")

    def _name(self) -> str:
        length = self._number("<Q")
        if length > _MAX_NAME_BYTES:
            raise self._broken(f"a name of {length} bytes at {self._place}; {_MAX_NAME_BYTES} are the most")
        return self._text(length, "a name")

    def _string(self, key: str) -> str:
        return self._text(self._number("<Q"), f"the key {key!r}")

    def _text(self, length: int, what: str) -> str:
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._broken(f"{what} is not UTF-8") from error

    def _number(self, form: str) -> Any:
        place, size = self._place, struct.calcsize(form)
        self._skip(size)
        return struct.unpack_from(form, self._data, place)[0]

    def _take(self, length: int) -> bytes:
        place = self._place
        self._skip(length)
        return self._data[place : place + length]

    def _skip(self, length: int) -> None:
        if length > self._end - self._place:
            raise self._broken(
                f"it ends inside its header, or the header is longer than {_MAX_HEADER_BYTES >> 20} MiB:"
                f" {length} bytes are expected at {self._place} of {len(self._data)}"
            )
        self._place += length

    def _broken(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is cut off or not a sound GGUF file: {reason}. Download it again.")


def _encoding(type_id: int) -> tuple[str, int, int]:
    """Name, values in a block and bytes of a block of a tensor's type. One that the gguf package does not know takes
    no bytes: it is refused by name when the tensors are read."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(type_id)
    except ValueError:
        return f"number {type_id}", 1, 0
    return known.name, *GGML_QUANT_SIZES[known]
