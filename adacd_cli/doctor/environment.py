"""The machine's checks: versions, extras, device, threads and number format.

`look` gathers what they need, and is the one function here that asks the machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.counting import counted
from adacd_cli.doctor.finding import Finding, failed, fine, skipped, warned
from adacd_cli.doctor.verdict import CANNOT
from adacd_cli.errors import DeviceError

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
"""The packages that decide what a model says."""

_TOO_BUSY = 0.5
"""Share of the cores that others may keep busy: beyond half of them an answer takes more than twice its time,
and a thread that waits for its core holds all the others up."""

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


def examine(machine: Machine, settings: Settings) -> tuple[Finding, ...]:
    """Every check of the machine."""
    return (
        check_versions(machine),
        check_device(machine),
        check_threads(machine, settings.threads),
        check_bfloat16(machine, settings.dtype),
        check_extras(machine),
    )


def check_versions(machine: Machine) -> Finding:
    """Whether the packages are of versions that adacd asks for."""
    from packaging.specifiers import SpecifierSet

    shown = ", ".join(f"{name} {machine.packages.get(name)}" for name in ("torch", "transformers"))
    here = f"adacd {machine.adacd}, Python {machine.python}, {shown}"
    facts = {"adacd": machine.adacd, "python": machine.python, **machine.packages}
    outside = [
        f"{name} {found} (asked for: {machine.allowed[name]})"
        for name, found in machine.packages.items()
        if name in machine.allowed
        and not (found and SpecifierSet(machine.allowed[name]).contains(found, prereleases=True))
    ]
    if outside:
        return warned(
            "versions",
            f"{here}; not of a version that adacd was made for: {', '.join(outside)}.",
            "pip install --upgrade adacd, in an environment of its own.",
            facts,
        )
    asked = ", of versions that adacd asks for" if machine.allowed else ""
    return fine("versions", f"{here}{asked}.", facts)


def check_device(machine: Machine) -> Finding:
    """Whether the device is here, and its free memory."""
    facts = {"device": machine.device, "gpu": machine.gpu, "free_bytes": machine.free_bytes}
    if machine.device is None:
        return failed("device", *machine.device_error, facts, CANNOT)
    name = machine.gpu or machine.facts.get("processor") or machine.facts.get("system", "")
    free = ""
    if machine.free_bytes is not None:
        free = f", with {amount(machine.free_bytes)} of memory free"
    sentence = f"Device {machine.device}{f' ({name})' if name else ''}{free}."
    if machine.idle_gpu:
        return warned(
            "device",
            f"{sentence} The NVIDIA GPU here is not used.",
            "Leave --device out, and install a PyTorch built for CUDA if that does not help.",
            facts,
        )
    return fine("device", sentence, facts)


def check_threads(machine: Machine, asked: int | None) -> Finding:
    """Whether the threads have cores to run on: with more threads than free cores decoding collapses.

    Args:
        machine: the machine.
        asked: what `--threads` says; None takes as many as there are free cores.
    """
    facts = {
        "threads": machine.threads,
        "cores": machine.cores,
        "usable_cores": machine.usable_cores,
        "busy_cores": machine.busy_cores,
    }
    cores = counted(machine.usable_cores, "core")
    here = f"{counted(machine.threads, 'thread')} on {cores}"
    if machine.usable_cores < machine.cores:
        here += f" (of {machine.cores}, which is all this process may use)"
    if machine.threads > machine.usable_cores:
        return warned(
            "threads",
            f"{here}: more threads than cores make decoding many times slower.",
            f"Use --threads {machine.usable_cores}, or leave it out.",
            facts,
        )
    if machine.busy_cores >= _TOO_BUSY * machine.usable_cores:
        return warned(
            "threads",
            f"{here}; other programs keep {counted_cores(machine.busy_cores)} busy, so it will be slow.",
            "Wait for them, or let adacd have fewer threads: --threads 1."
            if machine.usable_cores > 1 and asked is not None and asked > 1
            else "Wait for them, or end them.",
            facts,
        )
    return fine("threads", f"{here}.", facts)


def check_bfloat16(machine: Machine, dtype: str) -> Finding:
    """Whether bfloat16 is native: emulated it is slower than float32, and takes half the memory all the same.

    Args:
        machine: the machine.
        dtype: what `--dtype` says.
    """
    name, facts = "bfloat16", {"native": machine.native_bfloat16}
    if machine.native_bfloat16 is None:
        return skipped(name, "bfloat16 was not looked at: there is no device.")
    if machine.native_bfloat16:
        return fine(name, "bfloat16 is native here.", facts)
    if dtype == "bfloat16":
        return warned(
            name,
            "bfloat16 is emulated here, and slower than float32.",
            "Leave --dtype out where memory has room for float32.",
            facts,
        )
    return fine(name, "bfloat16 is emulated here, so models run in another number format.", facts)


def check_extras(machine: Machine) -> Finding:
    """Which optional extras are installed; none is needed for AdaCD itself."""
    here = [name for name, installed in machine.extras.items() if installed]
    missing = [name for name, installed in machine.extras.items() if not installed]
    parts = [f"here: {', '.join(here)}"] if here else []
    parts += [f"not installed: {', '.join(missing)}"] if missing else []
    sentence = f"Optional extras {'; '.join(parts)}." if parts else "Which extras are here is not known."
    return fine("extras", sentence, dict(machine.extras))


def amount(size: int) -> str:
    """Bytes in decimal units: `14 MB`, `1.2 GB`, `130 GB`."""
    if size < 999_500_000:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 99_500_000_000 else f"{size / 1e9:,.0f} GB"


def counted_cores(cores: float) -> str:
    """`1.3 cores`."""
    return f"{cores:.1f} {'core' if round(cores, 1) == 1.0 else 'cores'}"
