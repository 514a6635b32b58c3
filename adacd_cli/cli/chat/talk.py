"""A chat without its terminal: the conversation, the session that answers it, and what the model sees of it.

An answer becomes part of the conversation when it ends or is stopped, never when it fails. Messages and
commands are for `commands`, the terminal for `repl`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import ServerError, UsageError
from adacd_cli.events import Event, Finished, FinishReason, Started, TokenStep, raise_failures

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel
    from adacd_cli.prompts import Prompts

_REMEMBERED_TRACES = 32
_SEEDS = 2**63

PromptsBuilder = Callable[[Conversation, "Settings"], "Prompts"]
"""Makes the prompts of all streams; `prompts.prompts_for` with the tokenizer filled in."""


@dataclass(frozen=True)
class View:
    """What the model sees of a conversation.

    Attributes:
        conversation: all of it.
        prompts: those made of what is seen.
        left_out: how many of the oldest exchanges are not seen.
    """

    conversation: Conversation
    prompts: Prompts
    left_out: int

    @property
    def tokens(self) -> int:
        """Length of the longest prompt, in tokens."""
        return self.prompts.longest


class Talk:
    """A conversation whose answers can be stopped, taken back and decoded again.

    Args:
        model: the model that answers.
        settings: the decoding settings; `use` replaces them between two answers.
        build: makes the prompts of a conversation.
        conversation: where to begin; may be replaced between two answers.
    """

    def __init__(
        self, model: LanguageModel, settings: Settings, build: PromptsBuilder, conversation: Conversation
    ) -> None:
        from adacd_cli.answers.session import Session  # torch comes with it

        self.settings = settings
        self.conversation = conversation
        self.session = Session(model, settings.prefix_cache)
        self._build = build
        self._traces: dict[tuple[Message, ...], tuple[Event, ...]] = {}

    def use(self, settings: Settings) -> tuple[str, ...]:
        """Decodes with these settings from now on; gives the warnings of what was loaded for them.

        Raises:
            ModelError, MissingExtraError: what the method needs besides the model cannot be had.
        """
        from adacd_cli.loading.extras import load_extras

        before = self.session.model
        self.session.use(load_extras(before, settings))
        self.settings = settings
        return self.session.model.warnings[len(before.warnings) :]

    @property
    def model_name(self) -> str:
        """What `--model` named: hub id, folder, file or `demo`."""
        return self.session.model.name

    @property
    def context_length(self) -> int | None:
        """Positions of the context under the method that decodes; None where the model names none."""
        method = METHODS[self.settings.effective_method]
        return self.session.model.context_for(method, self.settings)

    @property
    def trace(self) -> tuple[Event, ...]:
        """The events of the answer that the conversation ends with; () where it was not decoded here."""
        return self._traces.get(self.conversation.messages, ())

    def with_question(self, question: str) -> Conversation:
        """The conversation with one more question.

        Raises:
            UsageError: the last question has no answer yet, as a loaded conversation may end.
        """
        if self.conversation.messages and self.conversation.messages[-1].role == "user":
            raise UsageError("The last question has no answer yet.", "/retry answers it, /undo drops it.")
        return self.conversation.with_user(question)

    def up_to_last_question(self) -> Conversation:
        """The conversation up to its last question, without the answer.

        Raises:
            UsageError: there is no question yet.
        """
        before = self.conversation.without_last_turn()
        if before == self.conversation:
            raise UsageError("There is no question yet.", "Type one first.")
        return before.with_user(self.conversation.messages[len(before.messages)].content)

    def another_seed(self) -> int | None:
        """A seed that the last answer did not have; None, for a fresh one, where the settings fix none."""
        if self.settings.seed is None:
            return None
        used = self.last_seed()
        return ((self.settings.seed if used is None else used) + 1) % _SEEDS

    def last_seed(self) -> int | None:
        """The seed that the last answer was drawn with; None where it was greedy, or was loaded."""
        return next((event.seed for event in self.trace if isinstance(event, Started)), None)

    def view(self, conversation: Conversation) -> View:
        """What the model sees of a conversation: all of it, or as many of the last exchanges as fit.

        Both prompts must leave room for an answer: `max_new_tokens`, but at most a quarter of the context.
        The last exchange always stays; one that is too long by itself is refused when it is to be answered.

        Raises:
            PromptError: no prompts can be made of it.
        """
        whole = self._seen(conversation, 0, self.settings)
        if self._fits(whole):
            return whole
        low, high = 0, max(len(_questions(conversation)) - 1, 0)
        while low < high:  # the fewest left out that fit; each more makes the prompts shorter
            middle = (low + high) // 2
            if self._fits(self._seen(conversation, middle, self.settings)):
                high = middle
            else:
                low = middle + 1
        return self._seen(conversation, low, self.settings) if low else whole

    def answer(
        self, view: View, *, seed: int | None = None, cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Answers the question that the view ends with; the conversation then holds the answer.

        An answer that is cancelled, interrupted or closed is kept as far as it came. When nothing came, or
        when decoding fails, the conversation stays as it was; what a server sent before it failed is kept.

        Raises:
            PromptError, LogitsError, ServerError: as `decode`.
        """
        events: list[Event] = []
        try:
            answer = self._decode(view.prompts, self.settings, seed, cancelled)
            for event in raise_failures(answer):
                events.append(event)
                if isinstance(event, Finished) and (
                    event.text or event.finish_reason is not FinishReason.CANCELLED
                ):
                    self._keep(view.conversation.with_assistant(event.text), events)
                yield event
        except (KeyboardInterrupt, GeneratorExit, ServerError):
            text = "".join(
                event.text for event in events if isinstance(event, TokenStep) and not event.thinking
            )
            if text and not isinstance(events[-1], Finished):
                self._keep(view.conversation.with_assistant(text), [])
            raise

    def rehearse(
        self, view: View, settings: Settings, *, seed: int | None = None, cancelled: Callable[[], bool]
    ) -> Iterator[Event]:
        """Answers the question with other settings; the conversation stays as it is.

        Raises:
            PromptError, LogitsError: as `decode`.
        """
        # another method may read another prompt
        prompts = self._seen(view.conversation, view.left_out, settings).prompts
        yield from raise_failures(self._decode(prompts, settings, seed, cancelled))

    def _decode(
        self, prompts: Prompts, settings: Settings, seed: int | None, cancelled: Callable[[], bool]
    ) -> Iterator[Event]:
        from adacd_cli.engine import Request

        request = Request(prompts, settings, seed)
        return self.session.decode([request], cancelled=lambda index: cancelled())

    def _keep(self, answered: Conversation, events: list[Event]) -> None:
        self.conversation = answered
        self._traces[answered.messages] = tuple(events)
        if len(self._traces) > _REMEMBERED_TRACES:
            del self._traces[next(iter(self._traces))]

    def _seen(self, conversation: Conversation, left_out: int, settings: Settings) -> View:
        messages = conversation.messages
        if left_out:
            messages = messages[_questions(conversation)[left_out] :]
        prompts = self._build(replace(conversation, messages=messages), settings)
        return View(conversation, prompts, left_out)

    def _fits(self, view: View) -> bool:
        limit = self.context_length
        return limit is None or view.tokens + max(1, min(self.settings.max_new_tokens, limit // 4)) <= limit


def _questions(conversation: Conversation) -> list[int]:
    return [index for index, message in enumerate(conversation.messages) if message.role == "user"]
