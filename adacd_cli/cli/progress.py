"""How far a long command is: a bar with rate and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from adacd_cli.cli.running import note
from adacd_cli.config import Settings
from adacd_cli.render.screen import DIM, Screen

_SILENCE_S = 30.0  # seconds between two lines where there is no terminal


class Tally:
    """Counts TOTAL things on stderr, DONE of them before; silent with `quiet` and `display` none."""

    def __init__(self, title: str, total: int, unit: str, settings: Settings, *, done: int = 0) -> None:
        self._title, self._total, self._unit, self._display = title, total, unit, settings.display
        self._done, self._before = done, done
        self._bar: Any = None
        self._silent = _is_silent(settings) or total == done

    def __enter__(self) -> Tally:
        self._screen = Screen(sys.stderr, self._display)
        self._begin = self._said = time.monotonic()
        if not self._silent and self._screen.can_redraw:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            title, rate = (
                TextColumn(each, markup=False) for each in ("{task.description}", "{task.fields[rate]}")
            )
            columns = title, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._silent and self._done > self._before:
            self._say()

    def add(self, _: object = None) -> None:
        self.set(self._done + 1)

    def set(self, done: int) -> None:
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=f"{self._rate():.1f} {self._unit}/s")
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


@contextmanager
def pace(title: str, total: int, settings: Settings) -> Iterator[Callable[[str], None]]:
    """What says which of TOTAL comes next, in between: a bar that moves by itself would take time from what is
    timed."""
    screen, said, numbers = Screen(sys.stderr, settings.display), time.monotonic(), count(1)

    def say(what: str) -> None:
        nonlocal said
        line = f"{title} {next(numbers)} of {total}: {what}"
        if screen.can_redraw:
            screen.redraw(line)
        elif time.monotonic() - said > _SILENCE_S:
            said = time.monotonic()
            screen.put_line((line, DIM))

    if _is_silent(settings):
        yield lambda what: None
        return
    try:
        yield say
    finally:
        screen.erase()


def _is_silent(settings: Settings) -> bool:
    return settings.quiet or settings.display == "none"


@contextmanager
def keeping(settings: Settings, kept: Callable[[], str]) -> Iterator[None]:
    """Says at Ctrl-C what of a long run is kept, and that the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"\n{kept()}; the same command goes on from there.", settings)
        raise
