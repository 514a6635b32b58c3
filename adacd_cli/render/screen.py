"""A text stream as something to draw on, and text of a model or a user made safe to show on it. Every renderer
writes through `Screen`, which flushes, makes control characters visible on a terminal, and leaves a pipe alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style

from adacd_cli.config import Settings
from adacd_cli.events import Decision, TokenStep

PIPE_WIDTH = 80  # of a table in a pipe or a file, whatever terminal the command was started from

PLAIN = Style()
DIM = Style(dim=True)
BOLD = Style(bold=True)

# Crimson and blue of middling brightness read on a light and on a dark background (contrast 4 to 5), also as
# the magenta and cyan of a sixteen-colour terminal; an underline tells them apart without colour vision.
DECISION_STYLES = {
    Decision.ADD: Style(color="#d7005f", underline=True),
    Decision.SUBTRACT: Style(color="#0087af"),
    Decision.PLAIN: PLAIN,
}

_BIDI = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that turn the writing direction: text after one can be made to look like another text."""

_CONTROLS: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: 0x2421,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    **{code: f"\\u{code:04x}" for code in _BIDI},
}

_WHITE = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def printable(text: str) -> str:
    """The text with control characters but newline and tab made visible, so that a terminal obeys none: `␛`, …"""
    return text.translate(_CONTROLS)


def label(text: str) -> str:
    """A token's text on one line with nothing invisible: `␣` space, `⏎` newline, `⇥` tab, else an escape."""
    if not text:
        return "''"
    shown = "".join(_WHITE.get(each) or (each if each.isprintable() else ascii(each)[1:-1]) for each in text)
    # a lone combining mark would settle on whatever stands before it
    return "◌" + shown if unicodedata.category(text[0]).startswith("M") else shown


def spoken(text: str) -> str:
    """A token in a sentence: quoted, without the spaces around its word."""
    return f"“{label(text.strip(' ') or text)}”"


def fit(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly `width` terminal cells: padded, or cut with `…`."""
    size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    padding = " " * (width - size)
    return padding + text if right else text + padding


@dataclass(frozen=True)
class View:
    """How an answer and its trace are to be shown."""

    prompt: str
    every: bool = False  # a row for plain tokens too; without it a run of them becomes one line
    display: str = "auto"  # as `Screen` takes it; with none also no legend and no statistics
    quiet: bool = False  # without the lines that explain a trace; of an answer nothing but its text
    stats: bool = True
    width: int | None = None

    @classmethod
    def of(cls, prompt: str, settings: Settings, *, every: bool = False, stats: bool = False) -> View:
        return cls(prompt, every, settings.display, settings.quiet, settings.stats or stats)


class Screen:
    """A stream to draw on. Display is auto (styles on a terminal, none under NO_COLOR), color (styles everywhere),
    plain or none; without a width the terminal is asked, and a pipe has 80 columns."""

    def __init__(self, stream: TextIO, display: str = "auto", width: int | None = None) -> None:
        forced, attached = display == "color", stream.isatty()
        console = Console(
            file=stream,
            # explicit, because FORCE_COLOR in the environment would write escapes into pipes
            force_terminal=forced or attached,
            force_jupyter=False,
            color_system="256" if forced and not attached else "auto",
            no_color=False if forced else None,
        )
        self._stream = stream
        self.is_terminal = forced or attached
        self.can_redraw = attached
        self.width = width or (console.width if attached else PIPE_WIDTH)
        # bold and underline alone would be read as emphasis, so NO_COLOR takes every style away
        styled = display in ("auto", "color") and not console.no_color and not console.legacy_windows
        self._colors = COLOR_SYSTEMS.get(console.color_system or "") if styled else None

    @property
    def styled(self) -> bool:
        return self._colors is not None

    def put(self, text: str, style: Style = PLAIN) -> None:
        """Writes and flushes text, with no newline of its own."""
        self._write(self._dressed(self._shown(text), style))

    def put_line(self, *parts: str | tuple[str, Style]) -> None:
        """Writes parts, each text or (text, style), and a newline; the spaces that pad a part stay bare."""
        line = ""
        for part in parts:
            text, style = part if isinstance(part, tuple) else (part, PLAIN)
            body = (shown := self._shown(text)).rstrip(" ")
            line += self._dressed(body, style) + shown[len(body) :]
        self._write(line.rstrip(" ") + "\n")

    def redraw(self, text: str) -> None:
        """Writes a line over the line the cursor is on, where that can be done; nothing elsewhere."""
        if self.can_redraw:
            # one column stays free, because a full line would wrap and could not be written over
            self._write("\r" + self._dressed(fit(printable(text), self.width - 1), DIM))

    def erase(self) -> None:
        self.redraw("")
        if self.can_redraw:
            self._write("\r")

    @contextmanager
    def closed_on_error(self, close: Callable[[], None]) -> Iterator[None]:
        """Calls CLOSE when the block raises, so that an error's message begins on a line of its own."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if not isinstance(error, OSError):  # a stream that failed takes no more text
                close()
            raise

    def _shown(self, text: str) -> str:
        return printable(text) if self.is_terminal else text

    def _dressed(self, text: str, style: Style) -> str:
        return style.render(text, color_system=self._colors) if text else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def decision_cell(step: TokenStep) -> tuple[str, Style]:
    """A step's decision with its mark, which needs no underline beside it: `− subtract`."""
    style = DECISION_STYLES[step.decision] + Style(underline=False)
    return f"{step.decision.mark} {step.decision.value}", style
