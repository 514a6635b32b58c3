"""Whether the machine is fit, and how much memory a model needs, from its files alone: one that does not fit is not
even tried, as on a CPU the system would kill the process without a message."""

from __future__ import annotations

import glob
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from adacd_cli import __version__
from adacd_cli.config import Settings
from adacd_cli.counting import amount, counted
from adacd_cli.doctor.findings import CANNOT, NO_FIT, Finding, checked, skipped
from adacd_cli.errors import DeviceError, ModelError
from adacd_cli.loading import hardware
from adacd_cli.loading.files import Source, inspect
from adacd_cli.loading.machine import Load, machine_facts, package_versions, usable_cores, versions
from adacd_cli.loading.pretrained import causal_config, context_length, gguf_config

if TYPE_CHECKING:
    import torch

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_NVIDIA = Path("/proc/driver/nvidia/version")

# of the cores, kept busy by other programs: a thread that waits for its core holds up all others
_TOO_BUSY = 0.5
_TIGHT = 0.9  # of the free memory: logits, activations and other programs were not counted
PROMPT_TOKENS = 256  # an ordinary prompt: a paragraph

Machine = dict[str, Any]
"""Facts, JSON values: the versions of adacd, Python and the packages that decide a model's tokens (None where
missing); `required` of those; `extras`, whether each is installed; `device` (None, with a `device_error`, where
there is none); `idle_gpu`, an NVIDIA GPU that this PyTorch cannot use; `cores`, usable and busy ones; `threads`."""


def inspect_machine(settings: Settings) -> Machine:
    load = Load()
    found: Machine = dict.fromkeys(("device", "free_bytes", "native_bfloat16"))
    found["cores"] = os.cpu_count() or 1
    try:
        device = hardware.choose_device(settings.device)
        found |= machine_facts(device)
        found |= {"free_bytes": hardware.free_on(device), "native_bfloat16": hardware.native_bfloat16(device)}
    except DeviceError as error:
        found["device_error"] = (error.message, error.hint)
    required, extras = _requirements()
    return {
        **found,
        "adacd": __version__,
        "python": platform.python_version(),
        **package_versions(),
        "required": required,
        "extras": extras,
        "idle_gpu": _NVIDIA.exists() and not str(found["device"]).startswith("cuda"),
        "usable_cores": usable_cores(),
        "busy_cores": round(load.busy_cores(), 1),
        "threads": settings.threads or load.free_cores(),
    }


def _requirements() -> tuple[dict[str, str], dict[str, bool]]:
    required, extras = dict[str, str](), dict[str, bool]()
    try:
        lines = requires("adacd") or ()
    except PackageNotFoundError:  # run from a clone that was not installed
        return required, extras
    for requirement in map(Requirement, lines):
        name, extra = requirement.name, str(requirement.marker or "").partition("extra ==")[2].strip(" \"'")
        if not extra and name in package_versions():
            required[name] = str(requirement.specifier)
        here = requirement.marker is None or requirement.marker.evaluate({"extra": extra})  # on this system
        if extra and extra != "dev" and here:
            found = versions(name)[name]
            here = found is not None and requirement.specifier.contains(found, prereleases=True)
            extras[extra] = extras.get(extra, True) and here
    return required, extras


def check(machine: Machine, settings: Settings) -> tuple[Finding, ...]:
    of_versions, of_device = check_versions(machine), check_device(machine)
    threads, bfloat16 = check_threads(machine, settings.threads), check_bfloat16(machine, settings.dtype)
    return of_versions, of_device, threads, bfloat16, check_extras(machine)


def check_versions(machine: Machine) -> Finding:
    facts: dict[str, Any] = {name: machine.get(name) for name in ("adacd", "python", *package_versions())}
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
    sentence = "native on this device"
    if not native:
        sentence = "emulated on this device, so models run in another number format"
    if not native and dtype == "bfloat16":
        sentence = "emulated on this device, and slower than float32"
        step = "Leave --dtype out if memory has room for float32."
    return checked("bfloat16", {"native": native}, f"bfloat16 is {sentence}.", step)


def check_extras(machine: Machine) -> Finding:
    extras = machine["extras"].items()
    names = {word: [name for name, here in extras if here is (word == "")] for word in ("", "not ")}
    parts = [f"{word}installed: {', '.join(some)}" for word, some in names.items() if some]
    sentence = f"Optional extras {'; '.join(parts)}." if parts else "Which extras are installed is unknown."
    return checked("extras", dict(machine["extras"]), sentence)


@dataclass(frozen=True)
class Need:
    """What a model needs."""

    dtype: str  # the number format it computes in, or how it is quantised
    elements: int | None  # these two of its weights; None where its files do not say
    weights_bytes: int | None
    loading_bytes: int  # in addition while it is loaded, for the largest tensor while it is converted
    cache_bytes: int  # of the keys and values of two streams of `tokens`; 0 where unknown
    tokens: int  # of a prompt and its answer
    max_new_tokens: int


def estimate(settings: Settings, source: Source, device: torch.device) -> Need:
    """What the model of these files will need, as far as they tell. ModelError where the files are damaged, not
    complete, or of something else than a causal language model."""
    name, checkpoint = settings.model, None if source.gguf else inspect(source.folder, settings.model)
    if checkpoint is None:
        config, stored = gguf_config(source, name), "GGUF"
        # the loader does not count the weights of a GGUF file, and takes them for many
        elements, chosen = _elements(config), hardware.choose_dtype(settings.dtype, stored, device, None)
    else:
        config = causal_config(checkpoint, name, trust_remote_code=settings.trust_remote_code)
        stored, elements = checkpoint.dtype, checkpoint.elements
        chosen = hardware.choose_dtype(settings.dtype, stored, device, elements)
    if isinstance(chosen, str):  # the checkpoint's own number format
        itemsize, dtype = 4 if stored == "F32" else 2, _NAMES.get(stored, stored)
    else:
        itemsize, dtype = chosen.itemsize, str(chosen).removeprefix("torch.")
    weights = None if elements is None else elements * itemsize
    if checkpoint is not None:
        weights = hardware.weight_bytes(checkpoint, chosen, settings.quantize)
    text = config.get_text_config(decoder=True)
    largest = (getattr(text, "vocab_size", None) or 0) * (getattr(text, "hidden_size", None) or 0)
    tokens = PROMPT_TOKENS + settings.max_new_tokens
    tokens = min(tokens, context_length(config) or tokens)
    return Need(
        dtype=settings.quantize or dtype,
        elements=elements,
        weights_bytes=weights,
        loading_bytes=0 if _NAMES.get(stored, stored) == dtype else 4 * largest,
        cache_bytes=2 * cache_bytes(config, tokens, itemsize),
        tokens=tokens,
        max_new_tokens=settings.max_new_tokens,
    )


def check_mapped(source: Source, free: int | None) -> Finding:
    """Whether a GGUF file, or all files of a model in several, fits into the free bytes, as llama.cpp maps it."""
    assert source.gguf is not None
    stem, several, _ = source.gguf.partition("-00001-of-")
    parts = source.folder.glob(f"{glob.escape(stem)}*.gguf" if several else glob.escape(source.gguf))
    needed = sum(each.stat().st_size for each in parts)
    sentence, step = f"Its weights are mapped from the file, {amount(needed)}", ""
    if free is None:
        return skipped("memory", f"{sentence}; how much memory is free is unknown.")
    sentence += f"; {amount(free)} are free"
    if needed > free:
        sentence, step = f"{sentence}: it will be read again and again", "Use a smaller file."
    return checked("memory", {"weights_bytes": needed, "free_bytes": free}, f"{sentence}.", step)


def free_for(device: torch.device) -> int | None:
    """Free bytes for a model there, on all GPUs where it may be spread over several; None if unknown."""
    import torch

    several = range(torch.cuda.device_count()) if device.type == "cuda" and device.index is None else ()
    if len(several) < 2:
        return hardware.free_on(device)
    return sum(hardware.free_on(torch.device("cuda", each)) or 0 for each in several)


def cache_bytes(config: Any, tokens: int, itemsize: int) -> int:
    """Bytes of the keys and values of that many tokens; 0 for a model that keeps something else."""
    text = config.get_text_config(decoder=True)
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size", "num_key_value_heads", "head_dim")
    layers, heads, hidden, shared, width = (getattr(text, name, None) for name in names)
    if not layers or not heads or not hidden:
        return 0
    return int(tokens * 2 * layers * (shared or heads) * (width or hidden // heads) * itemsize)


def _elements(config: Any) -> int | None:
    """How many weights a model of this configuration has; None where it cannot be built without them."""
    import torch

    from adacd_cli.bench.subject import construct

    try:
        return sum(int(each.numel()) for each in construct("", config, torch.float32, "meta").parameters())
    except ModelError:  # the loader will say what is wrong with it
        return None


def check_memory(need: Need, free: int | None, device: str) -> Finding:
    """Whether the model and an answer fit into the free memory, in bytes; None where unknown."""
    if need.weights_bytes is None:
        return skipped("memory", "The model's files do not say how much memory it needs.")
    sentence, step, verdict = f"Its weights need {amount(need.weights_bytes)} in {need.dtype}", "", ""
    if free is None:
        return skipped("memory", f"{sentence}; how much memory is free is unknown.")
    narrower = f"Use {'--dtype bfloat16, ' if need.dtype == 'float32' else ''}--quantize bnb-4bit, or"
    if need.dtype.endswith(("4bit", "int4")):
        narrower = "Use a machine with more memory, or"
    available = f"{amount(free)} are free on {device}"
    if need.weights_bytes > free:
        sentence, step, verdict = f"{sentence}, and {available}.", f"{narrower} a smaller model.", NO_FIT
    else:
        tokens = counted(need.tokens, "token")
        sentence += f", and two streams of {tokens} (prompt and answer) {amount(need.cache_bytes)}; "
        if need.weights_bytes + need.cache_bytes > free:
            sentence, verdict = f"{sentence}that does not fit: {available}.", NO_FIT
            step = f"Lower --max-new-tokens, which is {need.max_new_tokens:,}, or use a smaller model."
        elif need.weights_bytes + max(need.loading_bytes, need.cache_bytes) > _TIGHT * free:
            sentence, step = f"{sentence}that is tight: {available}.", f"{narrower} end other programs first."
        else:
            sentence += f"{available}."
    return checked("memory", {**asdict(need), "free_bytes": free}, sentence, step, verdict)
