"""The distribution of the first token of the answer, without and with a contrast prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from adacd_cli.engine.backend import BASE, Extend, Logits, Need
from adacd_cli.engine.prefix_cache import PrefixCache
from adacd_cli.errors import OutOfMemoryError

if TYPE_CHECKING:
    from adacd_cli.engine.backend import Backend

_USUAL = 64
"""Tokens of a usual prompt."""

_TOLD = 1000
"""How many of the most probable tokens are asked of a server."""


class Observer:
    """Reads first tokens; texts that begin alike share what is computed, so that a contrast prompt at the end
    of the user's message costs its own words only.

    Attributes:
        exact: whether every log-probability was told; False where a server gives fewer.
    """

    def __init__(self, backend: Backend, batch_size: int = 8) -> None:
        self._backend, self._batch = backend, batch_size
        # few: what is kept is looked at by every token on llama.cpp
        self._cache = PrefixCache(2 * batch_size * backend.bytes_for(_USUAL))
        self.exact = True

    def read(self, prompts: Sequence[tuple[int, ...]]) -> Iterator[torch.Tensor]:
        """Log-probabilities of the token after each prompt, float32 [vocab] on the CPU, in order.

        Raises:
            OutOfMemoryError: there is not enough for a single prompt.
        """
        start = 0
        while start < len(prompts):
            batch = prompts[start : start + self._batch]
            try:
                rows = self._forward(batch)
            except OutOfMemoryError:
                self._cache.clear(self._backend)
                if self._batch == 1:
                    raise
                self._batch //= 2
                continue
            yield from rows
            start += len(batch)

    def close(self) -> None:
        """Lets go of what is cached."""
        self._cache.clear(self._backend)

    def _forward(self, batch: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        backend, fork = self._backend, self._backend.capabilities.fork
        opened = [self._cache.open(backend, BASE, ids) if fork else (backend.open(BASE), 0) for ids in batch]
        work = [
            Extend(sequence, ids[fed:], Need(top=_TOLD))
            for ids, (sequence, fed) in zip(batch, opened, strict=True)
        ]
        rows = [self._row(pending.result()) for pending in backend.forward(work)]
        for sequence, _ in opened:
            if fork:
                self._cache.park(backend, sequence, BASE)
            else:
                backend.close([sequence])
        return rows

    def _row(self, logits: Logits | None) -> torch.Tensor:
        assert logits is not None
        self.exact &= logits.told is None
        return logits.at()[0].float().log_softmax(dim=-1).cpu()
