"""LlamaCppBackend: sequences over GGUF files in this process, all of a step in one batch of llama.cpp."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from adacd_cli.backends import Done
from adacd_cli.backends.llamacpp.pool import LlamaSequence, Pool
from adacd_cli.engine.backend import BASE, Capabilities, Extend, Logits, SequenceId, Weights
from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.errors import OutOfMemoryError

if TYPE_CHECKING:
    from adacd_cli.backends.llamacpp.model import LlamaModel
    from adacd_cli.engine.backend import FreeRun, Sampling
    from adacd_cli.engine.model import LanguageModel

_Result = TypeVar("_Result")

_PREFILL_CHUNK = 256
"""Prompt tokens in one forward; what runs beside them waits so long."""


class LlamaCppBackend:
    """See `engine.backend.Backend`; the model's `model`, and its draft's, is a `LlamaModel`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        own: LlamaModel = model.model
        self.capabilities = Capabilities(
            device=torch.device("cpu"),
            vocab_size=own.vocab_size,
            context_length=model.context_length,
            fork=own.keys_only,
            trim=own.keys_only,
            prefill_chunk=_PREFILL_CHUNK,
        )
        self._pools: dict[Weights, Pool] = {}
        self._sequences: dict[SequenceId, LlamaSequence] = {}
        self._ids = itertools.count(1)

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        """A new sequence; a fork shares the cells of the other's first tokens."""
        pool = self._pool(weights)
        if like is None or length == 0:
            sequence = LlamaSequence(pool)
        else:
            source = self._sequences[like]
            assert source.pool is pool, "only sequences of the same weights can be forked"
            sequence = self._guarded(lambda: pool.fork(source, length))
        number = next(self._ids)
        self._sequences[number] = sequence
        return number

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        """True: llama.cpp chooses RoPE's factors when a context is made."""
        self._pool(weights)
        return True

    def tokens(self, sequence: SequenceId) -> Sequence[int]:
        """What the sequence was fed."""
        return self._sequences[sequence].ids

    def trim(self, sequence: SequenceId, length: int) -> None:
        """Takes back all but the first `length` tokens."""
        own = self._sequences[sequence]
        if length < len(own.ids):
            own.pool.trim(own, length)

    def close(self, sequences: Sequence[SequenceId]) -> None:
        """Lets sequences go."""
        for number in sequences:
            if (own := self._sequences.pop(number, None)) is not None:
                own.pool.close(own)

    def forward(self, work: Sequence[Extend]) -> Sequence[Done]:
        """One batch for each model that reads."""
        return self._guarded(lambda: self._forward(work))

    def _forward(self, work: Sequence[Extend]) -> list[Done]:
        found: list[Done] = [Done(None)] * len(work)
        places: dict[Pool, list[int]] = {}
        for place, extend in enumerate(work):
            own = self._sequences[extend.sequence]
            own.ids += map(int, extend.tokens)
            places.setdefault(own.pool, []).append(place)
        for pool, own_places in places.items():
            wanted = [work[place].need.positions for place in own_places]
            logits = pool.compute(
                [
                    (self._sequences[work[place].sequence], count)
                    for place, count in zip(own_places, wanted, strict=True)
                ]
            )
            alone = max(wanted, default=0) > 1
            row = 0
            for place, count in zip(own_places, wanted, strict=True):
                if count:
                    part = logits[None, row : row + count] if alone else logits[:, None]
                    found[place] = Done(Logits(part, 0 if alone else row))
                row += count
        return found

    def _guarded(self, compute: Callable[[], _Result]) -> _Result:
        """What is computed; where that fails, every sequence is closed."""
        try:
            return compute()
        except BaseException as error:
            self.close(list(self._sequences))
            if is_out_of_memory(error):
                raise OutOfMemoryError(str(error).strip()) from None
            raise

    def free_run(self, sequence: SequenceId, sampling: Sampling, max_tokens: int) -> FreeRun:
        """Not here: every token is the scheduler's."""
        raise NotImplementedError

    def wait(self, seconds: float) -> None:
        """Everything is done at once."""

    def bytes_for(self, tokens: int) -> int:
        """Bytes of the keys and values of so many tokens."""
        return tokens * self._pool(BASE).bytes_per_token

    def found_inexact(self) -> None:
        """Never: every logit is known."""

    def notices(self) -> list[str]:
        """None."""
        return []

    def _pool(self, weights: Weights) -> Pool:
        pool = self._pools.get(weights)
        if pool is None:
            pool = self._pools[weights] = Pool(self.model.weights(weights))
        return pool
