"""Makes a loaded model fast on its device: faster products on a CPU, compiled forwards on a GPU."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from adacd_cli.backends.torch.batch import BatchedKVCache
from adacd_cli.backends.torch.compiled import Compiled, uncompiled
from adacd_cli.backends.torch.matmul import speed_up
from adacd_cli.config import Settings
from adacd_cli.errors import first_line
from adacd_cli.loading.hardware import processes
from adacd_cli.loading.machine import free_memory
from adacd_cli.loading.progress import Progress

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel


def made_fast(
    model: LanguageModel, settings: Settings, progress: Progress, *, for_long: bool = False
) -> LanguageModel:
    """The model, as fast as this machine lets it be; with a warning where it could not be compiled. `for_long`:
    whether so much will be decoded that compiling pays off where the setting `compile` is None."""
    # what is found by a measurement may differ between the processes of torchrun, which must not
    if model.device.type == "cpu" and processes() == 1:
        speed_up(model.model, free_memory())
    if not (for_long and model.device.type == "cuda" if settings.compile is None else settings.compile):
        return model
    progress("Compiling (the first use takes a minute or more, later ones are read from disk)")
    begin = time.perf_counter()
    try:
        compiled = Compiled(model.model)
        warm_up(compiled)
    except Exception as error:  # the compiler's own errors are of many kinds
        warning = uncompiled(model.name, first_line(error))
        return replace(model, warnings=(*model.warnings, warning))
    progress(f"Compiled in {time.perf_counter() - begin:.0f} s")
    return replace(model, compiled=compiled)


def warm_up(compiled: Compiled) -> None:
    """Compiles what the first answers need: a row, and the two rows of a contrast window. TypeError where the model
    keeps more than keys and values; RuntimeError, in the compiler's words, where it cannot be compiled."""
    for rows in (1, 2):
        cache = BatchedKVCache(compiled.model, compiled)
        cache.prefill([[0, 0]] * rows)
        if not cache.joins:
            raise TypeError("it keeps a running state")
        for _ in range(2):  # the second time a CUDA graph is recorded
            cache.advance([0] * rows)
            if compiled.problem:
                raise RuntimeError(compiled.problem)
        cache.release()
