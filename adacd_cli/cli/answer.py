"""`adacd generate`, `compare`, `explain` and `chat`: answers as text or as events; Default and a method side by
side; why each token was chosen; and a conversation, at the terminal or from a script on stdin."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TextIO

import typer

from adacd_cli.cli.errors import show_error
from adacd_cli.cli.options import OUTPUT, PROMPT_COLUMN, batch_size_of, option, switch, with_settings
from adacd_cli.cli.running import Interruption, for_renderer, load_model, make_requests, prepare, show_answer
from adacd_cli.cli.streams import check_stdout, open_output, read_file, read_question, read_questions
from adacd_cli.config import Resolved, Settings
from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.events import Event, Failed, Finished, FinishReason, Started
from adacd_cli.render.comparison import write_comparison
from adacd_cli.render.screen import DIM, Screen, View
from adacd_cli.render.text import write_events
from adacd_cli.render.trace import write_html, write_table
from adacd_cli.suggest import known_names_hint

_PROMPT = typer.Argument(None, metavar="PROMPT", help="The question; - is stdin.")
_ONE = option("FILE", "Read the question from a file of one line.", "--file", "-f")
_SHOW_PROMPTS = switch("Show every stream's rendered prompt on stderr first.", "--show-prompts")
_FILE = "Answer every line of a text file (- is stdin), or prompt of a CSV or JSON."
_AT_ONCE = "Lines of --file to answer at once (default 1); auto is as many as memory has room for."
_SCHEMA = "Hold the answer, without the thinking, to the JSON schema in a file."
_PREFILL = "Beginning of the answer, in every stream; what follows it is written."
FORMATS: dict[str, Callable[[Iterable[Event], TextIO, View], None]] = {
    "table": write_table,
    "json": lambda events, out, view: write_events(events, out),
    "html": write_html,
}
_PAGE_CANDIDATES = 5  # the HTML page has room for them even without --top
_FORMAT = f"How to write the trace (one of {', '.join(FORMATS)}; default table)."


@with_settings()
def generate(
    resolved: Resolved,
    prompt: str | None = _PROMPT,
    file: str | None = option("FILE", _FILE, "--file", "-f"),
    prompt_column: str | None = PROMPT_COLUMN,
    batch_size: str | None = option("N|auto", _AT_ONCE),
    prefill: str | None = option("TEXT", _PREFILL),
    json_schema: str | None = option("FILE", _SCHEMA),
    as_json: bool = switch("Write the events as JSON Lines.", "--json"),
    output: str | None = OUTPUT,
    prompts_shown: bool = _SHOW_PROMPTS,
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
    """One request's events after the other's, without requests that Ctrl-C ended before their turn came."""
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
    """Answers with a blank line between, each after its question on stderr; an error ends only its own."""
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


@with_settings()
def compare(
    resolved: Resolved,
    prompt: str | None = _PROMPT,
    file: str | None = _ONE,
    as_json: bool = switch("Write both runs as JSON Lines: request 0 is Default, 1 the method.", "--json"),
    output: str | None = OUTPUT,
    prompts_shown: bool = _SHOW_PROMPTS,
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
                write_comparison(default, method, out, sys.stderr, View.of(question, settings))


def _numbered(number: int, events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        yield event if event.request is None else replace(event, request=number)


@with_settings()
def explain(
    resolved: Resolved,
    prompt: str | None = _PROMPT,
    file: str | None = _ONE,
    form: str | None = option("NAME", _FORMAT, "--format", autocompletion=lambda: list(FORMATS)),
    as_json: bool = switch("The same as --format json: JSON Lines.", "--json"),
    top: int | None = option("N", "Show N candidates at each step (default 0, 5 in a page).", min=0),
    every: bool = switch("A row for every token, also after the contrast window.", "--all"),
    output: str | None = OUTPUT,
    prompts_shown: bool = _SHOW_PROMPTS,
) -> None:
    """Show why each token was chosen: a table that grows while the model decodes, then a summary."""
    settings = resolved.settings
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} ask for two formats.", "Leave one of them out.")
    name = "json" if as_json else form or "table"
    if name not in FORMATS:
        raise UsageError(f"Unknown format {name!r}.", known_names_hint(name, FORMATS))
    question = read_question(prompt, file, command="explain", quiet=settings.quiet)
    candidates = top if top is not None else _PAGE_CANDIDATES if name == "html" else 0
    view = View.of(question, settings, every=every)
    with open_output(output) as out:
        shown = {"prompts_shown": prompts_shown, "as_json": name == "json"}
        model, requests = prepare([question], settings, candidates=candidates, **shown)
        with Interruption() as stop:
            events = for_renderer(stop.decode(model, requests), settings, as_json=name == "json")
            FORMATS[name](events, out, view)


@with_settings()
def chat(resolved: Resolved) -> None:
    """Talk with the model; /help lists what can be typed. A pipe is read a message or a command a line."""
    # prompt_toolkit comes with these, and `adacd chat --help` does not need it
    from adacd_cli.cli.chat.input import PipeReader, TerminalReader, open_history
    from adacd_cli.cli.chat.talk import Chat, Talk
    from adacd_cli.prompts import prompts_for

    if sys.stdin is None:
        hint = "Start the chat at a terminal, or pipe messages in."
        raise UsageError("There is no standard input to read.", hint)
    check_stdout()
    settings = resolved.settings
    model = load_model(settings, suggest=True)
    interactive = sys.stdin.isatty()
    reader = TerminalReader(open_history()) if interactive else PipeReader(sys.stdin.buffer)
    talk = Talk(model, settings, partial(prompts_for, model.tokenizer), Conversation(system=settings.system))
    Chat(talk, out=sys.stdout, err=sys.stderr, interactive=interactive).run(reader)
