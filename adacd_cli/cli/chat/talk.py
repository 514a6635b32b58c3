"""The chat: the conversation, the session that answers it and what the model sees of it (Talk), and the same at its
terminal (Chat), which takes one message or command after another. An answer becomes part of the conversation when
it ends or is stopped, never when it fails; an error ends a message or a command, never the chat."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TextIO

import typer

from adacd_cli.answers import Session
from adacd_cli.cli.chat.commands import run_command
from adacd_cli.cli.chat.input import Call, PipeReader, TerminalReader, parse
from adacd_cli.cli.errors import show_error
from adacd_cli.cli.running import Interruption, show_answer, warn
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import ServerError, UsageError
from adacd_cli.events import Event, Finished, FinishReason, Started, TokenStep, raise_failures
from adacd_cli.loading import load_extras
from adacd_cli.profiles.store import applied, chosen_method
from adacd_cli.prompts import Prompts
from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel

_CANCELLED, _REMEMBERED_TRACES = FinishReason.CANCELLED, 32

Build = Callable[[Conversation, Settings], Prompts]


@dataclass(frozen=True)
class View:
    """A conversation, and the prompts of what the model sees of it: without `left_out` oldest exchanges."""

    conversation: Conversation
    prompts: Prompts
    left_out: int


class Talk:
    """A conversation whose answers can be stopped, taken back and decoded again; between two answers settings and
    conversation may be replaced. BUILD is `prompts_for` of the model's tokenizer."""

    def __init__(
        self, model: LanguageModel, settings: Settings, build: Build, conversation: Conversation
    ) -> None:
        self.settings = chosen_method(settings, model.profile)
        self.conversation = conversation
        self.session = Session(model, settings.prefix_cache)
        self._build = build
        self._traces: dict[tuple[Message, ...], tuple[Event, ...]] = {}

    def use(self, settings: Settings) -> tuple[str, ...]:
        """Decodes with these settings from now on; loads what they need, and gives the warnings of that."""
        before = self.session.model
        self.session.use(load_extras(before, settings))
        self.settings = settings
        return self.session.model.warnings[len(before.warnings) :]

    @property
    def applied(self) -> Settings:
        """The settings that decode, those of a profile among them."""
        return applied(self.settings, self.session.model.profile)

    @property
    def context_length(self) -> int | None:
        """Positions of the context under the method that decodes; None where the model names none."""
        return self.session.model.context_for(METHODS[self.settings.effective_method], self.settings)

    @property
    def trace(self) -> tuple[Event, ...]:
        """The events of the answer that the conversation ends with; () where it was not decoded here."""
        return self._traces.get(self.conversation.messages, ())

    def with_question(self, question: str) -> Conversation:
        """The conversation with one more question; UsageError where the last one has no answer yet."""
        if self.conversation.messages and self.conversation.messages[-1].role == "user":
            raise UsageError("The last question has no answer yet.", "/retry answers it, /undo drops it.")
        return self.conversation.with_user(question)

    def up_to_last_question(self) -> Conversation:
        """The conversation up to its last question, without the answer; UsageError where there is none."""
        before = self.conversation.without_last_turn()
        if before == self.conversation:
            raise UsageError("There is no question yet.", "Type one first.")
        return before.with_user(self.conversation.messages[len(before.messages)].content)

    def another_seed(self) -> int | None:
        """A seed that the last answer did not have; None, for a fresh one, where the settings fix none."""
        if self.settings.seed is None:
            return None
        used = self.last_seed()
        return ((self.settings.seed if used is None else used) + 1) % 2**63

    def last_seed(self) -> int | None:
        """The seed that the last answer was drawn with; None where it was greedy, or was loaded."""
        return next((event.seed for event in self.trace if isinstance(event, Started)), None)

    def view(self, conversation: Conversation) -> View:
        """What the model sees of a conversation: as many of the last exchanges as leave room for an answer in both
        prompts, `max_new_tokens`, but at most a quarter of the context. The last exchange always stays; one that is
        too long by itself is refused when it is to be answered."""
        seen = partial(self._seen, conversation, self.applied)
        if self._fits(whole := seen(0)):
            return whole
        choices = range(max(len(conversation.questions) - 1, 0))
        return seen(bisect_left(choices, True, key=lambda left_out: self._fits(seen(left_out))))

    def answer(
        self, view: View, *, seed: int | None = None, cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Answers the question that the view ends with; the conversation then holds the answer, as far as it came
        where it is cancelled, interrupted or closed, or a server failed. When nothing came, or when decoding fails,
        the conversation stays as it was."""
        events: list[Event] = []
        try:
            for event in self._decode(view.prompts, self.applied, seed, cancelled):
                events.append(event)
                if isinstance(event, Finished) and (event.text or event.finish_reason is not _CANCELLED):
                    self._keep(view.conversation.with_assistant(event.text), events)
                yield event
        except (KeyboardInterrupt, GeneratorExit, ServerError):
            text = "".join(each.text for each in events if isinstance(each, TokenStep) and not each.thinking)
            if text and not isinstance(events[-1], Finished):
                self._keep(view.conversation.with_assistant(text), [])
            raise

    def rehearse(
        self, view: View, settings: Settings, *, seed: int | None = None, cancelled: Callable[[], bool]
    ) -> Iterator[Event]:
        """Answers the question with other settings; the conversation stays as it is."""
        settings = applied(settings, self.session.model.profile)
        prompts = self._seen(view.conversation, settings, view.left_out).prompts  # may be others
        yield from self._decode(prompts, settings, seed, cancelled)  # the scheduler takes one run at a time

    def _decode(
        self, prompts: Prompts, settings: Settings, seed: int | None, cancelled: Callable[[], bool]
    ) -> Iterator[Event]:
        from adacd_cli.engine import Request

        request = Request(prompts, settings, seed)
        return raise_failures(self.session.decode([request], cancelled=lambda _: cancelled()))

    def _keep(self, answered: Conversation, events: list[Event]) -> None:
        self.conversation = answered
        self._traces[answered.messages] = tuple(events)
        if len(self._traces) > _REMEMBERED_TRACES:
            del self._traces[next(iter(self._traces))]

    def _seen(self, conversation: Conversation, settings: Settings, left_out: int) -> View:
        first = conversation.questions[left_out] if left_out else 0
        shown = replace(conversation, messages=conversation.messages[first:])
        return View(conversation, self._build(shown, settings), left_out)

    def _fits(self, view: View) -> bool:
        if (limit := self.context_length) is None:
            return True
        return view.prompts.longest + max(1, min(self.settings.max_new_tokens, limit // 4)) <= limit


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
        for line in lines:
            Screen(self.out, self.talk.settings.display).put_line(line)

    def note(self, *lines: str) -> None:
        for line in () if self.talk.settings.quiet else lines:
            Screen(self.err, self.talk.settings.display).put_line((line, DIM))

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
