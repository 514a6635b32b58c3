"""generate and stream: a loaded model and a prompt, or many, in; each an Answer, or its events, out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from adacd_cli.answers.run import BatchSize, Cancelled, Session, decode, never, requests_for
from adacd_cli.config.resolve import DECODING, changed
from adacd_cli.config.settings import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError, UsageError
from adacd_cli.events import Event, Failed, Finished, FinishReason, Notice, Started, TokenStep

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel, Request

Messages: TypeAlias = Sequence[Mapping[str, object]]
"""`{"role", "content"}` each, as OpenAI's clients have them."""

Model: TypeAlias = "LanguageModel | Session"
Prompt: TypeAlias = "str | Conversation | Messages"
Prompts: TypeAlias = "Sequence[str | Conversation | Messages]"
_Asked: TypeAlias = "tuple[Prompt | Prompts, Settings | None, Mapping[str, Any], str]"


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


@overload
def generate(model: Model, prompt: Prompt, settings: Settings | None = None, **options: Any) -> Answer: ...


@overload
def generate(
    model: Model, prompt: Prompts, settings: Settings | None = None, **options: Any
) -> list[Answer]: ...


def generate(
    model: Model,
    prompt: Prompt | Prompts,
    settings: Settings | None = None,
    *,
    candidates: int = 0,
    batch_size: BatchSize = "auto",
    **changes: Any,
) -> Answer | list[Answer]:
    """Answers a prompt; or several, decoded side by side.

        answer = generate(model, "How do I kill a Python process?", alpha=3.0)

    Args:
        model: what `load` gave; or a Session of it, which keeps what it read for the next call.
        prompt: text; a list of `{"role", "content"}` messages; or a Conversation. A list of these gives a
            list of answers.
        settings: method, prompts, lengths and sampling; None takes the defaults, and reads no environment.
        candidates: how many of the most probable tokens each step reports.
        batch_size: how many prompts are decoded at once; "auto" is as many as memory has room for.
        **changes: settings by name that differ from `settings`.

    Raises:
        ConfigurationError: a setting is unknown, out of range, or has no say once the model is loaded.
        PromptError: a prompt is empty, no conversation, too long, or the chat template refuses it.
        ModelError: what the method needs besides the model is not loaded.
        LogitsError, OutOfMemoryError, ServerError: what an answer failed with.
    """
    asked = prompt, settings, changes, "generate()"
    conversations, several, requests, events = _begin(model, asked, candidates, batch_size, never)
    answers = _collect(events, conversations, requests)
    return answers if several else answers[0]


def stream(
    model: Model,
    prompt: Prompt | Prompts,
    settings: Settings | None = None,
    *,
    candidates: int = 0,
    batch_size: BatchSize = "auto",
    cancelled: Cancelled = never,
    **changes: Any,
) -> Iterator[Event]:
    """Like `generate`, but gives the events as they come: Started, a TokenStep for each token, Finished;
    or Failed in its place, and the other answers go on. `request` in an event is the place of its prompt.

    What is wrong with the settings or the prompts is raised at once, before the first event is asked for.

    Args:
        cancelled: asked before each step with a prompt's place; True ends its answer as CANCELLED.
    """
    return _begin(model, (prompt, settings, changes, "stream()"), candidates, batch_size, cancelled)[-1]


def _begin(
    model: Model, asked: _Asked, candidates: int, batch_size: BatchSize, cancelled: Cancelled
) -> tuple[list[Conversation], bool, list[Request], Iterator[Event]]:
    """What is asked, whether it was a list of prompts, the requests, and their events."""
    prompt, settings, changes, where = asked
    settings = changed(Settings() if settings is None else settings, changes, DECODING, where)
    conversations, several = as_conversations(prompt, settings)
    reader: Any = model.model if isinstance(model, Session) else model
    if not (hasattr(reader, "tokenizer") and hasattr(reader, "extras")):
        raise UsageError(
            f"What answers is what load() gave, or a Session of it; got {type(model).__name__}.",
            'Write model = load("demo") first; adacd_cli.hf.adacd is for models of transformers.',
        )
    requests = requests_for(reader, conversations, settings, candidates=candidates)
    if isinstance(model, Session):
        events = model.decode(requests, batch_size=batch_size, cancelled=cancelled)
    else:
        limit = settings.prefix_cache
        events = decode(reader, requests, batch_size=batch_size, prefix_cache=limit, cancelled=cancelled)
    return conversations, several, requests, events


def _collect(
    events: Iterable[Event], conversations: Sequence[Conversation], requests: Sequence[Request]
) -> list[Answer]:
    """The answers, in their order; raises what the first that failed did so with, once all have ended."""
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


def as_conversations(prompt: Prompt | Prompts, settings: Settings) -> tuple[list[Conversation], bool]:
    """What is asked, and whether it was a list of prompts."""
    if (one := _conversation(prompt, settings)) is not None:
        return [one], False
    several = []
    for each in prompt if isinstance(prompt, Sequence) else [prompt]:
        if (one := _conversation(each, settings)) is None:
            what = f"A prompt is text, a list of messages or a Conversation; got {type(each).__name__}."
            raise PromptError(what, 'Give e.g. "How do I kill a Python process?".')
        several.append(one)
    return several, True


def _conversation(prompt: object, settings: Settings) -> Conversation | None:
    """The conversation that one prompt is; None where it is none."""
    if isinstance(prompt, str):
        return Conversation.ask(prompt, settings.system)
    messages = isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping)
    said = Conversation.of(prompt) if messages else prompt  # type: ignore[arg-type]
    if not isinstance(said, Conversation):
        return None
    return said if said.system is not None else said.with_system(settings.system)
