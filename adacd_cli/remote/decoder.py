"""A decoder over a server: several answers at once, each a task in the background.

Their events come over a queue, in each request's own order.
"""

from __future__ import annotations

import asyncio
import queue
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from adacd_cli.engine.places import Places
from adacd_cli.engine.protocol import Cancelled, Failed, never
from adacd_cli.engine.row import Request, Row
from adacd_cli.errors import AdacdError, ServerError, first_line
from adacd_cli.events import Event, Started
from adacd_cli.remote.answer import Answer
from adacd_cli.remote.failures import ServerGone, ServerRefused

if TYPE_CHECKING:
    from adacd_cli.remote.model import RemoteModel

_WAIT_SECONDS = 0.1
"""How long a step waits for an event: so often is it asked whether a request is cancelled."""

_CLOSING_SECONDS = 3.0

_Item = tuple[int, Event | AdacdError | None]
"""A request's number and what came of it: an event, an error, or None where its task has ended."""


class RemoteDecoder:
    """Decodes requests at a server, side by side; see `AnyDecoder`.

    Args:
        model: the served model.
        places: how many requests run at once; None or no limit take the model's own.
        candidates: how many of the most probable tokens each step reports; 0 for none.
        cancelled: asked before each step with a request's number; True ends it as CANCELLED.
        failed: told of a request's own error, so that the others go on; None raises it instead.
    """

    def __init__(
        self,
        model: RemoteModel,
        *,
        places: Places | None = None,
        candidates: int = 0,
        cancelled: Cancelled = never,
        failed: Failed | None = None,
    ) -> None:
        self._model, self._candidates = model, candidates
        self._places = Places() if places is None else places
        self._cancelled, self._failed = cancelled, failed
        self._submitted = 0
        self._waiting: deque[Row] = deque()
        self._running: dict[int, Row] = {}
        self._cancels: dict[int, Callable[[], None]] = {}
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        # a consumer that stops iterating leaves no request running at the server
        self._leave = weakref.finalize(self, _cancel, self._cancels)

    @property
    def busy(self) -> bool:
        """Whether a request is not finished yet."""
        return bool(self._waiting or self._running)

    @property
    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiting)

    def submit(self, request: Request) -> Started:
        """Takes a request in; it runs as soon as there is a place.

        Raises:
            ConfigurationError: its method needs more than a server tells.
        """
        row = Row(self._submitted, request, self._model, self._candidates)
        self._model.require(row.method)
        self._submitted += 1
        self._waiting.append(row)
        return row.started()

    def step(self) -> Iterator[Event]:
        """The events that have come; waits a moment where there is none yet.

        Raises:
            ServerError: the server failed, and `failed` is None; nothing goes on then.
        """
        yield from self._drop_cancelled()
        self._admit()
        if not self._running:
            return
        for number, what in self._arrived(_WAIT_SECONDS):
            if isinstance(what, AdacdError):
                yield from self._fail(number, what)
            else:
                yield from self._pass_on(number, what)

    def close(self) -> Iterator[Event]:
        """Finished of every request that has none yet, after what was still to be told of it."""
        for row in self._waiting:
            yield row.finished()
        self._waiting.clear()
        _cancel(self._cancels)
        until = time.monotonic() + _CLOSING_SECONDS
        while self._running and (left := until - time.monotonic()) > 0:
            for number, what in self._arrived(left):
                yield from self._pass_on(number, None if isinstance(what, AdacdError) else what)
        for number in list(self._running):
            yield from self._pass_on(number, None)

    def _pass_on(self, number: int, event: Event | None) -> Iterator[Event]:
        row = self._running.get(number)
        if row is None:  # closed already
            return
        if event is not None:
            yield event
            return
        del self._running[number]
        self._cancels.pop(number, None)
        yield row.finished()

    def _fail(self, number: int, error: AdacdError) -> Iterator[Event]:
        if self._failed is not None:
            self._failed(number, error)
            yield from self._pass_on(number, None)
            return
        self._waiting.clear()
        self._running.clear()
        _cancel(self._cancels)
        raise error

    def _drop_cancelled(self) -> Iterator[Event]:
        for number in list(self._running):
            if number in self._cancels and self._cancelled(number):
                self._cancels.pop(number)()  # it tells when it has ended
        for row in [row for row in self._waiting if row.finish is not None or self._cancelled(row.index)]:
            self._waiting.remove(row)
            yield row.finished()

    def _admit(self) -> None:
        limit = self._places.limit or self._model.server.concurrency
        while self._waiting and len(self._running) < limit:
            row = self._waiting.popleft()
            row.begin()
            self._running[row.index] = row
            self._cancels[row.index] = self._model.server.background.start(
                _answer(row, self._model, self._items), _teller(row.index, self._items)
            )

    def _arrived(self, seconds: float) -> Iterator[_Item]:
        """All that has come; what comes first is waited for."""
        try:
            yield self._items.get(timeout=seconds)
            while True:
                yield self._items.get_nowait()
        except queue.Empty:
            return


async def _answer(row: Row, model: RemoteModel, items: queue.SimpleQueue[_Item]) -> AdacdError | None:
    """Decodes the row; gives what went wrong, or None."""
    number, server = row.index, model.server
    answer = Answer(
        row, server.dialect, server.vocab, lambda event: items.put((number, event)), server.found_inexact
    )
    try:
        await answer.run()
    except ServerGone as failure:
        return ServerError(
            f"The server at {model.name} does not answer any more: {failure.reason.rstrip('.')}.",
            failure.hint or "What it had said is kept; see to the server, then ask again.",
        )
    except ServerRefused as failure:
        return ServerError(
            f"The server at {model.name} failed: {failure.reason.rstrip('.')}.",
            failure.hint or "What it had said is kept; its own log may tell more.",
        )
    except AdacdError as error:
        return error
    return None


def _teller(number: int, items: queue.SimpleQueue[_Item]) -> Callable[[asyncio.Task[Any]], None]:
    """Puts the last item of a request, once nothing more can come of it."""

    def tell(task: asyncio.Task[AdacdError | None]) -> None:
        if task.cancelled():
            items.put((number, None))
            return
        error = task.exception()
        if error is None:
            items.put((number, task.result()))
            return
        what = f"{type(error).__name__}: {first_line(error).rstrip('.')}"
        unexpected = ServerError(f"A response of the server could not be used: {what}.")
        unexpected.__cause__ = error
        items.put((number, unexpected))

    return tell


def _cancel(cancels: dict[int, Callable[[], None]]) -> None:
    for cancel in list(cancels.values()):
        cancel()
    cancels.clear()
