"""The trace formats by name. A new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from adacd_cli.events import Event, Finished
from adacd_cli.render.jsonl import write_events
from adacd_cli.render.trace import write_table
from adacd_cli.render.trace_csv import write_csv
from adacd_cli.render.trace_html import write_html
from adacd_cli.render.trace_markdown import write_markdown
from adacd_cli.render.view import TraceWriter, View


def write_json(events: Iterable[Event], out: TextIO, view: View) -> Finished:
    """The JSON Lines of the events, as `--json` gives them everywhere.

    Returns:
        the Finished event.
    """
    finished = write_events(events, out)
    assert finished is not None, "every request ends with Finished"
    return finished


FORMATS: dict[str, TraceWriter] = {
    "table": write_table,
    "json": write_json,
    "csv": write_csv,
    "markdown": write_markdown,
    "html": write_html,
}
