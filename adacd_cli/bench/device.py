"""What a device can do and what a run takes of it: memory bandwidth, bytes read a pass, peak memory."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_CPU_BYTES, _GPU_BYTES = 2**28, 2**30  # copied: several times any cache, small beside the memory
_COPIES = 8

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def synchronize(device: torch.device) -> None:
    import torch

    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def copy_bandwidth(device: torch.device) -> float:
    """Gigabytes (10⁹ bytes) a second that the best of several copies in the device's memory reads and writes. A CPU
    also reads what it is going to overwrite, which is not counted, so a loop that only reads can exceed it."""
    import torch

    size = _GPU_BYTES if device.type == "cuda" else _CPU_BYTES
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_COPIES):
        synchronize(device)
        begin = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size / best / 1e9


def weight_bytes(model: Any) -> int | None:
    """Bytes of weights that one pass over the model reads under Default; None where it does not read all (a mixture
    of experts) or their size is not known (torchao packs them)."""
    if getattr(model, "engine", "") == "llamacpp":
        return int(model.bytes)
    config = model.config.get_text_config(decoder=True)
    quantized = getattr(model.config, "quantization_config", "")
    if getattr(config, "num_experts_per_tok", None) or "torchao" in str(quantized):
        return None
    total = sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))
    # a pass looks up only a row a token of an input embedding that is not also the output's
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is not None and written is not None and read.weight is not written.weight:
        total -= read.weight.numel() * read.weight.element_size()
    return int(total)


class PeakMemory:
    """The peak memory between `reset` and `read`; `kind` is what PyTorch allocated on the `device` (CUDA), that of
    the `process` (Linux), or of the `process since its start`, which cannot tell methods apart."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            self.kind = "device"
        else:
            self.kind = "process" if _reset_resident() else "process since its start"

    def reset(self) -> None:
        """Starts to count again, from what is in use now."""
        gc.collect()
        if self.kind == "device":
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        elif self.kind == "process":
            from adacd_cli.engine.memory import return_freed_memory

            return_freed_memory()  # or it would count for the next method
            _reset_resident()

    def read(self) -> int | None:
        """Bytes; None where unknown."""
        from adacd_cli.engine.memory import peak_memory_bytes

        if self.kind != "process":
            return peak_memory_bytes(self._device) or None
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None


def _reset_resident() -> bool:
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
