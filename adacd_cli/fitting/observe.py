"""The distribution of the first token of the answer, without and with a contrast prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from adacd_cli.engine.backend import BASE, Extend, Need
from adacd_cli.engine.prefix_cache import PrefixCache
from adacd_cli.errors import OutOfMemoryError
from adacd_cli.fitting.learn import Array

if TYPE_CHECKING:
    from adacd_cli.engine.backend import Backend

_USUAL = 64
"""Tokens of a usual prompt."""

_TOLD = 1000
"""How many of the most probable tokens are asked of a server."""

_COLUMNS, _SEEN_FIRST = 4096, 64
"""How many tokens are kept of each prompt: the most probable ones of the first prompts."""


class Counting(Protocol):
    def add(self, _: object = None) -> None:
        """One more is done."""


Stage = Callable[[str, int], AbstractContextManager[Counting]]
"""Opens a step of so many parts for showing."""


class Observer:
    """Reads first tokens; texts that begin alike share what is computed, so that a contrast prompt at the end of
    the user's message costs its own words only."""

    def __init__(self, backend: Backend, batch_size: int = 8) -> None:
        self._backend, self._batch = backend, batch_size
        # few: what is kept is looked at by every token on llama.cpp
        self._cache = PrefixCache(2 * batch_size * backend.bytes_for(_USUAL))

    def read(self, prompts: Sequence[tuple[int, ...]]) -> Iterator[torch.Tensor]:
        """Log-probabilities of the token after each prompt, float32 [vocab] on the CPU, in order; OutOfMemoryError
        where there is not enough for a single prompt."""
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
        rows = []
        for pending in backend.forward(work):
            logits = pending.result()
            assert logits is not None
            rows.append(logits.at()[0].float().log_softmax(dim=-1).cpu())
        for sequence, _ in opened:
            if fork:
                self._cache.park(backend, sequence, BASE)
            else:
                backend.close([sequence])
        return rows


def observe(
    observer: Observer, prompts: Sequence[tuple[int, ...]], path: Path, stage: Stage
) -> tuple[Array, Array]:
    """Reads what PATH does not hold yet, and keeps it there. Gives the ids of the tokens that hold nearly all of
    the probability, int64 [columns], and their log-probabilities in nats, float32 [prompts, columns]."""
    columns, rows = None, []
    if path.exists():
        with np.load(path) as kept:
            columns, rows = kept["columns"], list(kept["rows"])
    left = prompts[len(rows) :]
    begin: list[torch.Tensor] = []

    def keep() -> None:
        assert columns is not None
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, columns=columns, rows=np.array(rows, dtype=np.float32))
        path.with_suffix(".part").replace(path)

    with stage("Reading prompts", len(left)) as counted:
        for row in observer.read(left):
            counted.add()
            if columns is None:
                begin.append(row)
                if len(begin) < min(_SEEN_FIRST, len(left)):
                    continue
                mass = torch.stack(begin).exp().mean(dim=0)
                columns = mass.topk(min(_COLUMNS, len(mass))).indices.numpy()
                rows = [each.numpy()[columns] for each in begin]
            else:
                rows.append(row.numpy()[columns])
            if len(rows) % _SEEN_FIRST == 0:
                keep()
    keep()
    return columns, np.array(rows, dtype=np.float32)
