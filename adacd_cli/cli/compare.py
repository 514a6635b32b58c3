"""`adacd compare`: Default and the chosen method on one prompt, and the token where they part."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from adacd_cli.answers.run import decode
from adacd_cli.cli.inputs import read_question
from adacd_cli.cli.options import FileOption, OutputOption, PromptArgument, ShowPromptsOption, with_settings
from adacd_cli.cli.outputs import open_output
from adacd_cli.cli.running import Interruption, for_renderer, interruptible, make_requests, prepare
from adacd_cli.config import Resolved
from adacd_cli.errors import UsageError
from adacd_cli.events import Event, Started
from adacd_cli.render.comparison import write_comparison
from adacd_cli.render.jsonl import write_events
from adacd_cli.render.view import View

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel, Request


@with_settings()
def command(
    resolved: Resolved,
    prompt: PromptArgument = None,
    file: FileOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Write both runs as JSON Lines: request 0 is Default, 1 the method."),
    ] = False,
    output: OutputOption = None,
    prompts_shown: ShowPromptsOption = False,
) -> None:
    """Show Default and the chosen method side by side, and the token where they part."""
    settings = resolved.settings
    if settings.method == "default":
        raise UsageError(
            "There is nothing to compare: the method is default itself.",
            "Choose --method adacd, or leave it out.",
        )
    question = read_question(prompt, file, command="compare")
    with open_output(output) as out:
        model, request = prepare(question, settings, prompts_shown=prompts_shown)
        with interruptible() as interruption:
            plain = settings.model_copy(update={"method": "default"})
            # Default reads the conversation alone, whatever the method puts before it
            (alone,) = make_requests(model, [question], plain)
            default, method = _decode_both(model, alone, request, interruption)
            if as_json:
                write_events(for_renderer(chain(default, method), settings, as_json=True), out)
            else:
                view = View(question, display=settings.display, quiet=settings.quiet, stats=settings.stats)
                default, method = (for_renderer(events, settings) for events in (default, method))
                write_comparison(default, method, out, sys.stderr, view)


def _decode_both(
    model: LanguageModel, default: Request, method: Request, interruption: Interruption
) -> tuple[Iterator[Event], Iterator[Event]]:
    """The events of Default, then those of the method, which samples with the same seed."""
    seeds: list[int | None] = []

    def first() -> Iterator[Event]:
        for event in interruption.watch(decode(model, [default], cancelled=interruption.cancelled)):
            if isinstance(event, Started):
                seeds.append(event.seed)
            yield event

    def second() -> Iterator[Event]:
        seeded = replace(method, seed=seeds[0] if seeds else None)
        for event in interruption.watch(decode(model, [seeded], cancelled=interruption.cancelled)):
            yield event if event.request is None else replace(event, request=1)

    return first(), second()
