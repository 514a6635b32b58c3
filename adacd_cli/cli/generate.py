"""`adacd generate`: answers one prompt, or every line of a file, as text or as events."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer

from adacd_cli.answers.run import decode
from adacd_cli.cli.batching import batch_size_of
from adacd_cli.cli.errors import show_error
from adacd_cli.cli.inputs import read_prompt, read_prompts
from adacd_cli.cli.options import PromptArgument, ShowPromptsOption, with_settings
from adacd_cli.cli.outputs import open_output
from adacd_cli.cli.running import (
    for_renderer,
    interruptible,
    load_model,
    make_requests,
    show_answer,
    show_prompts,
    warn,
)
from adacd_cli.config import Resolved, Settings
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.events import Event, Failed, Finished, FinishReason, Started


@with_settings()
def command(
    resolved: Resolved,
    prompt: PromptArgument = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="Answer every line of a file; - is stdin."),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            "--batch-size",
            metavar="N|auto",
            help="Lines of --file to answer at once (default 1); auto is as many as memory has room for.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the events as JSON Lines.")] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the answer to a file.")
    ] = None,
    prompts_shown: ShowPromptsOption = False,
) -> None:
    """Answer a prompt: from the argument, from a pipe, or both, the pipe first."""
    settings = resolved.settings
    at_once = 1 if batch_size is None else batch_size_of(batch_size)
    questions = _questions(prompt, file, batch_size)
    if file and output and "-" not in (file, output):
        answers = Path(output).expanduser()
        if answers.exists() and answers.samefile(Path(file).expanduser()):
            raise UsageError(
                f"The answers would replace the prompts in {file!r}.", "Name another file with --output."
            )
    with open_output(output) as out:
        model = load_model(settings)
        requests = make_requests(model, questions, settings)
        warn(dict.fromkeys(warning for each in requests for warning in each.prompts.warnings), settings)
        if prompts_shown:
            for request in requests:
                show_prompts(model.tokenizer, request.prompts)
        with interruptible() as interruption:
            decoded = decode(
                model,
                requests,
                batch_size=at_once,
                prefix_cache=settings.prefix_cache,
                cancelled=interruption.cancelled,
            )
            events = _in_order(interruption.watch(decoded))
            if as_json:
                from adacd_cli.render.jsonl import write_events  # rich comes with it, and --help needs none

                write_events(for_renderer(events, settings, as_json=True), out)
            elif file is None:
                show_answer(events, settings, out)
            else:
                _write_answers(events, questions, out, settings)


def _questions(prompt: str | None, file: str | None, batch_size: str | None) -> list[str]:
    if file is None:
        if batch_size is not None:
            raise UsageError("--batch-size is for the lines of --file.", "Leave it out, or name a file.")
        return [read_prompt(prompt, command="generate")]
    if prompt is not None:
        raise UsageError("There is both a prompt and a --file.", "Leave one of them out.")
    return read_prompts(file)


def _in_order(events: Iterable[Event]) -> Iterator[Event]:
    """One request's events after the other's; the first unfinished one's come as they are decoded.

    Requests that Ctrl-C ended before their turn came are left out.
    """
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
    """Answers separated by a blank line; the question goes to stderr before each.

    The error of a question is shown, and the others are answered.
    """
    from adacd_cli.render.screen import DIM, Screen

    notes = Screen(sys.stderr, settings.display)
    code = 0
    for number, answer in enumerate(_one_by_one(events)):
        if number > 0:
            out.write("\n")
        if not settings.quiet:
            notes.put_line((f"{number + 1}/{len(questions)}  {questions[number]}", DIM))
        try:
            show_answer(answer, settings, out, legend=number == 0)
        except AdacdError as error:
            code = show_error(error)
    if code:
        raise typer.Exit(code)
