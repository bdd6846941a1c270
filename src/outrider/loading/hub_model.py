"""The name of a model on a hub, and which names can be one. Imports no library: see `loading/hub.py` for downloads."""

import re
from dataclasses import dataclass, field

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A model on a hub."""

    name: str
    """org/name; org/name:QUANTIZATION stands for a GGUF file."""
    revision: str | None = None
    """Branch, tag or commit; None: the main branch."""
    token: str | bool | None = field(default=None, repr=False)
    """Access token; True or None: HF_TOKEN or the one that `hf auth login` stored; False: none."""
    cache: str | None = None
    """Folder of the cache; None: the hub library's own."""

    @property
    def repository(self) -> str:
        """Its id without the quantization."""
        return self.name.partition(":")[0]

    @property
    def quantization(self) -> str:
        """The end of a GGUF file's name; empty if the id has none."""
        return self.name.partition(":")[2]


def is_hub_id(name: str) -> bool:
    """True if `name` can be the id of a model on a hub: "name", "org/name", or with ":QUANTIZATION"."""
    return _ID.fullmatch(name) is not None and not name.endswith((".gguf", ".json", ".safetensors"))
