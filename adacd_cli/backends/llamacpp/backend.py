"""LlamaCppBackend: sequences over GGUF files in this process, all of a step in one batch of llama.cpp."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from adacd_cli.backends.llamacpp.model import LlamaModel
from adacd_cli.backends.llamacpp.pool import LlamaSequence, Pool
from adacd_cli.backends.local import Done, LocalBackend
from adacd_cli.engine.backend import BASE, Capabilities, Extend, Logits, SequenceId, Weights
from adacd_cli.engine.model import LanguageModel

_PREFILL_CHUNK = 256  # prompt tokens in one forward; what runs beside them waits so long


class LlamaCppBackend(LocalBackend):
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
        return self._sequences[sequence].ids

    def trim(self, sequence: SequenceId, length: int) -> None:
        own = self._sequences[sequence]
        if length < len(own.ids):
            own.pool.trim(own, length)

    def close(self, sequences: Sequence[SequenceId]) -> None:
        for number in sequences:
            if (own := self._sequences.pop(number, None)) is not None:
                own.pool.close(own)

    def forward(self, work: Sequence[Extend]) -> Sequence[Done]:
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

    def bytes_for(self, tokens: int) -> int:
        return tokens * self._pool(BASE).bytes_per_token

    def _pool(self, weights: Weights) -> Pool:
        pool = self._pools.get(weights)
        if pool is None:
            pool = self._pools[weights] = Pool(self.model.weights(weights))
        return pool
