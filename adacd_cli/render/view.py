"""How a trace is to be shown; every format takes the same View."""

from __future__ import annotations

from dataclasses import dataclass


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
