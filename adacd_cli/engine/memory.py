"""Memory: how many requests it has room for, how much a run took, and what an error says of a shortage."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from mmap import PAGESIZE

import torch

from adacd_cli.config.methods import METHODS
from adacd_cli.engine.backend import Backend
from adacd_cli.engine.model import Request

# how much of the free memory the sequences may take; the rest is for what a forward needs besides
_SHARE = 0.5
_SCORES = 12  # about how many float32 tensors of the vocabulary's size a stream needs while a token is chosen
_MOST, _MOST_ON_CPU = 512, 64  # more sequences than these make no device faster, and each waits longer
_DONTNEED = 4  # of madvise, on Linux
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


def return_freed_memory() -> None:
    """Returns memory that was freed to the system, which glibc keeps otherwise; nothing with other C libraries."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def mapped_files() -> list[range]:
    """The addresses at which files are mapped into memory now; none on a system that does not tell."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            rows = [line.split(maxsplit=5) for line in maps]
    except OSError:
        return []
    spans = [row[0].split("-") for row in rows if len(row) == 6 and row[5].startswith("/")]
    return [range(int(start, 16), int(stop, 16)) for start, stop in spans]


def drop_pages(files: Sequence[range], address: int, size: int) -> None:
    """Lets go of the pages of a mapped file (one of what `mapped_files` gave; memory elsewhere is left alone) that
    were read, bytes; whoever needs them again reads the file again."""
    start, stop = -(-address // PAGESIZE) * PAGESIZE, (address + size) // PAGESIZE * PAGESIZE
    if stop > start and any(start in file and stop - 1 in file for file in files):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _DONTNEED)
