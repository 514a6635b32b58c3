"""Makes a loaded model fast on its device: faster products on a CPU, compiled forwards where wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from adacd_cli.engine.cache import grows, new_cache
from adacd_cli.engine.compiled import Compiled
from adacd_cli.engine.matmul import speed_up
from adacd_cli.loading.machine import free_memory
from adacd_cli.loading.parallel import processes

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine.model import LanguageModel


def made_fast(
    model: LanguageModel,
    settings: Settings,
    progress: Callable[[str], None],
    *,
    for_long: bool = False,
) -> LanguageModel:
    """The model, as fast as this machine lets it be.

    Args:
        model: a loaded model.
        settings: `compile` is read.
        progress: told in short lines what is being done.
        for_long: whether so much will be decoded that compiling is won back where `compile` is None.
    """
    # what is found by a measurement may differ between the processes of torchrun, which must not
    if model.device.type == "cpu" and processes() == 1:
        speed_up(model.model, free_memory())
    wanted = for_long and model.device.type == "cuda" if settings.compile is None else settings.compile
    return with_compiled(model, progress) if wanted else model


def with_compiled(model: LanguageModel, progress: Callable[[str], None]) -> LanguageModel:
    """The model with compiled forwards; where they cannot be had, without, and with a warning that says why.

    Args:
        model: a loaded model.
        progress: told that it takes a while.
    """
    progress("Compiling (the first use takes a minute or more, later ones are read from disk)")
    begin = time.perf_counter()
    try:
        if not _holds_keys_and_values(model):
            raise TypeError("it keeps a running state")
        compiled = Compiled(model.model)
        compiled.warm_up()
    except Exception as error:  # the compiler's own errors are of many kinds
        reason = next(iter(str(error).splitlines()), "").strip() or type(error).__name__
        warning = (
            f"{model.name} could not be compiled: {reason.rstrip('.')}. "
            "Decoding goes on without; the tokens are the same."
        )
        return replace(model, warnings=(*model.warnings, warning))
    progress(f"Compiled in {time.perf_counter() - begin:.0f} s")
    return replace(model, compiled=compiled)


def _holds_keys_and_values(model: LanguageModel) -> bool:
    import torch

    cache = new_cache(model.model)
    with torch.inference_mode():
        model.model(
            torch.zeros((1, 1), dtype=torch.int64, device=model.device), past_key_values=cache, use_cache=True
        )
    return grows(cache)
