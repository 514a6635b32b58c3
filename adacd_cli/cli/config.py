"""`adacd config show`: every setting, its value and where it came from."""

from __future__ import annotations

import json

import typer

from adacd_cli.cli.options import switch, with_settings
from adacd_cli.config import SETTINGS, Resolved

GROUP = "show", "Show every setting and where its value comes from."


@with_settings()
def command(resolved: Resolved, as_json: bool = switch("One JSON object.", "--json")) -> None:
    """Show every setting, its value, and the flag, variable, file or default it came from."""
    values = resolved.settings.model_dump(mode="json")
    if as_json:
        rows = {
            name: {"value": values[name], "source": source.kind, "where": source.where}
            for name, source in resolved.sources.items()
        }
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    shown = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    name_width = max(map(len, SETTINGS))
    # a longer value pushes its own source to the right instead of every other one
    value_width = max(len(value) for value in shown.values() if len(value) <= 40)
    for name, source in resolved.sources.items():
        typer.echo(f"{name:<{name_width}}  {shown[name]:<{value_width}}  {source.where or source.kind}")
