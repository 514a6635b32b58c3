"""The trace formats by name: each writes one request's events. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TextIO

from adacd_cli.events import Event
from adacd_cli.render.jsonl import write_events
from adacd_cli.render.trace import write_table
from adacd_cli.render.trace_html import write_html
from adacd_cli.render.view import View

FORMATS: dict[str, Callable[[Iterable[Event], TextIO, View], None]] = {
    "table": write_table,
    "json": lambda events, out, view: write_events(events, out),
    "html": write_html,
}
