"""The decoder as a scheduler: no callbacks, and a request's own error as the event `Failed`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adacd_cli.errors import AdacdError
from adacd_cli.events import Event, Finished

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Places, Request

_KEPT_PREFIXES = 8


@dataclass(frozen=True)
class Failed:
    """A request ended with an error; it comes in place of Finished."""

    request: int
    error: str
    message: str
    hint: str = ""


class Scheduler:
    """Decodes requests side by side."""

    def __init__(self, model: LanguageModel, settings: Settings, places: Places) -> None:
        from adacd_cli.engine import Prefixes

        self._settings, self._places = settings, places
        self._cancelled: set[int] = set()
        self._errors: dict[int, AdacdError] = {}
        self._started: list[Event] = []
        self._decoder = model.decoder(
            places=places,
            known=Prefixes(limit=_KEPT_PREFIXES),
            cancelled=self._cancelled.__contains__,
            failed=self._errors.__setitem__,
        )

    @property
    def busy(self) -> bool:
        return bool(self._started) or self._decoder.busy

    @property
    def running(self) -> range:
        return range(self._decoder.running)

    @property
    def max_concurrency(self) -> int | None:
        return self._places.limit

    def submit(self, request: Request) -> int:
        started = self._decoder.submit(request, self._settings)
        self._started.append(started)
        return started.request

    def cancel(self, index: int) -> None:
        self._cancelled.add(index)

    def step(self) -> Iterator[Event | Failed]:
        started, self._started = self._started, []
        yield from started
        for event in self._decoder.step():
            error = self._errors.pop(event.request, None)
            if error is not None:
                yield Failed(event.request, type(error).__name__, error.message, error.hint)
            else:
                yield event
            if isinstance(event, Finished):
                self._cancelled.discard(event.request)
