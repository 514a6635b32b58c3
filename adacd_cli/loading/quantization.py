"""`--quantize`: transformers' configuration that stores weights in fewer bits, and the packages it needs."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch

from adacd_cli.errors import DeviceError, MissingExtraError


def require(packages: tuple[str, ...], purpose: str) -> None:
    """Checks that optional packages are installed, without importing them.

    Args:
        packages: their import names.
        purpose: what needs them, the start of the message.

    Raises:
        MissingExtraError: one of them is not installed; the hint is the pip command.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"{purpose} needs {' and '.join(missing)}, which {verb} not installed.",
            f"pip install {' '.join(missing)}",
        )


def quantization_config(name: str, dtype: torch.dtype | str, device: torch.device) -> Any:
    """The transformers quantization configuration of a `quantize` setting.

    Args:
        name: bnb-4bit, bnb-8bit, torchao-int8 or torchao-int4.
        dtype: the number format to compute in; "auto" is bfloat16.

    Raises:
        MissingExtraError: its package is not installed.
        DeviceError: it does not run on this kind of device.
    """
    if name == "torchao-int4" and device.type != "cuda":
        raise DeviceError(
            f"--quantize torchao-int4 runs on a CUDA GPU only, and the device is {device}.",
            "Use --quantize torchao-int8 or bnb-4bit.",
        )
    library = "bitsandbytes" if name.startswith("bnb") else "torchao"
    require((library, "accelerate"), f"--quantize {name}")
    if library == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        # It warns at each matrix product that it casts its input.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        if name == "bnb-8bit":
            return BitsAndBytesConfig(load_in_8bit=True)
        compute = torch.bfloat16 if isinstance(dtype, str) else dtype
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    if name == "torchao-int8":
        return TorchAoConfig(Int8WeightOnlyConfig())
    # This packing runs on the kernel that PyTorch itself has; the default one needs a further package.
    return TorchAoConfig(Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d"))
