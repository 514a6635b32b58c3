"""How many requests run at once: as many as were asked for, or as many as memory has room for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.row import Request
from adacd_cli.engine.stream import Stream

_SHARE = 0.5
"""How much of the free memory the rows may take; the rest is for what a forward needs besides."""

_SCORES = 12
"""About how many float32 tensors of the vocabulary's size a row needs while its token is chosen."""

_MOST = {"cpu": 64}
_MOST_ELSEWHERE = 512
"""More rows than these make no device faster, and each waits longer."""


@dataclass
class Places:
    """How many requests run at once; a decoder lowers it where memory turns out to be short.

    Attributes:
        limit: at least 1; None for no limit.
    """

    limit: int | None = None


def fitting(model: LanguageModel, requests: Iterable[Request], free_bytes: int | None) -> Places:
    """As many places as free memory has room for, by the longest of the requests.

    Args:
        model: the model; it is fed one token, to see what its cache takes.
        requests: all that will be decoded.
        free_bytes: free memory on its device; None where it is not known.
    """
    need = max((_bytes(model, request) for request in requests), default=1)
    most = _MOST.get(model.device.type, _MOST_ELSEWHERE)
    return Places(most if free_bytes is None else max(1, min(most, int(_SHARE * free_bytes / need))))


def _bytes(model: LanguageModel, request: Request) -> int:
    """What the request's two rows may take at most."""
    tokens = request.prompts.longest + request.settings.max_new_tokens
    if model.context_length is not None:
        tokens = min(tokens, model.context_length)
    per_token, scores = _measured(model)
    return 2 * (tokens * per_token + _SCORES * scores)


def _measured(model: LanguageModel) -> tuple[int, int]:
    """Bytes that the cache takes a token, and that a row of float32 logits takes."""
    stream = Stream(model.model)
    logits = stream.feed([0], 1)
    return max(1, stream.bytes_held), logits.nbytes
