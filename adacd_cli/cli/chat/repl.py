"""The chat at its terminal: takes one message or command after another and shows what comes of it. Answers and what
a command shows go to `out`, everything about them to `err`. An error ends a message or a command, never the
chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import TextIO

import typer

from adacd_cli.cli.chat.commands import run_command
from adacd_cli.cli.chat.input import Call, PipeReader, TerminalReader, parse
from adacd_cli.cli.chat.talk import Talk, View
from adacd_cli.cli.errors import show_error
from adacd_cli.cli.running import Interruption, show_answer, warn
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.events import FinishReason
from adacd_cli.render.screen import DIM, Screen


class Chat:
    """A conversation at a terminal or over a pipe; where it is interactive, Ctrl-C ends an answer, not the chat."""

    def __init__(self, talk: Talk, *, out: TextIO, err: TextIO, interactive: bool) -> None:
        self.talk, self.out, self.err, self.is_over = talk, out, err, False
        self._draft = ""  # the last message, where it was not answered
        self._interactive = interactive
        self._legend_shown = False
        self._left_out = 0
        self._warned: set[str] = set()

    def run(self, reader: PipeReader | TerminalReader) -> None:
        if self._interactive:
            model, method = self.talk.session.model, self.talk.settings.method_label
            if model.profile is not None and self.talk.settings.method == "fitted":
                method += f" · profile {model.profile.name}"
            self.note(f"{model.name} · {method} · /help for commands, Ctrl-D to leave")
        while not self.is_over:
            try:
                self.take(reader.read(self._draft))
            except EOFError:
                return
            except KeyboardInterrupt:  # one that came too late for the answer it was meant to end
                if not self._interactive:
                    raise

    def take(self, text: str) -> None:
        """Answers a message or runs a command; an error is shown, and nothing of the conversation is lost."""
        self._draft = ""
        try:
            line = parse(text)
            if isinstance(line, Call):
                run_command(self, line.name, line.argument)
            elif line:
                self._ask(line)
        except (KeyboardInterrupt, typer.Exit):
            if not self._interactive:
                raise
            self.note("Interrupted.")
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # the output is gone
            show_error(error)
        if self._draft:
            unanswered = f"Not answered: {self._draft}"
            self.note("Your message is back at the prompt." if self._interactive else unanswered)

    def answer(self, conversation: Conversation, *, seed: int | None = None) -> None:
        view, settings = self.view(conversation), self.talk.settings
        with (
            self.interruptible() as stop,
            closing(self.talk.answer(view, seed=seed, cancelled=lambda: stop.requested)) as events,
        ):
            legend = not self._legend_shown
            finished = show_answer(stop.watch(events), settings, self.out, self.err, legend=legend)
            self._legend_shown = self._legend_shown or finished.added + finished.subtracted > 0
            if finished.text and finished.finish_reason is FinishReason.CANCELLED:
                self.note("Stopped; the answer so far stays in the conversation.")

    def view(self, conversation: Conversation) -> View:
        """What the model sees of a conversation; notes what it does not see."""
        view = self.talk.view(conversation)
        self._warn(view.prompts.warnings)
        limit = self.talk.context_length
        if limit is None or view.prompts.longest >= limit:
            return view  # too long with everything left out: that is what decoding is going to say
        if view.left_out and view.left_out != self._left_out:
            oldest = f"{view.left_out} oldest exchanges" if view.left_out > 1 else "oldest exchange"
            self.note(f"The context is full: the model no longer sees the {oldest} (/save keeps all).")
        self._left_out = view.left_out
        return view

    @contextmanager
    def interruptible(self) -> Iterator[Interruption]:
        """Lets Ctrl-C end what is being decoded; somebody who sits there goes on talking."""
        with suppress(typer.Exit) if self._interactive else nullcontext(), Interruption() as stop:
            yield stop

    def show(self, *lines: str) -> None:
        screen = Screen(self.out, self.talk.settings.display)
        for line in lines:
            screen.put_line(line)

    def note(self, *lines: str) -> None:
        if not self.talk.settings.quiet:
            screen = Screen(self.err, self.talk.settings.display)
            for line in lines:
                screen.put_line((line, DIM))

    def _ask(self, question: str) -> None:
        before = self.talk.conversation
        try:
            self.answer(self.talk.with_question(question))
        finally:
            if self.talk.conversation is before:
                self._draft = question

    def use(self, settings: Settings) -> None:
        self._warn(self.talk.use(settings))

    def _warn(self, warnings: Iterable[str]) -> None:
        """Once each: every turn would say the same."""
        warn((warning for warning in warnings if warning not in self._warned), self.talk.settings)
        self._warned.update(warnings)
