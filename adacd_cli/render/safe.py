"""Text of a model or a user made safe to show: control characters become visible, tokens fit a cell. Whether a
stream is a terminal is for `screen` to say; nothing here writes."""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len, set_cell_size

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
    """The text with every control character but newline and tab made visible, so that a terminal obeys none:
    `␛`, `\\x9b`, `\\u202e` and the like."""
    return text.translate(_CONTROLS)


def label(text: str) -> str:
    """A token's text on one line with nothing invisible: `␣` space, `⏎` newline, `⇥` tab, else an escape."""
    if not text:
        return "''"
    shown = "".join(_WHITE.get(character) or _escaped(character) for character in text)
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


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
