"""Settings of PyTorch that an engine in another process takes from its caller. This file does not import PyTorch."""

import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings:
    """Settings of one process that would apply to an engine in it."""

    num_threads: int | None = None
    """Threads of the CPU, on which the bits of a CPU's results depend. None: PyTorch's own choice."""
    device_index: int | None = None
    """Index of the current GPU; None if the process has not used one."""

    @classmethod
    def of_this_process(cls) -> "TorchSettings":
        """Settings in force here; none if PyTorch was not imported."""
        torch: Any = sys.modules.get("torch")
        if torch is None:
            return cls()
        index = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        return cls(num_threads=torch.get_num_threads(), device_index=index)

    def apply(self) -> None:
        """Make them the settings of this process, which has imported PyTorch."""
        torch: Any = sys.modules["torch"]
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        if self.device_index is not None:
            torch.cuda.set_device(self.device_index)
