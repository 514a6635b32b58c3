"""The machine's checks: versions, device, threads, number format and extras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adacd_cli.counting import amount, counted
from adacd_cli.doctor.finding import Finding, failed, fine, skipped, warned
from adacd_cli.doctor.machine import Machine
from adacd_cli.doctor.verdict import CANNOT

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_TOO_BUSY = 0.5
"""Share of the cores that others may keep busy: beyond half of them an answer takes more than twice its time,
and a thread that waits for its core holds all the others up."""


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
            f"{here}; other programs keep {_counted_cores(machine.busy_cores)} busy, so it will be slow.",
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


def _counted_cores(cores: float) -> str:
    """`1.3 cores`."""
    return f"{cores:.1f} {'core' if round(cores, 1) == 1.0 else 'cores'}"
