"""`adacd compare`: Default and the chosen method on one prompt, and the token where they part."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from adacd_cli.cli.options import FILE, OUTPUT, PROMPT, SHOW_PROMPTS, switch, with_settings
from adacd_cli.cli.running import Interruption, for_renderer, make_requests, prepare, view_of
from adacd_cli.cli.streams import open_output, read_question
from adacd_cli.config import Resolved
from adacd_cli.errors import UsageError
from adacd_cli.events import Event
from adacd_cli.render.comparison import write_comparison
from adacd_cli.render.text import write_events


@with_settings()
def command(
    resolved: Resolved,
    prompt: str | None = PROMPT,
    file: str | None = FILE,
    as_json: bool = switch("Write both runs as JSON Lines: request 0 is Default, 1 the method.", "--json"),
    output: str | None = OUTPUT,
    prompts_shown: bool = SHOW_PROMPTS,
) -> None:
    """Show Default and the chosen method side by side, and the token where they part."""
    settings = resolved.settings
    if settings.method == "default":
        hint = "Choose --method adacd, or leave it out."
        raise UsageError("There is nothing to compare: the method is default itself.", hint)
    question = read_question(prompt, file, command="compare", quiet=settings.quiet)
    with open_output(output) as out:
        model, (request,) = prepare([question], settings, prompts_shown=prompts_shown, as_json=as_json)
        # Default reads the conversation alone, whatever the method puts before it, and draws with the same seed
        (alone,) = make_requests(model, [question], settings.model_copy(update={"method": "default"}))
        seed = secrets.randbits(31) if request.seed is None and settings.temperature else request.seed
        with Interruption() as stop:
            default, method = (
                _numbered(number, stop.decode(model, [replace(each, seed=seed)]))
                for number, each in enumerate((alone, request))
            )
            if as_json:
                write_events(for_renderer(chain(default, method), settings, as_json=True), out)
            else:
                default, method = (for_renderer(events, settings) for events in (default, method))
                write_comparison(default, method, out, sys.stderr, view_of(question, settings))


def _numbered(number: int, events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        yield event if event.request is None else replace(event, request=number)
