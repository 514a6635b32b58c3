"""The thread that owns the model: takes requests in, steps the decoder, and hands each request its events.

A request is opened on the event loop (`open`), submitted with its prompts, and hears of its events in an
asyncio queue. Places, the queue's length and what happens when the model thread breaks are decided here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from adacd_cli.errors import AdacdError
from adacd_cli.events import Finished, TokenStep
from adacd_cli.server.errors import ApiError, unavailable
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.ticket import Heard, Ticket

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Places, Request
    from adacd_cli.engine.protocol import AnyDecoder

State = Literal["loading", "ready", "stopping", "failed"]

KEPT_BEGINNINGS = 8
"""How many prompts' keys and values are kept for those that begin alike."""

RETRY_S = 1
_RETRY_LOADING_S = 5


class Worker:
    """Decodes for a server.

    Args:
        waiting: how many requests may wait for a place.
        seconds: how long a request may take, waiting included; None for any time.
        metrics: what is counted.

    Attributes:
        state: where it stands.
        fault: what broke the model thread.
    """

    def __init__(self, metrics: Metrics, *, waiting: int = 64, seconds: float | None = None) -> None:
        self.state: State = "loading"
        self.fault: BaseException | None = None
        self._metrics, self._waiting, self._seconds = metrics, waiting, seconds
        # put() of this queue may be called from a signal handler
        self._inbox: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._open = 0
        self._counting = threading.Lock()
        self._stopping = False
        self._decoder: AnyDecoder | None = None
        self._places: Places | None = None
        self._tickets: dict[int, Ticket] = {}
        self._failures: list[tuple[Ticket, BaseException]] = []
        metrics.queue.set_function(self._waits)
        metrics.running.set_function(self._runs)
        metrics.places.set_function(self._has_places)
        metrics.ready.set_function(lambda: self.state == "ready")

    # --- on the event loop ---

    def check(self) -> None:
        """Refuses a request that would not be answered.

        Raises:
            ApiError: 503 while loading, stopping or broken; 429 where the queue is full.
        """
        self.check_state()
        if self._open >= self._most_open():
            raise ApiError(
                429,
                "All places and the whole queue are taken; ask again in a moment.",
                code="queue_full",
                headers={"Retry-After": str(RETRY_S)},
            )

    def check_state(self) -> None:
        """Refuses what cannot be answered at all now.

        Raises:
            ApiError: 503 while loading, stopping or broken.
        """
        if self.state == "loading":
            raise unavailable("The model is still being loaded.", "loading", _RETRY_LOADING_S)
        if self.state == "stopping":
            raise unavailable("The server is stopping.", "stopping")
        if self.state == "failed":
            raise broken(self.fault)

    def open(self) -> Ticket:
        """Takes a place, or one in the queue, for a request whose prompts are still to be made.

        Raises:
            ApiError: as `check`.
        """
        self.check()
        with self._counting:
            self._open += 1
        return Ticket(asyncio.get_running_loop(), self._seconds)

    def submit(self, ticket: Ticket, request: Request) -> None:
        """Hands the request over; its events begin to come."""
        ticket.request, ticket.submitted = request, True
        self._inbox.put(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Nobody listens to it any more: its row is freed before the next step."""
        ticket.stop_clock()
        ticket.cancel()
        if not ticket.submitted:
            self._close(ticket)

    def _most_open(self) -> int:
        places = self._places.limit if self._places is not None else None
        return self._waiting + (64 if places is None else places)

    def _waits(self) -> int:
        return max(0, self._open - self._runs())

    def _runs(self) -> int:
        return 0 if self._decoder is None else self._decoder.running

    def _has_places(self) -> int:
        return 0 if self._places is None else self._places.limit or 0

    # --- on either thread ---

    def _close(self, ticket: Ticket) -> None:
        """Gives its place to another."""
        with self._counting:
            if ticket.closed:
                return
            ticket.closed = True
            self._open -= 1
        if self._stopping:
            self._inbox.put(None)  # it may have been the last one

    # --- on the model thread, and in signal handlers ---

    def stop(self) -> None:
        """Takes no more requests; `serve` returns when those it has are finished."""
        if self.state != "failed":
            self.state = "stopping"
        self._stopping = True
        self._inbox.put(None)

    def serve(self, model: LanguageModel, settings: Settings, places: Places) -> None:
        """Decodes until `stop` is called and every request is finished.

        Whatever breaks it is told to every request, those to come included, until `stop` is called.

        Args:
            model: the model, ready to decode.
            settings: used where a request has none of its own.
            places: how many requests run at once.

        Raises:
            BaseException: what broke it.
        """
        try:
            from adacd_cli.engine import Prefixes

            decoder = model.decoder(
                places=places,
                known=Prefixes(limit=KEPT_BEGINNINGS),
                cancelled=self._cancelled,
                failed=lambda number, error: self._failures.append((self._tickets[number], error)),
            )
            self._decoder, self._places = decoder, places
            if not self._stopping:
                self.state = "ready"
            while not self._stopping or decoder.busy or self._open:
                self._take_in(decoder, settings)
                if decoder.busy:
                    self._step(decoder)
        except BaseException as error:
            self._break(error)
            raise

    def _cancelled(self, number: int) -> bool:
        ticket = self._tickets.get(number)
        return ticket is not None and ticket.cancelled

    def refuse(self) -> None:
        """After a fault: answers whoever still comes with it, until `stop` is called."""
        while not self._stopping:
            ticket = self._inbox.get()
            if ticket is not None:
                self._tell([(ticket, broken(self.fault))])

    def _take_in(self, decoder: AnyDecoder, settings: Settings) -> None:
        wait = not decoder.busy
        while True:
            try:
                ticket = self._inbox.get(wait)
            except queue.Empty:
                return
            if ticket is None:  # a wake-up: there may be nothing more to wait for
                if wait:
                    return
                continue
            self._begin(decoder, settings, ticket)
            wait = False

    def _begin(self, decoder: AnyDecoder, settings: Settings, ticket: Ticket) -> None:
        assert ticket.request is not None
        try:
            started = decoder.submit(ticket.request)
        except AdacdError as error:
            self._tell([(ticket, error)])
            return
        self._tickets[started.request] = ticket
        ticket.started = started
        self._tell([(ticket, started)])

    def _step(self, decoder: AnyDecoder) -> None:
        heard: list[tuple[Ticket, Heard]] = []
        events = list(decoder.step())
        self._metrics.count(events)
        for event in events:
            ticket = self._tickets[event.request]
            if isinstance(event, TokenStep) and ticket.started is not None:
                self._metrics.count_read(ticket.started)
                ticket.started = None
                self._metrics.first_token.observe(time.perf_counter() - ticket.opened)
            if isinstance(event, Finished):
                del self._tickets[event.request]
            heard.append((ticket, event))
        failures, self._failures = self._failures, []
        failed = {id(ticket) for ticket, _ in failures}
        # a failed request's last word is its error
        told = [(ticket, event) for ticket, event in heard if id(ticket) not in failed]
        self._tell([*told, *failures])

    def _tell(self, heard: list[tuple[Ticket, Heard]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Heard]]] = {}
        for ticket, event in heard:
            by_loop.setdefault(ticket.loop, []).append((ticket, event))
        for ticket, event in heard:
            if isinstance(event, (Finished, BaseException)):
                self._close(ticket)
        for loop, own in by_loop.items():
            with suppress(RuntimeError):  # a loop that is closed has nobody who listens
                loop.call_soon_threadsafe(_deliver, own)

    def _break(self, error: BaseException) -> None:
        self.fault, self.state, self._decoder = error, "failed", None
        waiting: list[Ticket] = list(self._tickets.values())
        self._tickets.clear()
        with suppress(queue.Empty):
            while True:
                ticket = self._inbox.get_nowait()
                if ticket is not None:
                    waiting.append(ticket)
        self._tell([(ticket, broken(error)) for ticket in waiting])


def broken(error: BaseException | None) -> ApiError:
    """What is said once the model thread has broken."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return unavailable("The server was stopped.", "stopping")
    name = type(error).__name__
    return unavailable(f"The model broke down ({name}); the server has to be started again.", "failed")


def _deliver(heard: list[tuple[Ticket, Heard]]) -> None:
    for ticket, event in heard:
        ticket.events.put_nowait(event)
