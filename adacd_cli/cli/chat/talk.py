"""A chat without its terminal: the conversation, the session that answers it, and what the model sees of it. An
answer becomes part of the conversation when it ends or is stopped, never when it fails."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from adacd_cli.answers.run import Session
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import ServerError, UsageError
from adacd_cli.events import Event, Finished, FinishReason, Started, TokenStep, raise_failures
from adacd_cli.loading import load_extras
from adacd_cli.profiles.store import applied, chosen_method
from adacd_cli.prompts import Prompts

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel

CANCELLED = FinishReason.CANCELLED
_REMEMBERED_TRACES = 32

Build = Callable[[Conversation, "Settings"], "Prompts"]


@dataclass(frozen=True)
class View:
    """A conversation, and the prompts of what the model sees of it: without `left_out` oldest exchanges."""

    conversation: Conversation
    prompts: Prompts
    left_out: int


class Talk:
    """A conversation whose answers can be stopped, taken back and decoded again; between two answers `use` replaces
    the settings, and the conversation may be replaced too; `build` is `prompts_for` of its tokenizer."""

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
        """What the model sees of a conversation: all of it, or as many of the last exchanges as fit. Both prompts
        must leave room for an answer: `max_new_tokens`, but at most a quarter of the context. The last exchange
        always stays; one that is too long by itself is refused when it is to be answered."""
        seen = partial(self._seen, conversation, self.settings)
        if self._fits(whole := seen(0)):
            return whole
        choices = range(max(len(conversation.questions) - 1, 0))
        return seen(bisect_left(choices, True, key=lambda left_out: self._fits(seen(left_out))))

    def answer(
        self, view: View, *, seed: int | None = None, cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Answers the question that the view ends with; the conversation then holds the answer. An answer that is
        cancelled, interrupted or closed is kept as far as it came. When nothing came, or when decoding fails, the
        conversation stays as it was; what a server sent before it failed is kept."""
        events: list[Event] = []
        try:
            for event in self._decode(view.prompts, self.settings, seed, cancelled):
                events.append(event)
                if isinstance(event, Finished) and (event.text or event.finish_reason is not CANCELLED):
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
        # another method may read another prompt
        prompts = self._seen(view.conversation, settings, view.left_out).prompts
        yield from self._decode(prompts, settings, seed, cancelled)  # the scheduler takes one run at a time

    def _decode(
        self, prompts: Prompts, settings: Settings, seed: int | None, cancelled: Callable[[], bool]
    ) -> Iterator[Event]:
        from adacd_cli.engine import Request

        request = Request(prompts, applied(settings, self.session.model.profile), seed)
        return raise_failures(self.session.decode([request], cancelled=lambda _: cancelled()))

    def _keep(self, answered: Conversation, events: list[Event]) -> None:
        self.conversation = answered
        self._traces[answered.messages] = tuple(events)
        if len(self._traces) > _REMEMBERED_TRACES:
            del self._traces[next(iter(self._traces))]

    def _seen(self, conversation: Conversation, settings: Settings, left_out: int) -> View:
        first = conversation.questions[left_out] if left_out else 0
        shown = replace(conversation, messages=conversation.messages[first:])
        prompts = self._build(shown, applied(settings, self.session.model.profile))
        return View(conversation, prompts, left_out)

    def _fits(self, view: View) -> bool:
        if (limit := self.context_length) is None:
            return True
        return view.prompts.longest + max(1, min(self.settings.max_new_tokens, limit // 4)) <= limit
