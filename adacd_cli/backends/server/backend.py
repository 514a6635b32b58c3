"""ServerBackend: sequences whose logits are the most probable tokens that a server gives. A sequence is its list of
ids; the server's prefix cache does the rest. What one `forward` asks for travels in as few requests as the server
allows, in the background: everything here returns at once."""

from __future__ import annotations

import asyncio
import itertools
import math
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import torch

from adacd_cli.backends.server.batcher import Batcher
from adacd_cli.backends.server.dialect import (
    Dialect,
    ReadTimeout,
    ServerUnavailable,
    TopList,
    check_id,
    check_ids,
)
from adacd_cli.backends.server.server import Server
from adacd_cli.engine.backend import (
    BASE,
    Capabilities,
    Extend,
    FreeRun,
    Logits,
    Need,
    Pending,
    SampledToken,
    Sampling,
    SequenceId,
    Weights,
)
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.partial import GROWTH, bound_of_rest, logits_of
from adacd_cli.errors import ModelError

# nats by which a server's answers to two requests may differ: another batch is rounded otherwise
_ROUNDED = 0.5
# a longer list than this costs more than a request for single values, where the server gives those
_LONG = 10_000
# how often free runs of one sequence may fall silent after some tokens before that is an error
_MOST_TIMEOUTS = 1


@dataclass
class _Position:
    """What is known of the token after some ids."""

    ids: tuple[int, ...]  # the ids before it
    top: TopList = field(default_factory=TopList)  # its most probable tokens
    others: dict[int, float] = field(default_factory=dict)  # log-probabilities that are known besides, by id
    complete: bool = False  # whether the server gives no longer list

    def grows(self, dialect: Dialect, vocab: int) -> bool:
        """Whether the server may give a longer list."""
        return len(self.top.ids) < min(vocab, dialect.most or vocab) and not self.complete

    def reaches(self, floor: float | None) -> bool:
        """Whether no other token can be as probable as the best one's plus this many nats."""
        if floor is None:
            return True
        logprobs = self.top.logprobs
        return bound_of_rest([*logprobs, *self.others.values()], logprobs[-1]) < logprobs[0] + floor

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Which of these tokens have no known value."""
        known = {*self.top.ids, *self.others}
        return [token for token in ids if token not in known]


@dataclass
class _Sequence:
    """A sequence: its ids, what is known of the next token, and how often free runs of it fell silent."""

    ids: list[int]
    position: _Position | None = None
    timeouts: int = 0


class _PendingLogits:
    """See `engine.backend.Pending`; what is known already needs no request. What is needed besides a list is needed
    of the last position; `again`: whether more is wanted of one that was asked for before."""

    def __init__(self, positions: Sequence[_Position], need: Need, batcher: Batcher, *, again: bool) -> None:
        self._positions, self._need, self._again, self._batcher = positions, need, again, batcher
        self._dialect, self._vocab = batcher.server.probe.dialect, batcher.server.probe.vocab
        self._count = self._vocab if need.floor == -math.inf else min(max(1, need.top), self._vocab)
        self._future: Future[None] | None = None
        if any(map(self._can_learn_more, positions)):
            self._future = batcher.start(self._ask)

    def done(self) -> bool:
        return self._future is None or self._future.done()

    def result(self) -> Logits | None:
        if self._future is not None:
            if not self._future.done():
                self._batcher.flush()
            try:
                self._future.result()
            except Exception as failure:
                raise self._batcher.error_of(failure) from failure
        rows = [self._logits(position) for position in self._positions]
        if len(rows) < 2:
            return rows[0] if rows else None
        return replace(rows[-1], batch=torch.cat([each.batch for each in rows], dim=1))

    def cancel(self) -> None:
        if self._future is not None:
            self._future.cancel()

    async def _ask(self) -> None:
        """Asks for longer lists, and then for single values, until everything is known or cannot be had."""
        *earlier, position = self._positions
        if earlier:
            await asyncio.gather(*(self._lengthen(each, self._count) for each in self._positions))
        else:  # in this turn of the loop, so that it may be flushed
            await self._lengthen(position, self._count)
        while self._lacks(position) and position.grows(self._dialect, self._vocab):
            by_id = self._dialect.scores_ids and len(position.top.ids) >= _LONG
            if by_id and position.reaches(self._need.floor):
                break  # only single values are missing
            await self._lengthen(position, GROWTH * len(position.top.ids))
        if (missing := position.missing(self._need.ids)) and self._dialect.scores_ids:
            values = await self._dialect.values(position.ids, missing)
            highest = position.top.logprobs[-1] + _ROUNDED  # what is not listed is not more probable
            position.others |= {token: value for token, value in values.items() if value <= highest}

    async def _lengthen(self, position: _Position, count: int) -> None:
        count = min(count, self._vocab)
        if len(position.top.ids) < count and position.grows(self._dialect, self._vocab):
            top = await self._batcher.top(position.ids, count, at_once=bool(position.top.ids))
            top.check(self._vocab, self._need.floor)
            position.complete = len(top.ids) < count
            position.top = max(position.top, top, key=lambda each: len(each.ids))

    def _lacks(self, position: _Position) -> bool:
        """Whether something is needed of the last position that a longer list would have."""
        need = self._need
        last = position is self._positions[-1]
        return last and not (position.reaches(need.floor) and not position.missing(need.ids))

    def _can_learn_more(self, position: _Position) -> bool:
        if position.grows(self._dialect, self._vocab):
            return len(position.top.ids) < self._count or self._lacks(position)
        return self._dialect.scores_ids and bool(position.missing(self._need.ids))

    def _logits(self, position: _Position) -> Logits:
        top = position.top
        exhausted = not position.grows(self._dialect, self._vocab)
        if exhausted and self._dialect.scores_ids:  # there are single values, unless they did not come
            exhausted = self._lacks(position) or (self._again and len(top.ids) < self._count)
        return logits_of(top.ids, top.logprobs, self._vocab, position.others, exhausted=exhausted)


class _ServerFreeRun:
    """See `engine.backend.FreeRun`. A stream that breaks after some tokens ends it quietly: the caller goes on from
    the ids, and learns the error if that does not work either."""

    def __init__(self, sequence: _Sequence, sampling: Sampling, most: int, batcher: Batcher) -> None:
        self._sequence, self._batcher = sequence, batcher
        self._tokens: deque[SampledToken] = deque()
        self._failed = False
        self._future = batcher.start(self._read, tuple(sequence.ids), sampling, most)

    def take(self) -> list[SampledToken]:
        ended = self._future.done()  # before the tokens are looked at
        tokens = []
        while self._tokens:
            tokens.append(self._tokens.popleft())
        if tokens:
            self._sequence.ids += [token.token_id for token in tokens]
            self._sequence.position = None
        elif ended and not self._failed and (failure := self._failure()) is not None:
            self._failed = True
            raise self._batcher.error_of(failure) from failure
        return tokens

    def done(self) -> bool:
        return self._future.done() and not self._tokens and (self._failed or self._failure() is None)

    def close(self) -> None:
        self._future.cancel()

    def _failure(self) -> BaseException | None:
        return None if self._future.cancelled() else self._future.exception()

    async def _read(self, prompt: tuple[int, ...], sampling: Sampling, max_tokens: int) -> None:
        probe, number = self._batcher.server.probe, 0
        try:
            async with aclosing(probe.dialect.stream(prompt, sampling, max_tokens)) as stream:
                async for token in stream:
                    check_id(token.token_id, probe.vocab)
                    check_ids(token.top, probe.vocab)
                    number += 1
                    self._tokens.append(token)
                    self._batcher.arrived.set()
                    if number >= max_tokens:  # some servers go on
                        break
        except ServerUnavailable as failure:
            self._sequence.timeouts += isinstance(failure, ReadTimeout)
            if number == 0 or self._sequence.timeouts > _MOST_TIMEOUTS:
                raise


class ServerBackend:
    """See `engine.backend.Backend`. Its `Failed` requests have a `ServerError`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._server: Server = model.server
        self.capabilities = Capabilities(
            device=torch.device("cpu"),
            vocab_size=self._server.probe.vocab,
            context_length=model.context_length,
            full_logits=False,
            free_run=True,
            controls=self._server.probe.dialect.controls,
            max_sequences=self._server.concurrency,
        )
        self._numbers = itertools.count()
        self._sequences: dict[SequenceId, _Sequence] = {}
        self._batcher = Batcher(self._server)
        # a consumer that stops iterating leaves no request running at the server
        self._leave = weakref.finalize(self, self._batcher.cancel)

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        self.alike(weights, 0, 0)
        number = next(self._numbers)
        source = None if like is None else self._sequences[like]
        self._sequences[number] = sequence = _Sequence([] if source is None else source.ids[:length])
        if source is not None and len(sequence.ids) == len(source.ids):
            sequence.position = source.position
        return number

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        if weights != BASE:
            what = f"The weights {weights!r} are not loaded: a server has its own model only."
            raise ModelError(what, "Load the model here to use this method.")
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
        positions: list[_Position] = []
        if need.positions:
            sequence.position = sequence.position or _Position(tuple(sequence.ids))
            length = len(sequence.ids)
            earlier = range(length - need.positions + 1, length)
            positions = [*(_Position(tuple(sequence.ids[:end])) for end in earlier), sequence.position]
        return _PendingLogits(positions, need, self._batcher, again=not tokens)

    def free_run(self, sequence: SequenceId, sampling: Sampling, max_tokens: int) -> FreeRun:
        return _ServerFreeRun(self._sequences[sequence], sampling, max_tokens, self._batcher)

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
