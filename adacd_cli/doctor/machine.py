"""Whether the machine is fit: versions, device and its free memory, threads, number format and extras."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.counting import amount, counted
from adacd_cli.doctor.findings import CANNOT, Finding, checked, skipped
from adacd_cli.errors import DeviceError

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
"""The packages that decide a model's tokens."""

_NVIDIA = Path("/proc/driver/nvidia/version")

_TOO_BUSY = 0.5
"""Share of the cores that other programs may keep busy: beyond half of them an answer takes more than twice
its time, and a thread that waits for its core holds up all the others."""


@dataclass(frozen=True)
class Machine:
    """Facts about the machine; see `inspect_machine`.

    Attributes:
        packages: versions of the packages that decide a model's tokens; None for one that is missing.
        required: the versions that adacd requires, by package, as `>=5.20,<6`; empty where unknown.
        extras: whether the packages of each optional extra are installed.
        device, device_error: where a model would run; or None, and why, and what to do.
        idle_gpu: whether there is an NVIDIA GPU that this PyTorch cannot use.
        free_bytes: free memory on the device; None where unknown.
        cores, usable_cores, busy_cores: all; those that this process may use; those that others keep busy.
        native_bfloat16: whether the device has bfloat16 instructions; None without a device.
        facts: system, processor and the like, as a benchmark reports them.
    """

    python: str
    adacd: str
    packages: Mapping[str, str | None]
    required: Mapping[str, str]
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

    def to_json(self) -> dict[str, Any]:
        """The machine as JSON values."""
        names = ("device", "free_bytes", "usable_cores", "busy_cores", "threads", "native_bfloat16")
        versions = {"adacd": self.adacd, "python": self.python, **self.packages}
        return {**self.facts, **versions, **{name: getattr(self, name) for name in names}}


def inspect_machine(settings: Settings) -> Machine:
    """Collects the facts, which takes a tenth of a second; `device` and `threads` are read."""
    from adacd_cli import __version__
    from adacd_cli.loading.facts import machine, versions
    from adacd_cli.loading.hardware import choose_device, free_on, native_bfloat16
    from adacd_cli.loading.machine import Load, usable_cores

    load = Load()
    device, error, found = None, ("", ""), dict[str, Any]()
    try:
        device = choose_device(settings.device)
        found = machine(device)
    except DeviceError as refusal:
        error = (refusal.message, refusal.hint)
    required, extras = _requirements()
    return Machine(
        python=platform.python_version(),
        adacd=__version__,
        packages=versions(*_PACKAGES),
        required=required,
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


def _requirements() -> tuple[dict[str, str], dict[str, bool]]:
    """The versions that the installed adacd requires, and whether each of its extras is installed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    required: dict[str, str] = {}
    extras: dict[str, bool] = {}
    try:
        lines = requires("adacd") or ()
    except PackageNotFoundError:  # run from a clone that was not installed
        return required, extras
    for requirement in map(Requirement, lines):
        extra = str(requirement.marker or "").partition("extra ==")[2].strip(" \"'")
        if not extra and requirement.name in _PACKAGES:
            required[requirement.name] = str(requirement.specifier)
        if extra and extra != "dev":
            try:
                here = requirement.specifier.contains(version(requirement.name), prereleases=True)
            except PackageNotFoundError:
                here = False
            extras[extra] = extras.get(extra, True) and here
    return required, extras


def check(machine: Machine, settings: Settings) -> tuple[Finding, ...]:
    """Every check of the machine."""
    return (
        check_versions(machine),
        check_device(machine),
        check_threads(machine, settings.threads),
        check_bfloat16(machine, settings.dtype),
        check_extras(machine),
    )


def check_versions(machine: Machine) -> Finding:
    """Whether the packages have versions that adacd supports."""
    from packaging.specifiers import SpecifierSet

    shown = ", ".join(f"{name} {machine.packages.get(name)}" for name in ("torch", "transformers"))
    sentence, step = f"adacd {machine.adacd}, Python {machine.python}, {shown}", ""
    unsupported = [
        f"{name} {found} (requires {machine.required[name]})"
        for name, found in machine.packages.items()
        if name in machine.required
        and not (found and SpecifierSet(machine.required[name]).contains(found, prereleases=True))
    ]
    if unsupported:
        sentence += f"; not supported: {', '.join(unsupported)}"
        step = "Run pip install --upgrade adacd in an environment of its own."
    elif machine.required:
        sentence += ", all supported"
    facts = {"adacd": machine.adacd, "python": machine.python, **machine.packages}
    return checked("versions", facts, f"{sentence}.", step)


def check_device(machine: Machine) -> Finding:
    """Whether the device exists, and its free memory."""
    facts = {"device": machine.device, "gpu": machine.gpu, "free_bytes": machine.free_bytes}
    if machine.device is None:
        return checked("device", facts, *machine.device_error, CANNOT)
    name, step = machine.gpu or machine.facts.get("processor") or machine.facts.get("system", ""), ""
    sentence = f"Device {machine.device}" + (f" ({name})" if name else "")
    if machine.free_bytes is not None:
        sentence += f", with {amount(machine.free_bytes)} of free memory"
    if machine.idle_gpu:
        sentence += ". This machine's NVIDIA GPU is not used"
        step = "Leave --device out; if that does not help, install a PyTorch built for CUDA."
    return checked("device", facts, f"{sentence}.", step)


def check_threads(machine: Machine, threads: int | None) -> Finding:
    """Whether the threads have cores to run on: with more threads than free cores decoding collapses."""
    facts = {name: getattr(machine, name) for name in ("threads", "cores", "usable_cores", "busy_cores")}
    sentence = f"{counted(machine.threads, 'thread')} on {counted(machine.usable_cores, 'core')}"
    step = ""
    if machine.usable_cores < machine.cores:
        sentence += f" (of {machine.cores}; this process may use no more)"
    if machine.threads > machine.usable_cores:
        sentence += ": more threads than cores make decoding many times slower"
        step = f"Use --threads {machine.usable_cores}, or leave it out."
    elif machine.busy_cores >= _TOO_BUSY * machine.usable_cores:
        unit = "core" if round(machine.busy_cores, 1) == 1.0 else "cores"
        sentence += f"; other programs keep {machine.busy_cores:.1f} {unit} busy"
        fewer = machine.usable_cores > 1 and threads is not None and threads > 1
        step = "Wait for them, or " + ("give adacd fewer threads: --threads 1." if fewer else "end them.")
    return checked("threads", facts, f"{sentence}.", step)


def check_bfloat16(machine: Machine, dtype: str) -> Finding:
    """Whether bfloat16 is native: emulated it is slower than float32."""
    if machine.native_bfloat16 is None:
        return skipped("bfloat16", "bfloat16 was not checked: there is no device.")
    sentence, step = "bfloat16 is native on this device.", ""
    if not machine.native_bfloat16:
        sentence = "bfloat16 is emulated on this device, so models run in another number format."
        if dtype == "bfloat16":
            sentence = "bfloat16 is emulated on this device, and slower than float32."
            step = "Leave --dtype out if memory has room for float32."
    return checked("bfloat16", {"native": machine.native_bfloat16}, sentence, step)


def check_extras(machine: Machine) -> Finding:
    """Which optional extras are installed; AdaCD itself needs none."""
    parts = [
        f"{state}: {', '.join(names)}"
        for state, wanted in (("installed", True), ("not installed", False))
        if (names := [name for name, installed in machine.extras.items() if installed is wanted])
    ]
    sentence = f"Optional extras {'; '.join(parts)}." if parts else "Which extras are installed is unknown."
    return checked("extras", dict(machine.extras), sentence)
