"""What decodes requests side by side, wherever the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from adacd_cli.errors import AdacdError
from adacd_cli.events import Event, Started

if TYPE_CHECKING:
    from adacd_cli.engine.row import Request

Cancelled = Callable[[int], bool]
"""Asked before each step with a request's number; True ends it as CANCELLED."""

Failed = Callable[[int, AdacdError], None]
"""Told of an error that concerns one request only; that request ends as CANCELLED, the others go on."""


def never(request: int) -> bool:
    """Cancels no request."""
    return False


class AnyDecoder(Protocol):
    """Requests in at any time, events out, a step at a time; `LanguageModel.decoder` makes one."""

    @property
    def busy(self) -> bool:
        """Whether a request is not finished yet."""

    @property
    def running(self) -> int:
        """How many requests run."""

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""

    def submit(self, request: Request) -> Started:
        """Takes a request in; its number in the events counts the requests submitted, from 0 on."""

    def step(self) -> Iterator[Event]:
        """The next events; none where nothing has come of the requests yet."""

    def close(self) -> Iterator[Event]:
        """Finished of every request that has none yet; they are let go."""
