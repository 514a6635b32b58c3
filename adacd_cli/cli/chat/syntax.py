"""What a line typed into a chat means: a message, or a slash command with its argument.

`\"\"\"` opens and closes text of several lines, which is taken as it stands; `//x` is the message `/x`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUOTES = '"""'

_COMMAND = re.compile(r"/(\S+)\s*(.*)", re.DOTALL)
_OPENING = re.compile(rf"\s*(/[^/\s]\S*\s+)?{QUOTES}")


@dataclass(frozen=True)
class Call:
    """A slash command: its name without the slash, and the rest of the line."""

    name: str
    argument: str


def is_open(text: str) -> bool:
    """Whether the text opens with `\"\"\"`, as a message or as a command's argument, and does not close."""
    opening = _OPENING.match(text)
    return opening is not None and not text[opening.end() :].rstrip().endswith(QUOTES)


def parse(text: str) -> Call | str:
    """A slash command, or the message; "" where there is none."""
    stripped = text.strip()
    if stripped.startswith("//"):
        return stripped[1:]
    found = _COMMAND.fullmatch(stripped)
    return Call(found[1], _unquoted(found[2])) if found else _unquoted(stripped)


def _unquoted(text: str) -> str:
    if text.startswith(QUOTES) and text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES):
        return text[len(QUOTES) : -len(QUOTES)].strip("\n")
    return text
