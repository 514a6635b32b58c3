"""`adacd explain`: the trace of one answer, token by token, with the reason for each."""

from __future__ import annotations

from typing import Annotated

import typer

from adacd_cli.answers.run import decode
from adacd_cli.cli.inputs import read_question
from adacd_cli.cli.options import FileOption, OutputOption, PromptArgument, ShowPromptsOption, with_settings
from adacd_cli.cli.outputs import open_output
from adacd_cli.cli.running import for_renderer, interruptible, prepare
from adacd_cli.config import Resolved
from adacd_cli.errors import UsageError
from adacd_cli.render.formats import FORMATS
from adacd_cli.render.view import View
from adacd_cli.suggest import known_names_hint

_PAGE_CANDIDATES = 5
"""The HTML page has room for candidates even without --top."""


@with_settings()
def command(
    resolved: Resolved,
    prompt: PromptArgument = None,
    file: FileOption = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"How to write the trace (one of {', '.join(FORMATS)}; default table).",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json: JSON Lines.")] = False,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", min=0, help="Show N candidates at each step (default 0, 5 in a page)."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="A row for every token, also after the contrast window.")
    ] = False,
    output: OutputOption = None,
    prompts_shown: ShowPromptsOption = False,
) -> None:
    """Show why each token was chosen: a table that grows while the model decodes, then a summary."""
    settings = resolved.settings
    name = _format_name(form, as_json)
    question = read_question(prompt, file, command="explain")
    candidates = top if top is not None else _PAGE_CANDIDATES if name == "html" else 0
    view = View(question, every, settings.display, quiet=settings.quiet, stats=settings.stats)
    with open_output(output) as out:
        model, request = prepare(question, settings, prompts_shown=prompts_shown, candidates=candidates)
        with interruptible() as interruption:
            watched = interruption.watch(decode(model, [request], cancelled=interruption.cancelled))
            FORMATS[name](for_renderer(watched, settings, as_json=name == "json"), out, view)


def _format_name(form: str | None, as_json: bool) -> str:
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} ask for two formats.", "Leave one of them out.")
    name = "json" if as_json else form or "table"
    if name not in FORMATS:
        raise UsageError(f"Unknown format {name!r}.", known_names_hint(name, FORMATS))
    return name
