"""How many requests run at once: as many as memory has room for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from adacd_cli.config.methods import METHODS

if TYPE_CHECKING:
    from adacd_cli.engine.backend import Backend
    from adacd_cli.engine.request import Request

_SHARE = 0.5
"""How much of the free memory the sequences may take; the rest is for what a forward needs besides."""

_SCORES = 12
"""About how many float32 tensors of the vocabulary's size a stream needs while a token is chosen."""

_MOST = {"cpu": 64}
_MOST_ELSEWHERE = 512
"""More sequences than these make no device faster, and each waits longer."""


def fitting_concurrency(backend: Backend, requests: Iterable[Request], free_bytes: int | None) -> int:
    """As many requests as free memory has room for, by the longest of them.

    Args:
        backend: who computes.
        requests: all that will be decoded.
        free_bytes: free memory on its device; None where it is not known.
    """
    most = _MOST.get(backend.capabilities.device.type, _MOST_ELSEWHERE)
    if free_bytes is None:
        return most
    need = max((_bytes(backend, request) for request in requests), default=1)
    return max(1, min(most, int(_SHARE * free_bytes / need)))


def _bytes(backend: Backend, request: Request) -> int:
    """What a request's streams may take at most."""
    settings, limit = request.settings, backend.capabilities.context_length
    streams = METHODS[settings.effective_method].streams
    tokens = max(len(prompt.ids) for prompt in request.prompts.streams.values()) + settings.max_new_tokens
    if limit is not None:
        tokens = min(tokens, limit)
    vocab = backend.capabilities.vocab_size or 0
    return max(1, len(streams) * (backend.bytes_for(tokens) + _SCORES * 4 * vocab))
