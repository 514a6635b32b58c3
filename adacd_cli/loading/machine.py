"""This machine: what it is, as JSON values, and which cores and memory other programs and cgroups leave free."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

from adacd_cli.counting import counted

_SHORTEST_LOOK = 0.1  # seconds; the kernel counts in hundredths


def usable_cores() -> int:
    """Cores that the affinity of this process and the quota of its cgroup let it use, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(allowed, _quota() or allowed)


def too_many_threads(threads: int | None) -> tuple[str, ...]:
    """A warning where more threads are asked for than there are cores."""
    if threads is None or threads <= (cores := usable_cores()):
        return ()
    here = counted(cores, "core")
    return (f"--threads {threads} is more than the {here} here, which makes decoding many times slower.",)


class Load:
    """How busy other programs keep the processor, from when this object was made until it is asked."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._before = _busy_seconds()

    def free_cores(self) -> int:
        """Cores this process may use and nobody else does, at least 1. Others are busy on as many cores as they
        used on average since this object was made (Linux), or as the load average of the last minute says
        (elsewhere). OMP_NUM_THREADS, where set, is the user's own limit."""
        allowed = usable_cores()
        limit = os.environ.get("OMP_NUM_THREADS", "")
        if limit.isdecimal() and int(limit) > 0:
            allowed = min(allowed, int(limit))
        return max(1, min(allowed, (os.cpu_count() or 1) - round(self.busy_cores())))

    def busy_cores(self) -> float:
        """Cores that others kept busy, as `free_cores` counts them; at least 0."""
        if self._before is None:
            return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        time.sleep(max(0.0, self._start + _SHORTEST_LOOK - time.monotonic()))
        after = _busy_seconds() or self._before
        everyone, own = (late - early for late, early in zip(after, self._before, strict=True))
        return max(0.0, everyone - own) / (time.monotonic() - self._start)


def _busy_seconds() -> tuple[float, float] | None:
    """CPU seconds that the machine has spent working and that this process has; None if unknown."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
        user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, line[1:9])
    except (OSError, ValueError):
        return None
    ticks = user + nice + system + interrupts + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:2])


def _quota() -> int | None:
    """Whole cores that the cgroup's CPU quota allows; None where there is none."""
    for folder in _cgroups("cpu"):
        for name, split in (("cpu.max", True), ("cpu.cfs_quota_us", False)):
            quota = _read(folder / name).split()
            period = quota[1:] if split else _read(folder / "cpu.cfs_period_us").split()
            if quota and period and quota[0].isdecimal() and int(period[0]) > 0:
                return max(1, int(quota[0]) // int(period[0]))
    return None


def _cgroups(controller: str) -> list[Path]:
    """This process's cgroup folders, version 2, then version 1; a container sees its own as the root."""
    root = Path("/sys/fs/cgroup")
    own = [line.split(":", 2)[2].lstrip("/") for line in _read(Path("/proc/self/cgroup")).splitlines()]
    places = [root, *(root / path for path in own)]
    return [*places, *(root / controller / path.relative_to(root) for path in places)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def free_memory() -> int | None:
    """Bytes of memory a program could still use, a cgroup's limit respected; None where nothing tells."""
    if (found := re.search(r"(?m)^MemAvailable:\s+(\d+)", _read(Path("/proc/meminfo")))) is None:
        return None
    free = int(found[1]) * 1024
    for folder in _cgroups("memory"):
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdecimal() and used.isdecimal():
            # file cache is given up when memory is needed
            cached = re.findall(r"(?m)^(?:in)?active_file (\d+)$", _read(folder / "memory.stat"))
            free = min(free, int(limit) - int(used) + sum(map(int, cached)))
    return free


def machine_facts(device: torch.device, threads: int | None = None) -> dict[str, Any]:
    """Where it ran: system, processor, threads (None: torch's), and the GPU where the device is one."""
    import torch

    model = re.search(r"(?m)^model name\s*:\s*(.*?)\s*$", _read(Path("/proc/cpuinfo")))
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def package_versions() -> dict[str, str | None]:
    """The versions of the packages that decide what a model says."""
    return versions("torch", "transformers", "tokenizers", "safetensors")


def versions(*names: str) -> dict[str, str | None]:
    """The versions of installed packages; None for one that is not installed."""
    found: dict[str, str | None] = dict.fromkeys(names)
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
