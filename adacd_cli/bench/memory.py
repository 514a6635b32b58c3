"""Peak memory of one run, and what a batch needs at least.

On CUDA the peak is of what PyTorch allocated on the device, on Linux of the process's resident memory, both
counted anew from `reset`; elsewhere it is the process's since its start, and cannot tell methods apart.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """The peak of one device's memory between `reset` and `read`.

    Args:
        device: where the model runs.

    Attributes:
        kind: what is counted: `device`, `process`, or `process since its start`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            self.kind = "device"
        else:
            self.kind = "process" if _reset_resident() else "process since its start"

    def reset(self) -> None:
        """Begins to count anew, from what is in use now."""
        gc.collect()
        if self.kind == "device":
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        elif self.kind == "process":
            _give_back_freed()  # or one method's freed memory would count for the next
            _reset_resident()

    def read(self) -> int | None:
        """Bytes; None where the system does not tell."""
        from adacd_cli.engine.memory import peak_memory_bytes

        if self.kind != "process":
            return peak_memory_bytes(self._device) or None
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None


def _reset_resident() -> bool:
    """Sets the process's peak resident size back to its size; whether the kernel did."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _give_back_freed() -> None:
    """Has the C library give freed memory back to the system, where it can be asked to."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass


def cache_bytes(config: Any, tokens: int, itemsize: int) -> int:
    """Bytes of the keys and values of that many tokens; 0 for a model that keeps something else.

    Args:
        config: a transformers configuration.
        tokens: how many.
        itemsize: bytes of a number.
    """
    text = config.get_text_config(decoder=True)
    layers, heads = (getattr(text, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    hidden = getattr(text, "hidden_size", None)
    if not layers or not heads or not hidden:
        return 0
    shared = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or hidden // heads
    return int(tokens * 2 * layers * shared * width * itemsize)
