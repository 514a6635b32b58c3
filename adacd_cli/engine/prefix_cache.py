"""The prefix cache: sequences that are parked when their request ends, and that later prompts begin with.

A new prompt takes a parked sequence over where it begins with all of it (the next turn of a chat), and is forked
from whatever it shares most with elsewhere, running sequences included. What is parked is bounded in bytes; what
was not used for longest goes first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adacd_cli.engine.backend import Backend, SequenceId, Weights
from adacd_cli.prompts.prompts import shared_length

SHARE_OF_FREE_MEMORY = 0.1  # how much of the free memory parked sequences may hold where nobody says


@dataclass(frozen=True)
class _Parked:
    sequence: SequenceId
    weights: Weights
    ids: tuple[int, ...]
    bytes: int


class PrefixCache:
    """Parked sequences of one backend; `limit` is how many bytes they may hold together, 0 parks nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._parked: list[_Parked] = []  # what was used last stands last

    @property
    def bytes_held(self) -> int:
        return sum(each.bytes for each in self._parked)

    def __len__(self) -> int:
        return len(self._parked)

    def open(
        self,
        backend: Backend,
        weights: Weights,
        prompt: tuple[int, ...],
        running: Iterable[tuple[Weights, SequenceId, tuple[int, ...]]] = (),
    ) -> tuple[SequenceId, int]:
        """A sequence that holds as much of a prompt's beginning as can be taken over, and how many tokens; never
        its last one, as its logits are wanted. `running` are sequences that are fed by others now, each with its
        weights and the ids it was fed."""
        best, shared, parked = None, 0, None
        own = ((each.weights, each.sequence, each.ids, each) for each in self._parked)
        for other, sequence, ids, source in (*own, *((*each, None) for each in running)):
            if other == weights and backend.alike(weights, len(ids), len(prompt)):
                found = shared_length(ids, prompt[:-1])
                if found > shared:
                    best, shared, parked = sequence, found, source
        if parked is not None:
            self._parked.remove(parked)
            if shared == len(parked.ids):  # nobody else can begin with more of it than with the new one
                return parked.sequence, shared
            self._parked.append(parked)
        return backend.open(weights, like=best, length=shared), shared

    def park(self, backend: Backend, sequence: SequenceId, weights: Weights) -> None:
        """Keeps a sequence that nobody feeds any more, instead of those that are beginnings of it."""
        ids = tuple(backend.tokens(sequence))
        size = backend.bytes_for(len(ids))
        if size == 0 or size > self.limit or not ids:
            backend.close([sequence])
            return
        old = [each for each in self._parked if each.weights == weights and ids[: len(each.ids)] == each.ids]
        self._parked = [each for each in self._parked if each not in old]
        self._parked.append(_Parked(sequence, weights, ids, size))
        held = self.bytes_held
        while held > self.limit:
            old.append(self._parked.pop(0))
            held -= old[-1].bytes
        backend.close([each.sequence for each in old])

    def clear(self, backend: Backend) -> bool:
        """Lets all go; gives whether there was any."""
        parked, self._parked = self._parked, []
        backend.close([each.sequence for each in parked])
        return bool(parked)
