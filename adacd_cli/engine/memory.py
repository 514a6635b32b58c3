"""Memory: how many requests it has room for, how much a run took, and what an error says of a shortage."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from adacd_cli.config.methods import METHODS

if TYPE_CHECKING:
    from adacd_cli.engine.backend import Backend
    from adacd_cli.engine.model import Request

_SHARE = 0.5
"""How much of the free memory the sequences may take; the rest is for what a forward needs besides."""

_SCORES = 12
"""About how many float32 tensors of the vocabulary's size a stream needs while a token is chosen."""

_MOST, _MOST_ON_CPU = 512, 64
"""More sequences than these make no device faster, and each waits longer."""

_SHORTAGES = ("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory")


def fitting_concurrency(backend: Backend, requests: Iterable[Request], free_bytes: int | None) -> int:
    """As many requests as the device's free memory has room for, by the longest of them; None is unknown."""
    can = backend.capabilities
    most = _MOST_ON_CPU if can.device.type == "cpu" else _MOST
    if free_bytes is None:
        return most
    need = 1
    for request in requests:
        settings = request.settings
        streams = METHODS[settings.effective_method].streams
        tokens = max(len(prompt.ids) for prompt in request.prompts.streams.values()) + settings.max_new_tokens
        if can.context_length is not None:
            tokens = min(tokens, can.context_length)
        size = backend.bytes_for(tokens) + _SCORES * 4 * (can.vocab_size or 0)
        need = max(need, len(streams) * size)
    return max(1, min(most, int(_SHARE * free_bytes / need)))


def peak_memory_bytes(device: torch.device) -> int:
    """Peak bytes allocated on a CUDA device, the process's peak resident size elsewhere; 0 if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows has no such figure in the standard library
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that there was no memory, whichever library raised it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in _SHORTAGES)
