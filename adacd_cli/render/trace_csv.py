"""The trace as CSV (RFC 4180): a row a token as it comes, with the keys of the JSON Lines as columns.

Nothing is rounded or relabelled; an absent number is an empty field, candidates are one JSON field.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TextIO

from adacd_cli.events import Event, Finished, Measures, TokenStep, to_json
from adacd_cli.render.jsonl import escaped
from adacd_cli.render.safe import printable
from adacd_cli.render.view import View

_UNASKED = ("logprob", "top_logprobs")
"""What no trace asks for: the candidates tell more."""

_STEP = [field.name for field in fields(TokenStep) if field.name not in _UNASKED]
_PLACE = _STEP.index("measures")
COLUMNS = _STEP[:_PLACE] + [field.name for field in fields(Measures)] + _STEP[_PLACE + 1 :]


def write_csv(events: Iterable[Event], out: TextIO, view: View) -> Finished:
    """Writes a header and a row a token; what `view` says of styles and widths means nothing here.

    Returns:
        the Finished event.
    """
    writer = csv.writer(_Target(out))
    writer.writerow(COLUMNS)
    for event in events:
        if isinstance(event, TokenStep):
            values = to_json(event)
            writer.writerow([_field(values.get(column)) for column in COLUMNS])
        elif isinstance(event, Finished):
            return event
    raise AssertionError("every request ends with Finished")


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return "" if value is None else value


class _Target:
    """Flushes each row, and lets a terminal obey no control character of the model."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, row: str) -> int:
        # the record's own CR LF stays; a pipe or a file gets every byte as it is
        text = printable(row.removesuffix("\r\n")) + "\n" if self._out.isatty() else row
        written = self._out.write(text)
        self._out.flush()
        return written
