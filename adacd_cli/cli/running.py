"""What the commands that decode share: loading the model, warnings, Ctrl-C, and prompts on request."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from adacd_cli import loading
from adacd_cli.answers import decode, requests_for
from adacd_cli.cli.errors import show_error
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.errors import INTERRUPTED, UsageError, error_named
from adacd_cli.events import Event, Failed, Finished, Notice, Started, TokenStep
from adacd_cli.prompts import Prompts
from adacd_cli.prompts.prompts import shared_length
from adacd_cli.render.screen import DIM, Screen, View
from adacd_cli.render.text import stream_answer

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel, Request

    Build = Callable[[Callable[[str], None]], LanguageModel]


def load_model(
    settings: Settings, build: Build | None = None, *, for_long: bool = False, suggest: bool = False
) -> LanguageModel:
    """Loads the model as `loading.load`, or makes it by `build`, and shows its warnings; `suggest`: says what to
    type where AdaCD's published settings are used on a model that nobody chose them for."""
    with progress_line(settings) as progress, interrupts_said():
        model = build(progress) if build else loading.load(settings, progress=progress, for_long=for_long)
    warn(model.warnings, settings)
    if suggest and not settings.quiet:
        from adacd_cli.profiles.store import is_preset

        own = model.profile is not None or is_preset(model.name) or settings.profile == "none"
        if not (own or settings.model_fields_set & {"method", "gate", "alpha", "contrast_prompt"}):
            text = f"never fitted to this model: `adacd fit -m {settings.model}` does it."
            Screen(sys.stderr, "plain").put_line(f"Note: AdaCD's settings were {text}")
    return model


def with_extras(model: LanguageModel, settings: Settings, methods: Iterable[str]) -> LanguageModel:
    """The model with everything that the methods need, as `loading.load_extras`; shows its warnings."""
    with progress_line(settings) as progress:
        loaded = loading.load_extras(model, settings, methods=methods, progress=progress)
    warn(loaded.warnings[len(model.warnings) :], settings)
    return loaded


def refuse_served(settings: Settings, command: str, why: str) -> None:
    """Raises UsageError for a model at a server where a command needs its weights."""
    if settings.served:
        hint = "Name a hub id, a folder or a GGUF file with --model."
        raise UsageError(f"`adacd {command}` cannot be used with a model at a server: {why}.", hint)


@contextmanager
def interrupts_said(*, hold: bool = False) -> Iterator[None]:
    """Makes Ctrl-C a KeyboardInterrupt whatever a library turns it into: transformers takes one in the middle of
    an import for a missing package, and torch may abort. `hold` keeps it back until the block ends."""
    pressed = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        if not hold:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


@contextmanager
def progress_line(settings: Settings) -> Iterator[Callable[[str], None]]:
    """A moving line on a terminal that says what is being done; nothing elsewhere or if unwanted."""
    if settings.quiet or settings.display == "none" or not sys.stderr.isatty():
        yield lambda step: None
        return
    with Console(stderr=True).status(Text("Starting")) as status:
        yield lambda step: status.update(Text(step))


def note(text: str, settings: Settings) -> None:
    if not settings.quiet:
        Screen(sys.stderr, settings.display).put_line((text, DIM))


def warn(warnings: Iterable[str], settings: Settings) -> None:
    for warning in () if settings.quiet else warnings:
        Screen(sys.stderr, "plain").put_line(f"Warning: {warning}")


def make_requests(
    model: LanguageModel, asked: Sequence[str], settings: Settings, *, candidates: int = 0, prefill: str = ""
) -> list[Request]:
    """As `requests_for`: each question is a conversation of its own, and its answer begins with `prefill`."""
    conversations = [Conversation.ask(question, settings.system) for question in asked]
    if prefill:
        conversations = [each.with_assistant(prefill) for each in conversations]
    return requests_for(model, conversations, settings, candidates=candidates)


def prepare(
    asked: Sequence[str], settings: Settings, *, prompts_shown: bool, as_json: bool = False, **options: Any
) -> tuple[LanguageModel, list[Request]]:
    """The loaded model and the requests of questions; warnings, and on request the prompts, are shown."""
    model = load_model(settings, suggest=not as_json)
    requests = make_requests(model, asked, settings, **options)
    warn(dict.fromkeys(warning for each in requests for warning in each.prompts.warnings), settings)
    if prompts_shown:
        for request in requests:
            show_prompts(model.tokenizer, request.prompts)
    return model, requests


def show_prompts(tokenizer: Any, prompts: Prompts) -> None:
    """Prints the rendered prompt of every stream, control tokens and all; one where they are all the same."""
    from adacd_cli.engine.answer import decode_ids

    base = prompts.base_name
    for name, prompt in prompts.streams.items():
        title, text = f"{name.capitalize()} stream, {counted(len(prompt.ids), 'token')}", prompt.text
        if name != base and prompt.ids == prompts.base.ids:
            continue
        if name != base and (shared := prompts.shared_with_base(name)):
            title += f", the first {shared:,} shared with the {base} stream"
            decoded = decode_ids(tokenizer, list(prompt.ids[:shared]), control=True)
            place = shared_length(decoded, text)  # without a character that the tokens cut in two
            text = f"{text[:place]}⟪shared up to here⟫{text[place:]}"
        Screen(sys.stderr, "plain").put_line(f"--- {title} ---\n{text}")
    Screen(sys.stderr, "plain").put_line("--- Answer ---")


def for_renderer(events: Iterable[Event], settings: Settings, *, as_json: bool = False) -> Iterator[Event]:
    """The events as a renderer draws them: a Notice becomes a line on stderr, a Failed is raised as the error it
    names. In JSON Lines both stay; the error is shown on stderr too, and after the last event is the exit code."""
    code = 0
    for event in events:
        if as_json:
            if isinstance(event, Failed):
                code = show_error(error_named(event.error, event.message, event.hint))
            yield event
        elif isinstance(event, Notice):
            if not settings.quiet and sys.stdout.isatty() and sys.stderr.isatty():
                sys.stderr.write("\n")  # the answer so far stands on this line
            warn([event.text], settings)
        elif isinstance(event, Failed):
            raise event.exception()
        else:
            yield event
    if code:
        raise typer.Exit(code)


def show_answer(
    events: Iterable[Event], settings: Settings, out: TextIO, err: TextIO, *, legend: bool = True
) -> Finished:
    return stream_answer(for_renderer(events, settings), out, err, View.of("", settings), legend=legend)


class Interruption:
    """While it is entered, the first Ctrl-C after the first token of what it decodes or watches cancels the answer,
    and then gives exit code 130. Before that token, and a second time, it is an ordinary KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self._decoding = False

    def __enter__(self) -> Interruption:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        if error is None and self.requested:
            raise typer.Exit(INTERRUPTED)

    def decode(self, model: LanguageModel, requests: Sequence[Request], **options: Any) -> Iterator[Event]:
        return self.watch(decode(model, requests, cancelled=lambda _: self.requested, **options))

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Started):
                self._decoding = False  # the next thing is a prefill, which can be long
            elif isinstance(event, TokenStep):
                self._decoding = True
            yield event

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.requested or not self._decoding:
            raise KeyboardInterrupt
        self.requested = True
