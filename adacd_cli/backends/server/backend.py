"""ServerBackend: sequences whose logits are the most probable tokens that a server gives.

A sequence is its list of ids; the server's prefix cache does the rest. What one `forward` asks for travels in
as few requests as the server allows, in the background: everything here returns at once.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence

import torch

from adacd_cli.backends.server.batcher import Batcher
from adacd_cli.backends.server.pending import PendingLogits, Position, SequenceState, ServerFreeRun
from adacd_cli.backends.server.server import Server
from adacd_cli.engine.backend import (
    BASE,
    Capabilities,
    Extend,
    FreeRun,
    Pending,
    Sampling,
    SequenceId,
    Weights,
)
from adacd_cli.engine.model import LanguageModel
from adacd_cli.errors import ModelError


class ServerBackend:
    """See `engine.backend.Backend`. Its `Failed` requests have a `ServerError`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._server: Server = model.server
        self.capabilities = Capabilities(
            device=torch.device("cpu"),
            vocab_size=self._server.vocab,
            context_length=model.context_length,
            full_logits=False,
            free_run=True,
            controls=self._server.dialect.controls,
            max_sequences=self._server.concurrency,
        )
        self._numbers = itertools.count()
        self._sequences: dict[SequenceId, SequenceState] = {}
        self._batcher = Batcher(self._server)
        # a consumer that stops iterating leaves no request running at the server
        self._leave = weakref.finalize(self, self._batcher.cancel)

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        self.alike(weights, 0, 0)
        number = next(self._numbers)
        source = None if like is None else self._sequences[like]
        self._sequences[number] = sequence = SequenceState([] if source is None else source.ids[:length])
        if source is not None and len(sequence.ids) == len(source.ids):
            sequence.position = source.position
        return number

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        if weights != BASE:
            raise ModelError(
                f"The weights {weights!r} are not loaded: a server has its own model only.",
                "Load the model here to use this method.",
            )
        return True  # what is shared is the server's to find

    def tokens(self, sequence: SequenceId) -> Sequence[int]:
        return self._sequences[sequence].ids

    def trim(self, sequence: SequenceId, length: int) -> None:
        state = self._sequences[sequence]
        if length < len(state.ids):
            del state.ids[length:]
            state.position = None

    def close(self, sequences: Sequence[SequenceId]) -> None:
        for number in sequences:
            self._sequences.pop(number, None)

    def forward(self, work: Sequence[Extend]) -> list[Pending]:
        return [self._extend(extend) for extend in work]

    def _extend(self, extend: Extend) -> Pending:
        sequence, need = self._sequences[extend.sequence], extend.need
        tokens = [int(token) for token in extend.tokens]
        if tokens:
            sequence.ids += tokens
            sequence.position = None
        positions: list[Position] = []
        if need.positions:
            if sequence.position is None:
                sequence.position = Position(tuple(sequence.ids))
            length = len(sequence.ids)
            earlier = range(length - need.positions + 1, length)
            positions = [*(Position(tuple(sequence.ids[:end])) for end in earlier), sequence.position]
        return PendingLogits(positions, need, self._batcher, again=not tokens)

    def free_run(self, sequence: SequenceId, sampling: Sampling, max_tokens: int) -> FreeRun:
        return ServerFreeRun(self._sequences[sequence], sampling, max_tokens, self._batcher)

    def wait(self, seconds: float) -> None:
        self._batcher.flush()
        if self._batcher.arrived.wait(seconds):
            self._batcher.arrived.clear()

    def bytes_for(self, tokens: int) -> int:
        return 0  # keys and values are held by the server

    def found_inexact(self) -> None:
        self._server.found_inexact()

    def notices(self) -> list[str]:
        found = []
        while self._server.notices:
            found.append(self._server.notices.popleft())
        return found
