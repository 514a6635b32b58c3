"""Events as JSON Lines: one object a line, flushed as it comes; the keys are those of `events.to_json`."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from typing import Any, TextIO

from adacd_cli.events import Event, to_json

_UNSAFE = re.compile("[\ud800-\udfff\x7f-\x9f]")


def write_events(events: Iterable[Event], out: TextIO) -> None:
    """Writes each event as it comes; ValueError where a number is NaN or infinite, which JSON cannot say."""
    for event in events:
        out.write(json_line(to_json(event), out, allow_nan=False) + "\n")
        out.flush()


def json_line(value: Any, out: TextIO, *, allow_nan: bool = True) -> str:
    """The value as one line of JSON; what the encoding of `out` cannot carry is escaped."""
    try:
        is_unicode = codecs.lookup(getattr(out, "encoding", None) or "utf-8").name.startswith("utf")
    except LookupError:
        is_unicode = False
    return escaped(json.dumps(value, ensure_ascii=not is_unicode, allow_nan=allow_nan))


def escaped(json_text: str) -> str:
    """The same JSON; lone surrogates, which UTF-8 cannot carry, and terminal controls become \\uXXXX."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)
