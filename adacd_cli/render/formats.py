"""The trace formats by name. A new one is a file beside this one and a line here."""

from __future__ import annotations

from adacd_cli.render.jsonl import write_json
from adacd_cli.render.trace import write_table
from adacd_cli.render.trace_html import write_html
from adacd_cli.render.view import TraceWriter

FORMATS: dict[str, TraceWriter] = {"table": write_table, "json": write_json, "html": write_html}
