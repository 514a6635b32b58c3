"""What a measurement was made with: the machine and the versions of packages, as JSON values."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def machine(device: torch.device, threads: int | None = None) -> dict[str, Any]:
    """Where it ran: system, processor, threads (None: those of torch), and the GPU where the device is one."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
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
    return {name: _version(name) for name in names}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
