"""How far a long command is: a bar with rate and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_SILENCE_S = 30.0
"""Seconds between two lines where there is no terminal."""


class Tally:
    """Counts TOTAL things on stderr, DONE of them before; a context manager. `quiet` and `display` none keep it
    silent."""

    def __init__(self, title: str, total: int, unit: str, settings: Settings, *, done: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done, self._before = done, done
        self._silent = settings.quiet or settings.display == "none" or total == done
        self._screen = Screen(sys.stderr, settings.display)
        self._begin = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Tally:
        if not self._silent and self._screen.can_redraw:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._silent and self._done > self._before:
            self._say()

    def add(self) -> None:
        self.set(self._done + 1)

    def set(self, done: int) -> None:
        self._done = done
        if self._bar is not None:
            rate = f"{self._rate():.1f} {self._unit}/s"
            self._bar.update(self._task, completed=self._done, rate=rate)
        elif not self._silent and time.monotonic() - self._said > _SILENCE_S:
            self._say()

    def _rate(self) -> float:
        return (self._done - self._before) / max(time.monotonic() - self._begin, 1e-9)

    def _say(self) -> None:
        self._said, rate = time.monotonic(), self._rate()
        left = (self._total - self._done) / rate if rate else 0.0
        remaining = f", {left:.0f} s left" if left >= 1 else ""
        line = f"{self._title}: {self._done} of {self._total} {self._unit}, {rate:.1f} a second{remaining}"
        self._screen.put_line((line, DIM))


class Pace:
    """Says what comes next of TOTAL, in between: a bar that moves by itself would take time from what is
    timed. `quiet` and `display` none keep it silent."""

    def __init__(self, title: str, total: int, settings: Settings) -> None:
        self._title, self._total, self._number, self._said = title, total, 0, time.monotonic()
        self._screen = Screen(sys.stderr, settings.display)
        self._silent = settings.quiet or settings.display == "none"

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._silent:
            self._screen.erase()

    def say(self, what: str) -> None:
        self._number += 1
        line = f"{self._title} {self._number} of {self._total}: {what}"
        if self._silent:
            return
        if self._screen.can_redraw:
            self._screen.redraw(line)
        elif time.monotonic() - self._said > _SILENCE_S:
            self._said = time.monotonic()
            self._screen.put_line((line, DIM))


@contextmanager
def keeping(settings: Settings, kept: Callable[[], str]) -> Iterator[None]:
    """Says at Ctrl-C what of a long run is kept, and that the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        if not settings.quiet:
            note = f"\n{kept()}; the same command goes on from there."
            Screen(sys.stderr, settings.display).put_line((note, DIM))
        raise
