"""`adacd explain`: the trace of one answer, token by token, with the reason for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TextIO

from adacd_cli.cli.options import FILE, OUTPUT, PROMPT, SHOW_PROMPTS, option, switch, with_settings
from adacd_cli.cli.running import Interruption, for_renderer, prepare, view_of
from adacd_cli.cli.streams import open_output, read_question
from adacd_cli.config import Resolved
from adacd_cli.errors import UsageError
from adacd_cli.events import Event
from adacd_cli.render.screen import View
from adacd_cli.render.text import write_events
from adacd_cli.render.trace import write_html, write_table
from adacd_cli.suggest import known_names_hint

FORMATS: dict[str, Callable[[Iterable[Event], TextIO, View], None]] = {
    "table": write_table,
    "json": lambda events, out, view: write_events(events, out),
    "html": write_html,
}

_PAGE_CANDIDATES = 5  # the HTML page has room for them even without --top
_FORMAT = f"How to write the trace (one of {', '.join(FORMATS)}; default table)."


@with_settings()
def command(
    resolved: Resolved,
    prompt: str | None = PROMPT,
    file: str | None = FILE,
    form: str | None = option("NAME", _FORMAT, "--format", autocompletion=lambda: list(FORMATS)),
    as_json: bool = switch("The same as --format json: JSON Lines.", "--json"),
    top: int | None = option("N", "Show N candidates at each step (default 0, 5 in a page).", min=0),
    every: bool = switch("A row for every token, also after the contrast window.", "--all"),
    output: str | None = OUTPUT,
    prompts_shown: bool = SHOW_PROMPTS,
) -> None:
    """Show why each token was chosen: a table that grows while the model decodes, then a summary."""
    settings = resolved.settings
    name = _format_name(form, as_json)
    question = read_question(prompt, file, command="explain", quiet=settings.quiet)
    candidates = top if top is not None else _PAGE_CANDIDATES if name == "html" else 0
    view = view_of(question, settings, every=every)
    with open_output(output) as out:
        shown = {"prompts_shown": prompts_shown, "as_json": name == "json"}
        model, requests = prepare([question], settings, candidates=candidates, **shown)
        with Interruption() as stop:
            events = for_renderer(stop.decode(model, requests), settings, as_json=name == "json")
            FORMATS[name](events, out, view)


def _format_name(form: str | None, as_json: bool) -> str:
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} ask for two formats.", "Leave one of them out.")
    name = "json" if as_json else form or "table"
    if name not in FORMATS:
        raise UsageError(f"Unknown format {name!r}.", known_names_hint(name, FORMATS))
    return name
