"""`adacd generate`: answers one prompt, or every one of a file, as text or as events."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import typer

from adacd_cli.cli.errors import show_error
from adacd_cli.cli.options import (
    OUTPUT,
    PROMPT,
    PROMPT_COLUMN,
    SHOW_PROMPTS,
    batch_size_of,
    option,
    switch,
    with_settings,
)
from adacd_cli.cli.running import Interruption, for_renderer, prepare, show_answer
from adacd_cli.cli.streams import open_output, read_file, read_questions
from adacd_cli.config import Resolved, Settings
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.events import Event, Failed, Finished, FinishReason, Started
from adacd_cli.render.screen import DIM, Screen
from adacd_cli.render.text import write_events

_FILE = "Answer every line of a text file (- is stdin), or prompt of a CSV or JSON."
_AT_ONCE = "Lines of --file to answer at once (default 1); auto is as many as memory has room for."
_SCHEMA = "Hold the answer, without the thinking, to the JSON schema in a file."
_PREFILL = "Beginning of the answer, in every stream; what follows it is written."


@with_settings()
def command(
    resolved: Resolved,
    prompt: str | None = PROMPT,
    file: str | None = option("FILE", _FILE, "--file", "-f"),
    prompt_column: str | None = PROMPT_COLUMN,
    batch_size: str | None = option("N|auto", _AT_ONCE),
    prefill: str | None = option("TEXT", _PREFILL),
    json_schema: str | None = option("FILE", _SCHEMA),
    as_json: bool = switch("Write the events as JSON Lines.", "--json"),
    output: str | None = OUTPUT,
    prompts_shown: bool = SHOW_PROMPTS,
) -> None:
    """Answer a prompt: from the argument, or from a pipe."""
    settings = resolved.settings
    at_once = 1 if batch_size is None else batch_size_of(batch_size)
    for given, what in (
        (batch_size, "--batch-size is for the lines"),
        (prompt_column, "--prompt-column is for the file"),
    ):
        if file is None and given is not None:
            raise UsageError(f"{what} of --file.", "Leave it out, or name a file.")
    questions = read_questions(prompt, file, command="generate", quiet=settings.quiet, column=prompt_column)
    if file and output and "-" not in (file, output):
        answers = Path(output).expanduser()
        if answers.exists() and answers.samefile(Path(file).expanduser()):
            hint = "Name another file with --output."
            raise UsageError(f"The answers would replace the prompts in {file!r}.", hint)
    schema = None if json_schema is None else read_file(json_schema)
    with open_output(output) as out:
        shown = {"prompts_shown": prompts_shown, "as_json": as_json}
        model, requests = prepare(questions, settings, **shown, prefill=prefill or "")
        if schema is not None:
            from adacd_cli.engine.grammar import Grammars

            grammar = Grammars(model).of_json(schema)
            requests = [replace(each, grammar=grammar) for each in requests]
        with Interruption() as stop:
            limit = settings.prefix_cache
            events = _in_order(stop.decode(model, requests, batch_size=at_once, prefix_cache=limit))
            if as_json:
                write_events(for_renderer(events, settings, as_json=True), out)
            elif file is None:
                show_answer(events, settings, out, sys.stderr)
            else:
                _write_answers(events, questions, out, settings)


def _in_order(events: Iterable[Event]) -> Iterator[Event]:
    """One request's events after the other's; the first unfinished one's come as they are decoded. Requests that
    Ctrl-C ended before their turn came are left out."""
    waiting: dict[int, list[Event]] = {}
    current = 0
    for event in events:
        if event.request is None:
            yield event
            continue
        waiting.setdefault(event.request, []).append(event)
        while current in waiting and not isinstance(waiting[current][-1], Started):
            ready = waiting.pop(current)
            last = ready[-1]
            cancelled = isinstance(last, Finished) and last.finish_reason is FinishReason.CANCELLED
            if not (cancelled and isinstance(ready[0], Started) and len(ready) == 2):
                yield from ready
            if not isinstance(last, (Finished, Failed)):
                break
            current += 1


def _one_by_one(events: Iterable[Event]) -> Iterator[Iterator[Event]]:
    """The events of each request as an iterator, which ends before the next request begins."""
    coming = iter(events)

    def answer(event: Event) -> Iterator[Event]:
        yield event
        while not isinstance(event, (Finished, Failed)):
            event = next(coming)
            yield event

    for first in coming:
        yield answer(first)


def _write_answers(
    events: Iterable[Event], questions: Sequence[str], out: TextIO, settings: Settings
) -> None:
    """Answers separated by a blank line; the question goes to stderr before each. The error of a question is shown,
    and the others are answered."""
    notes = Screen(sys.stderr, settings.display)
    code = 0
    for number, answer in enumerate(_one_by_one(events)):
        if number > 0:
            out.write("\n")
        if not settings.quiet:
            notes.put_line((f"{number + 1}/{len(questions)}  {questions[number]}", DIM))
        try:
            show_answer(answer, settings, out, sys.stderr, legend=number == 0)
        except AdacdError as error:
            code = show_error(error)
    if code:
        raise typer.Exit(code)
