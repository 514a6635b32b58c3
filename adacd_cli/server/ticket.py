"""A request on its way through the model thread."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from adacd_cli.events import Event, Started

if TYPE_CHECKING:
    from adacd_cli.engine import Request

Heard = Event | BaseException
"""What comes of a request; an error is the last thing that comes."""


class Ticket:
    """A request that has a place, or one in the queue; made by `Worker.open`.

    Args:
        loop: where its events are heard.
        seconds: how long it may take; None for any time.

    Attributes:
        events: what has come of it.
        cancelled: whether its row is to be freed before the next step.
        opened: when it came, by `time.perf_counter`.
        request: what is decoded, once its prompts are made.
        submitted: whether the model thread has it, or is to get it.
        started: the event that opened it, until its first token comes.
        closed: whether its place is free again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        self.events: asyncio.Queue[Heard] = asyncio.Queue()
        self.cancelled = False
        self.loop, self.opened = loop, time.perf_counter()
        self.submitted = self.closed = False
        self.started: Started | None = None
        self.request: Request | None = None
        self._timer = None if seconds is None else loop.call_later(seconds, self.cancel)

    def cancel(self) -> None:
        """Frees its row before the next step."""
        self.cancelled = True

    def stop_clock(self) -> None:
        """Nothing is left that could take too long."""
        if self._timer is not None:
            self._timer.cancel()
