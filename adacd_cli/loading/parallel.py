"""Tensor parallelism through transformers: one model over the processes that torchrun has started. Every process
runs the whole program and holds a share of each matrix; transformers and torch pass what they need to each other.
So all must do the same steps with the same draws."""

from __future__ import annotations

import os
from typing import Any

from adacd_cli.config import Settings
from adacd_cli.errors import ConfigurationError

_ALONE = ("quantize", "expert", "draft", "direction")  # settings that were never tried with a divided model


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
