"""Answer: the events of one request, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adacd_cli.conversation import Conversation
from adacd_cli.events import Event, Failed, Finished, FinishReason, Notice, Started, TokenStep

if TYPE_CHECKING:
    from adacd_cli.engine import Request


@dataclass(frozen=True, repr=False)
class Answer:
    """One answer and how it came about; `str(answer)` is its text.

    Attributes:
        conversation: what was said, this answer included: `answer.conversation.with_user(…)` goes on.
        warnings: what to know about how its prompts were made, one sentence each.
    """

    conversation: Conversation
    started: Started
    steps: tuple[TokenStep, ...]
    finished: Finished
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The answer, without the thinking."""
        return self.finished.text

    @property
    def thinking(self) -> str:
        """What the model thought before it answered; "" where it did not."""
        return self.finished.thinking

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended: STOP, LENGTH or CANCELLED."""
        return self.finished.finish_reason

    @property
    def tokens(self) -> int:
        """How many tokens were decoded, thinking and end of turn included."""
        return self.finished.tokens

    @property
    def added(self) -> int:
        """How many steps leaned towards the prompted stream."""
        return self.finished.added

    @property
    def subtracted(self) -> int:
        """How many steps leaned away from the prompted stream."""
        return self.finished.subtracted

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return (
            f"<Answer {self.text!r}: {self.tokens} tokens, {self.added} added, {self.subtracted} subtracted, "
            f"{self.finish_reason.value}>"
        )


def collect(
    events: Iterable[Event], conversations: Sequence[Conversation], requests: Sequence[Request]
) -> list[Answer]:
    """The answers to conversations, in their order, from the events that `decode` gives of their requests.

    Raises:
        AdacdError: what the first answer that failed did so with, once all have ended.
    """
    started: dict[int, Started] = {}
    steps: list[list[TokenStep]] = [[] for _ in conversations]
    answers: dict[int, Answer] = {}
    failures: list[Failed] = []
    notices: list[str] = []
    for event in events:
        if isinstance(event, Notice):
            notices.append(event.text)
        elif isinstance(event, Failed):
            failures.append(event)
        elif isinstance(event, Started):
            started[event.request] = event
        elif isinstance(event, TokenStep):
            steps[event.request].append(event)
        else:
            number = event.request
            answered = conversations[number].with_assistant(event.text)
            warnings = (*requests[number].prompts.warnings, *notices)
            answers[number] = Answer(answered, started[number], tuple(steps[number]), event, warnings)
    if failures:
        raise failures[0].exception()
    return [answers[number] for number in range(len(conversations))]
