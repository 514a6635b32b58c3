"""Whether the machine is fit: versions, device and its free memory, threads, number format and extras."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from adacd_cli import __version__
from adacd_cli.config import Settings
from adacd_cli.counting import amount, counted
from adacd_cli.doctor.findings import CANNOT, Finding, checked, skipped
from adacd_cli.errors import DeviceError
from adacd_cli.loading.hardware import choose_device, free_on, native_bfloat16
from adacd_cli.loading.machine import Load, machine_facts, usable_cores, versions

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
_NVIDIA = Path("/proc/driver/nvidia/version")

_TOO_BUSY = (
    0.5  # of the cores, kept busy by other programs: a thread that waits for its core holds up all others
)

Machine = dict[str, Any]  # facts about it; see `inspect_machine`

_NOT_REPORTED = ("required", "extras", "idle_gpu", "device_error")


def inspect_machine(settings: Settings) -> Machine:
    """Collects facts, JSON values, in a tenth of a second.

    Among them: the versions of adacd, Python and the packages that decide a model's tokens (None where missing);
    `required`, what adacd requires of those, and `extras`, whether each is installed; `device` (None, with a
    `device_error`, where there is none); `idle_gpu`, an NVIDIA GPU that this PyTorch cannot use; and `cores`,
    `usable_cores` of this process, `busy_cores` of others, `threads`.
    """
    load = Load()
    found: Machine = dict.fromkeys(("device", "free_bytes", "native_bfloat16"))
    found["cores"] = os.cpu_count() or 1
    try:
        device = choose_device(settings.device)
        found |= machine_facts(device)
        found |= {"free_bytes": free_on(device), "native_bfloat16": native_bfloat16(device)}
    except DeviceError as error:
        found["device_error"] = (error.message, error.hint)
    required, extras = _requirements()
    return {
        **found,
        "adacd": __version__,
        "python": platform.python_version(),
        **versions(*_PACKAGES),
        "required": required,
        "extras": extras,
        "idle_gpu": _NVIDIA.exists() and not str(found["device"]).startswith("cuda"),
        "usable_cores": usable_cores(),
        "busy_cores": round(load.busy_cores(), 1),
        "threads": settings.threads or load.free_cores(),
    }


def to_json(machine: Machine) -> dict[str, Any]:
    """What the report names of the machine, apart from the findings about it."""
    return {name: value for name, value in machine.items() if name not in _NOT_REPORTED}


def _requirements() -> tuple[dict[str, str], dict[str, bool]]:
    required, extras = dict[str, str](), dict[str, bool]()
    try:
        lines = requires("adacd") or ()
    except PackageNotFoundError:  # run from a clone that was not installed
        return required, extras
    for requirement in map(Requirement, lines):
        name, extra = requirement.name, str(requirement.marker or "").partition("extra ==")[2].strip(" \"'")
        if not extra and name in _PACKAGES:
            required[name] = str(requirement.specifier)
        here = requirement.marker is None or requirement.marker.evaluate({"extra": extra})  # on this system
        if extra and extra != "dev" and here:
            found = versions(name)[name]
            here = found is not None and requirement.specifier.contains(found, prereleases=True)
            extras[extra] = extras.get(extra, True) and here
    return required, extras


def check(machine: Machine, settings: Settings) -> tuple[Finding, ...]:
    return (
        check_versions(machine),
        check_device(machine),
        check_threads(machine, settings.threads),
        check_bfloat16(machine, settings.dtype),
        check_extras(machine),
    )


def check_versions(machine: Machine) -> Finding:
    """Whether the packages have versions that adacd supports."""
    facts: dict[str, Any] = {name: machine.get(name) for name in ("adacd", "python", *_PACKAGES)}
    shown = ", ".join(f"{name} {facts[name]}" for name in ("torch", "transformers"))
    sentence, step = f"adacd {facts['adacd']}, Python {facts['python']}, {shown}", ""
    unsupported = [
        f"{name} {facts[name]} (requires {wanted})"
        for name, wanted in machine["required"].items()
        if not (facts[name] and SpecifierSet(wanted).contains(facts[name], prereleases=True))
    ]
    if unsupported:
        sentence += f"; not supported: {', '.join(unsupported)}"
        step = "Run pip install --upgrade adacd in an environment of its own."
    elif machine["required"]:
        sentence += ", all supported"
    return checked("versions", facts, f"{sentence}.", step)


def check_device(machine: Machine) -> Finding:
    """Whether the device exists, and its free memory."""
    facts: dict[str, Any] = {name: machine.get(name) for name in ("device", "gpu", "free_bytes")}
    if machine["device"] is None:
        sentence, step = machine["device_error"]
        return checked("device", facts, sentence, step, CANNOT)
    name, step = facts["gpu"] or machine.get("processor") or machine.get("system", ""), ""
    sentence = f"Device {machine['device']}" + (f" ({name})" if name else "")
    if machine["free_bytes"] is not None:
        sentence += f", with {amount(machine['free_bytes'])} of free memory"
    if machine["idle_gpu"]:
        sentence += ". This machine's NVIDIA GPU is not used"
        step = "Leave --device out; if that does not help, install a PyTorch built for CUDA."
    return checked("device", facts, f"{sentence}.", step)


def check_threads(machine: Machine, given: int | None) -> Finding:
    """Whether the threads have cores to run on: with more threads than free cores decoding collapses."""
    names = ("threads", "cores", "usable_cores", "busy_cores")
    threads, cores, usable, busy = (machine[name] for name in names)
    sentence, step = f"{counted(threads, 'thread')} on {counted(usable, 'core')}", ""
    sentence += f" (of {cores}; this process may use no more)" if usable < cores else ""
    if threads > usable:
        sentence += ": more threads than cores make decoding many times slower"
        step = f"Use --threads {usable}, or leave it out."
    elif busy >= _TOO_BUSY * usable:
        sentence += f"; other programs keep {busy:.1f} {'core' if round(busy, 1) == 1.0 else 'cores'} busy"
        fewer = usable > 1 and given is not None and given > 1
        step = "Wait for them, or " + ("give adacd fewer threads: --threads 1." if fewer else "end them.")
    return checked("threads", {name: machine[name] for name in names}, f"{sentence}.", step)


def check_bfloat16(machine: Machine, dtype: str) -> Finding:
    """Whether bfloat16 is native: emulated it is slower than float32."""
    native, step = machine["native_bfloat16"], ""
    if native is None:
        return skipped("bfloat16", "bfloat16 was not checked: there is no device.")
    sentence = (
        "native on this device"
        if native
        else "emulated on this device, so models run in another number format"
    )
    if not native and dtype == "bfloat16":
        sentence = "emulated on this device, and slower than float32"
        step = "Leave --dtype out if memory has room for float32."
    return checked("bfloat16", {"native": native}, f"bfloat16 is {sentence}.", step)


def check_extras(machine: Machine) -> Finding:
    """Which optional extras are installed; AdaCD itself needs none."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, installed in machine["extras"].items():
        names[installed].append(name)
    parts = [f"{'' if here else 'not '}installed: {', '.join(some)}" for here, some in names.items() if some]
    sentence = f"Optional extras {'; '.join(parts)}." if parts else "Which extras are installed is unknown."
    return checked("extras", dict(machine["extras"]), sentence)
