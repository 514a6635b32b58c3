"""Where a model runs and in which number format, whether its weights fit, and how torchrun's processes share it:
each runs the whole program and holds a share of every matrix, so all must do the same steps with the same draws."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import Any

import torch

from adacd_cli.config import Settings
from adacd_cli.errors import ConfigurationError, DeviceError, MissingExtraError, OutOfMemoryError
from adacd_cli.loading.files import Checkpoint
from adacd_cli.loading.machine import free_memory

# free memory over weights that one GPU must have, for caches and activations, to be preferred to several
_HEADROOM = 1.25
# weights below which a CPU computes in float32: on matrices so small bfloat16 gains nothing
_SMALL = 100_000_000
_ALONE = ("quantize", "expert", "draft", "direction")  # settings that were never tried with a divided model
# a weight's, the scales and the layers that stay wide included
_QUANTIZED_BYTES = {"bnb-4bit": 0.6, "bnb-8bit": 1.1, "torchao-int8": 1.1, "torchao-int4": 0.6}


def choose_device(name: str) -> torch.device:
    """The device a setting names; `auto` is the first of CUDA, MPS and CPU. DeviceError where it is not here."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    here = ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
    if name == "auto":
        return torch.device("cuda" if gpus else here[-1])
    if name in here or (name == "cuda" and gpus):
        return torch.device(name)
    reason = ""
    if name.startswith("cuda") and not gpus:
        reason = ": no CUDA GPU was found" if torch.version.cuda else ": this PyTorch is built without CUDA"
    raise DeviceError(f"There is no device '{name}' here{reason}.", f"Available: auto, {', '.join(here)}.")


def choose_dtype(name: str, stored: str, device: torch.device, elements: int | None) -> torch.dtype | str:
    """The number format to compute in, or "auto" for transformers to take the checkpoint's own.

    Args:
        name: the setting; `auto` is the checkpoint's own on a GPU. On a CPU it is bfloat16 for a checkpoint
            of 16 bits or fewer and of 100 million weights or more where the CPU computes in it natively, else
            float32: a small model gives the same numbers on every CPU.
        stored: the format of the checkpoint as safetensors writes it, `GGUF` for a GGUF file.
        elements: how many weights there are; None where that is not known, which counts as many.
    """
    if name != "auto":
        return getattr(torch, name)  # type: ignore[no-any-return]
    if device.type == "cpu":
        narrow = stored not in ("F32", "F64")
        pays = elements is None or elements >= _SMALL
        return torch.bfloat16 if narrow and pays and _computes_bfloat16() else torch.float32
    if stored == "GGUF":  # dequantised to float32 it would be larger than the model it was made of
        return torch.bfloat16 if native_bfloat16(device) else torch.float16
    return "auto"


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "mps" or _computes_bfloat16()


def _computes_bfloat16() -> bool:
    # has the CPU the instructions, and is PyTorch not held back from using them?
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    # PyTorch has no public way to ask.
    checks = (getattr(torch.cpu, f"_is_{what}_supported", None) for what in ("avx512_bf16", "amx_tile"))
    return any(check is not None and check() for check in checks)


def weight_bytes(checkpoint: Checkpoint, dtype: torch.dtype | str, quantize: str | None) -> int:
    """About how many bytes the weights take when they are loaded."""
    if quantize is not None:
        return int(checkpoint.elements * _QUANTIZED_BYTES[quantize])
    if isinstance(dtype, str) or "quantization_config" in checkpoint.config:
        return checkpoint.stored_bytes
    return checkpoint.elements * dtype.itemsize


def free_on(device: torch.device) -> int | None:
    """Bytes of free memory on a device; None where nothing tells."""
    if device.type != "cuda":
        return free_memory()
    # what PyTorch keeps of freed tensors is as good as free
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + kept)


def check_memory(what: str, needed: int, device: torch.device, hint: str) -> None:
    """OutOfMemoryError where so many bytes are known not to fit: on a CPU the system would end the process without
    a word. `what` begins the sentence, e.g. `The weights of demo need`."""
    free = free_on(device)
    if free is not None and needed > free:
        here = f"{free / 1e9:.1f} GB are free on {device}"
        raise OutOfMemoryError(f"{what} {needed / 1e9:.1f} GB, and {here}.", hint)


def placement(device: torch.device, needed: int | None, name: str) -> dict[str, Any]:
    """How `from_pretrained` is told to place the weights, of so many bytes where that is known: by a `device_map`
    for one GPU or, where "cuda" has no number, for all of them, or not at all where the model is built on the CPU
    and then moved. MissingExtraError where several GPUs are needed and accelerate is not installed;
    OutOfMemoryError where the weights alone need more memory than is free."""
    if device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1:
        free = torch.cuda.mem_get_info(0)[0]
        if needed is None or needed * _HEADROOM > free:
            require(("accelerate",), "A model across several GPUs")
            return {"device_map": "auto"}
    if needed is not None:
        hint = "Use --quantize bnb-4bit, --dtype bfloat16, or a smaller model."
        check_memory(f"The weights of {name} need", needed, device, hint)
    if device.type != "cpu" and find_spec("accelerate") is not None:
        return {"device_map": {"": device}}  # straight to the device, past the host's memory
    return {}


def require(packages: tuple[str, ...], purpose: str) -> None:
    """MissingExtraError, beginning with the purpose, where packages, by import name, are not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        hint = f"pip install {' '.join(missing)}"
        raise MissingExtraError(f"{purpose} needs {' and '.join(missing)}, which {verb} not installed.", hint)


def quantization_config(name: str, dtype: torch.dtype | str, device: torch.device) -> Any:
    """The transformers quantization configuration of a `quantize` setting; the number format "auto" is bfloat16.
    MissingExtraError where its package is not installed; DeviceError where it does not run on this device."""
    if name == "torchao-int4" and device.type != "cuda":
        what = f"--quantize torchao-int4 runs on a CUDA GPU only, and the device is {device}."
        raise DeviceError(what, "Use --quantize torchao-int8 or bnb-4bit.")
    library = "bitsandbytes" if name.startswith("bnb") else "torchao"
    require((library, "accelerate"), f"--quantize {name}")
    if library == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        # It warns at each matrix product that it casts its input.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        if name == "bnb-8bit":
            return BitsAndBytesConfig(load_in_8bit=True)
        own = {"bnb_4bit_compute_dtype": torch.bfloat16 if isinstance(dtype, str) else dtype}
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **own)
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    if name == "torchao-int8":
        return TorchAoConfig(Int8WeightOnlyConfig())
    # This packing runs on the kernel that PyTorch itself has; the default one needs a further package.
    return TorchAoConfig(Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d"))


def processes() -> int:
    """How many processes torchrun has started this program in; 1 without it."""
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if "LOCAL_RANK" in os.environ and count.isdecimal() and int(count) > 1 else 1


def is_first() -> bool:
    """Whether this is the process that speaks for all."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"


def tensor_parallel(settings: Settings) -> dict[str, Any]:
    """What `from_pretrained` needs to divide the model over torchrun's processes; {} where there is one.
    ConfigurationError where a setting is at odds with several processes."""
    count = processes()
    if count == 1:
        return {}
    for name in _ALONE:
        if getattr(settings, name) is not None:
            what = f"`{name}` cannot be used with a model that torchrun divides over {count} processes."
            raise ConfigurationError(what, f"Leave it out, or run {settings.model} in one process.")
    if settings.device.startswith("cuda:"):
        what = f"torchrun gives each process a GPU of its own, and `device` names {settings.device}."
        raise ConfigurationError(what, "Leave --device out.")
    if settings.temperature > 0 and settings.seed is None:
        what = "All of torchrun's processes have to draw the same tokens, and `seed` is not set."
        raise ConfigurationError(what, "Set it, e.g. --seed 1.")
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=count)}
