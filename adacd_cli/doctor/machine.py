"""What the machine is: versions, extras, device, memory, threads and number format.

What it means is for the checks of `environment`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.errors import DeviceError

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
"""The packages that decide what a model says."""

_NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Machine:
    """What the machine is; see `look`.

    Attributes:
        python: its version.
        adacd: version of this package.
        packages: versions of the packages that decide what a model says; None for one that is missing.
        allowed: the versions that adacd asks for, by package, as `>=5.20,<6`; empty where nothing tells.
        extras: whether the packages of each optional extra are installed.
        device: where a model would run; None where the one asked for is not here.
        device_error: why there is no device, and what to do.
        gpu: name of the GPU; None on a CPU.
        idle_gpu: whether there is an NVIDIA GPU that this PyTorch cannot use.
        free_bytes: free memory there; None where nothing tells.
        cores: cores of the machine.
        usable_cores: cores that this process may use.
        busy_cores: cores that other programs keep busy.
        threads: threads that a model would compute with.
        native_bfloat16: whether the device has bfloat16 instructions; None without a device.
        facts: what a measurement is told with: system, processor and the like.
    """

    python: str
    adacd: str
    packages: Mapping[str, str | None]
    allowed: Mapping[str, str]
    extras: Mapping[str, bool]
    device: str | None
    device_error: tuple[str, str]
    gpu: str | None
    idle_gpu: bool
    free_bytes: int | None
    cores: int
    usable_cores: int
    busy_cores: float
    threads: int
    native_bfloat16: bool | None
    facts: Mapping[str, Any]


def look(settings: Settings) -> Machine:
    """Looks at the machine, for a tenth of a second.

    Args:
        settings: `device` and `threads` are read.
    """
    from adacd_cli import __version__
    from adacd_cli.loading.facts import machine, versions
    from adacd_cli.loading.hardware import choose_device, free_on, native_bfloat16
    from adacd_cli.loading.machine import Load, usable_cores

    load = Load()
    device, error = None, ("", "")
    try:
        device = choose_device(settings.device)
    except DeviceError as refusal:
        error = (refusal.message, refusal.hint)
    found = {} if device is None else machine(device)
    allowed, extras = _asked_for()
    return Machine(
        python=platform.python_version(),
        adacd=__version__,
        packages=versions(*_PACKAGES),
        allowed=allowed,
        extras=extras,
        device=None if device is None else str(device),
        device_error=error,
        gpu=found.get("gpu"),
        idle_gpu=_NVIDIA.exists() and (device is None or device.type == "cpu"),
        free_bytes=None if device is None else free_on(device),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        busy_cores=round(load.busy_cores(), 1),
        threads=settings.threads or load.free_cores(),
        native_bfloat16=None if device is None else native_bfloat16(device),
        facts={key: value for key, value in found.items() if key != "threads"},
    )


def _asked_for() -> tuple[dict[str, str], dict[str, bool]]:
    """The versions that the installed adacd asks for, and which of its extras are there."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    allowed: dict[str, str] = {}
    extras: dict[str, bool] = {}
    try:
        requirements = [Requirement(line) for line in requires("adacd") or ()]
    except PackageNotFoundError:  # run from a clone that was not installed
        return allowed, extras
    for requirement in requirements:
        marker = str(requirement.marker or "")
        if "extra ==" not in marker:
            if requirement.name in _PACKAGES:
                allowed[requirement.name] = str(requirement.specifier)
            continue
        extra = marker.partition("extra ==")[2].strip().strip("\"'")
        if extra == "dev":
            continue
        try:
            here = requirement.specifier.contains(version(requirement.name), prereleases=True)
        except PackageNotFoundError:
            here = False
        extras[extra] = extras.get(extra, True) and here
    return allowed, extras


def facts(machine: Machine) -> dict[str, Any]:
    """The machine in numbers and names, JSON values."""
    return {
        "adacd": machine.adacd,
        "python": machine.python,
        **machine.packages,
        "device": machine.device,
        "free_bytes": machine.free_bytes,
        "usable_cores": machine.usable_cores,
        "busy_cores": machine.busy_cores,
        "threads": machine.threads,
        "native_bfloat16": machine.native_bfloat16,
    }
