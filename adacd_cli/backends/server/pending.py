"""What is pending at a server: the logits of a position, and a stretch that the server decodes by itself.

Each is a coroutine in the background loop, whose result is read in the caller's thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from adacd_cli.backends.server.batcher import Batcher
from adacd_cli.backends.server.dialect import Dialect, TopList, check_id, check_ids
from adacd_cli.backends.server.errors import ReadTimeout, ServerRefused, ServerUnavailable
from adacd_cli.engine.backend import Logits, Need, SampledToken, Sampling
from adacd_cli.engine.partial import GROWTH, bound_of_rest, logits_of
from adacd_cli.errors import AdacdError, ServerError, first_line

if TYPE_CHECKING:
    from adacd_cli.backends.server.server import Server

_ROUNDED = 0.5
"""Nats by which a server's answers to two requests may differ: another batch is rounded otherwise."""

_MOST_TIMEOUTS = 1
"""How often free runs of one sequence may fall silent after some tokens before that is an error."""


@dataclass
class Position:
    """What is known of the token after some ids.

    Attributes:
        ids: the ids before it.
        top: its most probable tokens; None before any are known.
        others: log-probabilities that are known besides, by id.
        complete: whether the server gives no longer list.
    """

    ids: tuple[int, ...]
    top: TopList | None = None
    others: dict[int, float] = field(default_factory=dict)
    complete: bool = False

    def __len__(self) -> int:
        return 0 if self.top is None else len(self.top.ids)

    @property
    def known(self) -> TopList:
        """Its most probable tokens, which are known by now."""
        assert self.top is not None
        return self.top

    def grows(self, dialect: Dialect, vocab: int) -> bool:
        """Whether a longer list can be had."""
        return len(self) < min(vocab, dialect.most or vocab) and not self.complete

    def reaches(self, floor: float | None) -> bool:
        """Whether no other token can be as probable as the best one's plus this many nats."""
        if floor is None:
            return True
        logprobs = self.known.logprobs
        return bound_of_rest([*logprobs, *self.others.values()], logprobs[-1]) < logprobs[0] + floor

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Which of these tokens have no known value."""
        known = {*self.known.ids, *self.others}
        return [token for token in ids if token not in known]


@dataclass
class SequenceState:
    ids: list[int]
    position: Position | None = None
    timeouts: int = 0


class Work:
    """Something that requests are for; it ends in the loop's thread.

    Attributes:
        stop: cancels it.
    """

    def __init__(self, server: Server, arrived: threading.Event) -> None:
        self._server, self._arrived = server, arrived
        self._ended = threading.Event()
        self._error: AdacdError | None = None
        self.stop: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._ended.is_set()

    def work(self, batcher: Batcher) -> Coroutine[Any, Any, None]:
        """What is to be done in the background."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.stop()

    def end(self, error: BaseException | None = None) -> None:
        """It is over; `error` says why there is no result."""
        if error is not None and not self._ended.is_set():
            self._error = _error_of(self._server.probe.address, error)
        self._ended.set()
        self._arrived.set()


class PendingLogits(Work):
    """See `engine.backend.Pending`; what is known already needs no request.

    Args:
        positions: those whose logits are asked for; what is needed besides a list is needed of the last one.
        need: what is asked.
        server: who is asked.
        arrived: set when it is done.
        again: whether more is asked of a position that was asked for before.
    """

    def __init__(
        self,
        positions: Sequence[Position],
        need: Need,
        server: Server,
        arrived: threading.Event,
        *,
        again: bool,
    ) -> None:
        super().__init__(server, arrived)
        self._positions, self._need, self._again = positions, need, again
        self._dialect, self._vocab = server.dialect, server.vocab
        self._count = self._vocab if need.floor == -math.inf else min(max(1, need.top), self._vocab)
        if not any(map(self._can_tell_more, positions)):
            self._ended.set()

    def done(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._ended.is_set()

    def result(self) -> Logits | None:
        """The logits; None where none were asked for."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        rows = [self._logits(position) for position in self._positions]
        if len(rows) < 2:
            return rows[0] if rows else None
        return replace(rows[-1], batch=torch.cat([each.batch for each in rows], dim=1))

    async def work(self, batcher: Batcher) -> None:
        """Asks for longer lists, and then for single values, until everything is known or cannot be had."""
        await asyncio.gather(*(self._lengthen(batcher, each, self._count) for each in self._positions))
        position = self._positions[-1]
        while self._lacks(position) and position.grows(self._dialect, self._vocab):
            await self._lengthen(batcher, position, GROWTH * len(position.known.ids))
        if (missing := position.missing(self._need.ids)) and self._dialect.scores_ids:
            values = await self._dialect.values(position.ids, missing)
            highest = position.known.logprobs[-1] + _ROUNDED  # what is not listed is not more probable
            position.others |= {token: value for token, value in values.items() if value <= highest}

    async def _lengthen(self, batcher: Batcher, position: Position, count: int) -> None:
        count = min(count, self._vocab)
        if len(position) >= count or not position.grows(self._dialect, self._vocab):
            return
        top = await batcher.top(position.ids, count)
        top.check(self._vocab, self._need.floor)
        position.complete = len(top.ids) < count
        if len(top.ids) > len(position):
            position.top = top

    def _lacks(self, position: Position) -> bool:
        """Whether something is needed of the last position that a longer list would have."""
        if position is not self._positions[-1]:
            return False
        return not position.reaches(self._need.floor) or bool(position.missing(self._need.ids))

    def _can_tell_more(self, position: Position) -> bool:
        """Whether there is something to ask for."""
        if position.top is None:
            return True
        if position.grows(self._dialect, self._vocab):
            return len(position) < self._count or self._lacks(position)
        return self._dialect.scores_ids and bool(position.missing(self._need.ids))

    def _logits(self, position: Position) -> Logits:
        exhausted = not position.grows(self._dialect, self._vocab)
        if exhausted and self._dialect.scores_ids:  # there are single values, unless they did not come
            exhausted = self._lacks(position) or (self._again and len(position) < self._count)
        known = position.known
        return logits_of(known.ids, known.logprobs, self._vocab, position.others, exhausted=exhausted)


class ServerFreeRun(Work):
    """See `engine.backend.FreeRun`.

    A stream that breaks after some tokens ends it quietly: the caller goes on from the ids, and learns the
    error if that does not work either.
    """

    def __init__(
        self,
        sequence: SequenceState,
        sampling: Sampling,
        max_tokens: int,
        server: Server,
        arrived: threading.Event,
    ) -> None:
        super().__init__(server, arrived)
        self._sequence, self._sampling, self._max_tokens = sequence, sampling, max_tokens
        self._prompt = tuple(sequence.ids)
        self._tokens: deque[SampledToken] = deque()

    def take(self) -> list[SampledToken]:
        """The tokens that have come since."""
        ended = self._ended.is_set()  # before the tokens are looked at
        tokens = []
        while self._tokens:
            tokens.append(self._tokens.popleft())
        if tokens:
            self._sequence.ids += [token.token_id for token in tokens]
            self._sequence.position = None
        elif ended and self._error is not None:
            error, self._error = self._error, None
            raise error
        return tokens

    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._ended.is_set() and self._error is None and not self._tokens

    def close(self) -> None:
        """Ends the request."""
        self.cancel()

    async def work(self, batcher: Batcher) -> None:
        """Reads the stream."""
        vocab, number = self._server.vocab, 0
        stream = self._server.dialect.stream(self._prompt, self._sampling, self._max_tokens)
        try:
            async with aclosing(stream):
                async for token in stream:
                    check_id(token.token_id, vocab)
                    check_ids(token.top, vocab)
                    number += 1
                    self._tokens.append(token)
                    self._arrived.set()
                    if number >= self._max_tokens:  # some servers go on
                        break
        except ServerUnavailable as failure:
            self._sequence.timeouts += isinstance(failure, ReadTimeout)
            if number == 0 or self._sequence.timeouts > _MOST_TIMEOUTS:
                raise


def _error_of(address: str, failure: BaseException) -> AdacdError:
    """What a user is told of a failure."""
    if isinstance(failure, AdacdError):
        return failure
    if isinstance(failure, ServerUnavailable):
        return ServerError(
            f"The server at {address} does not answer any more: {failure.reason.rstrip('.')}.",
            failure.hint or "The answer so far is kept; check the server, then ask again.",
        )
    if isinstance(failure, ServerRefused):
        return ServerError(
            f"The server at {address} failed: {failure.reason.rstrip('.')}.",
            failure.hint or "The answer so far is kept; the server's log may say more.",
        )
    error = ServerError(
        f"A response of the server could not be used: {type(failure).__name__}: "
        f"{first_line(failure).rstrip('.')}."
    )
    error.__cause__ = failure
    return error
