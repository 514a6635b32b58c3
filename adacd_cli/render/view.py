"""How a trace is to be shown; every format takes the same View."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TextIO

from adacd_cli.events import Event, TokenStep


@dataclass(frozen=True)
class View:
    """How a trace is to be shown.

    Attributes:
        prompt: the question, shown above the trace.
        every: a row for plain tokens too; without it a run of them becomes one line.
        display: auto, color, plain or none (see `screen.Screen`).
        quiet: leave out the lines that explain how to read the trace.
        stats: end with the line of statistics.
        width: columns; None takes the terminal's.
    """

    prompt: str
    every: bool = False
    display: str = "auto"
    quiet: bool = False
    stats: bool = True
    width: int | None = None


class TraceWriter(Protocol):
    """A trace format: writes one request's events to a stream."""

    def __call__(self, events: Iterable[Event], out: TextIO, view: View) -> None: ...


def is_condensed(step: TokenStep) -> bool:
    """Whether a step has no numbers of its own to show: thinking, and what follows the contrast window."""
    return step.measures.prompted_top_rank is None and not step.measures.named
