"""Prompts in, answers out: what the commands that decode and a program that imports adacd share. Conversations
become requests, which are decoded side by side: by a scheduler that is made for them, or by that of a Session,
which keeps its prefix cache from one call to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from adacd_cli.config.resolve import DECODING, changed
from adacd_cli.config.settings import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError, UsageError
from adacd_cli.events import Event, Failed, Finished, FinishReason, Notice, Started, TokenStep

if TYPE_CHECKING:
    from adacd_cli.engine import Backend, LanguageModel, Request

Messages: TypeAlias = Sequence[Mapping[str, object]]  # `{"role", "content"}` each, as OpenAI's clients do
Model: TypeAlias = "LanguageModel | Session"
Prompt: TypeAlias = "str | Conversation | Messages"
Prompts: TypeAlias = "Sequence[str | Conversation | Messages]"
BatchSize = int | Literal["auto"]  # how many requests run at once; "auto" is as many as there is room for
Cancelled = Callable[[int], bool]  # asked before each step with a request's place; True ends it as CANCELLED


def never(request: int) -> bool:
    return False


def requests_for(
    model: LanguageModel, conversations: Sequence[Conversation], settings: Settings, *, candidates: int = 0
) -> list[Request]:
    """The requests that answer conversations under the settings. Where a seed is given each draws differently, and
    its Started tells the seed that repeats it alone. UsageError where `candidates` is negative; PromptError where
    no prompts can be made of a conversation; ModelError where the model's chat template is broken."""
    from adacd_cli.engine import Request
    from adacd_cli.profiles.store import applied, chosen_method
    from adacd_cli.prompts import prompts_for

    settings = applied(chosen_method(settings, model.profile), model.profile)
    if candidates < 0:
        raise UsageError(f"`candidates` is at least 0; got {candidates}.")
    requests = []
    for place, conversation in enumerate(conversations):
        seed = None if settings.seed is None else (settings.seed + place) % 2**63
        prompts = prompts_for(model.tokenizer, conversation, settings)
        requests.append(Request(prompts, settings, seed, candidates))
    return requests


def decode(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    batch_size: BatchSize = "auto",
    prefix_cache: int | None = None,
    cancelled: Cancelled = never,
) -> Iterator[Event]:
    """Decodes requests side by side: Started of every one, their TokenSteps as they come, and Finished or Failed of
    each as it ends; `request` in the events is a request's place in the list. `prefix_cache`: bytes that the KV
    caches of ended requests may hold, for those that begin alike; None is a share of the free memory.

    Raises:
        UsageError: `batch_size` is no such number.
        PromptError, ConfigurationError, ModelError: as `Scheduler.submit`, before anything is decoded.
        KeyboardInterrupt: during a forward, after Finished (CANCELLED) of whatever was not finished.
    """
    if not requests:
        return iter(())
    session = Session(model, prefix_cache if len(requests) > 1 else 0)
    return session.decode(requests, batch_size=batch_size, cancelled=cancelled)


def concurrency_for(backend: Backend, requests: Sequence[Request], batch_size: BatchSize = "auto") -> int:
    """How many requests run at once; UsageError where `batch_size` is no such number."""
    from adacd_cli.engine import fitting_concurrency
    from adacd_cli.loading.hardware import free_on

    if batch_size != "auto":
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f'`batch_size` is at least 1, or "auto"; got {batch_size!r}.')
        return batch_size
    can = backend.capabilities
    if can.max_sequences is not None or len(requests) == 1:
        return can.max_sequences or 1
    return fitting_concurrency(backend, requests, free_on(can.device))


class Session:
    """Answers one batch of requests after another; equal to fresh runs of each. An answer prefills only what is new
    in each stream: it begins with what an earlier one left, as far as that agrees with the new prompt from its
    first token on. `prefix_cache`: bytes that the KV caches of earlier answers may hold; None is a share of the
    free memory."""

    def __init__(self, model: LanguageModel, prefix_cache: int | None = None) -> None:
        self._bytes = prefix_cache
        self.use(model)

    def use(self, model: LanguageModel) -> None:
        """Answers with this model from now on, such as the same one with more loaded beside it."""
        from adacd_cli.backends import backend_for
        from adacd_cli.engine import Scheduler
        from adacd_cli.engine.prefix_cache import SHARE_OF_FREE_MEMORY, PrefixCache
        from adacd_cli.loading.hardware import free_on

        if model is getattr(self, "model", None):
            return
        limit = self._bytes
        if limit is None:
            limit = 0 if model.server else int(SHARE_OF_FREE_MEMORY * (free_on(model.device) or 0))
        self.model, self.prefix_cache = model, PrefixCache(limit)
        self.scheduler = Scheduler(backend_for(model), prefix_cache=self.prefix_cache)

    def decode(
        self, requests: Sequence[Request], *, batch_size: BatchSize = "auto", cancelled: Cancelled = never
    ) -> Iterator[Event]:
        """The events of requests, as `decode` gives them; what their streams held stays with the session."""
        self.scheduler.limit_to(concurrency_for(self.scheduler.backend, requests, batch_size))
        self.scheduler.submit_all(requests)  # what is wrong with one is said at once
        return self.scheduler.run(cancelled)


@dataclass(frozen=True, repr=False)
class Answer:
    """One answer and how it came about; `str(answer)` is its text. `conversation` is what was said, this answer
    included: `answer.conversation.with_user(…)` goes on. `warnings`: what to know about how its prompts were made,
    one sentence each. Text, thinking, reason and counts are those of `finished`."""

    conversation: Conversation
    started: Started
    steps: tuple[TokenStep, ...]
    finished: Finished
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.finished.text

    @property
    def thinking(self) -> str:
        return self.finished.thinking

    @property
    def finish_reason(self) -> FinishReason:
        return self.finished.finish_reason

    @property
    def tokens(self) -> int:
        return self.finished.tokens

    @property
    def added(self) -> int:
        return self.finished.added

    @property
    def subtracted(self) -> int:
        return self.finished.subtracted

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        counts = f"{self.tokens} tokens, {self.added} added, {self.subtracted} subtracted"
        return f"<Answer {self.text!r}: {counts}, {self.finish_reason.value}>"


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
        prompt: text; a list of `{"role", "content"}` messages; or a Conversation. Several give a list of answers.
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
    settings = changed(Settings() if settings is None else settings, changes, DECODING, "generate()")
    conversations, several = as_conversations(prompt, settings)
    requests, events = _begin(model, conversations, settings, candidates, batch_size, never)
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
    """Like `generate`, but gives the events as they come: Started, a TokenStep for each token, Finished; or Failed
    in its place, and the other answers go on. `request` in an event is the place of its prompt. What is wrong with
    the settings or the prompts is raised at once, before the first event is asked for. `cancelled` is asked before
    each step with a prompt's place; True ends its answer as CANCELLED."""
    settings = changed(Settings() if settings is None else settings, changes, DECODING, "stream()")
    conversations, _ = as_conversations(prompt, settings)
    return _begin(model, conversations, settings, candidates, batch_size, cancelled)[1]


def _begin(
    model: Model,
    conversations: Sequence[Conversation],
    settings: Settings,
    candidates: int,
    batch_size: BatchSize,
    cancelled: Cancelled,
) -> tuple[list[Request], Iterator[Event]]:
    reader: Any = model.model if isinstance(model, Session) else model
    if not (hasattr(reader, "tokenizer") and hasattr(reader, "extras")):
        raise UsageError(
            f"What answers is what load() gave, or a Session of it; got {type(model).__name__}.",
            'Write model = load("demo") first; adacd_cli.hf.adacd is for models of transformers.',
        )
    requests = requests_for(reader, conversations, settings, candidates=candidates)
    if isinstance(model, Session):
        return requests, model.decode(requests, batch_size=batch_size, cancelled=cancelled)
    limit = settings.prefix_cache
    return requests, decode(reader, requests, batch_size=batch_size, prefix_cache=limit, cancelled=cancelled)


def _collect(
    events: Iterable[Event], conversations: Sequence[Conversation], requests: Sequence[Request]
) -> list[Answer]:
    """The answers, in their order; raises what the first that failed did so with, once all have ended."""
    started: dict[int, Started] = {}
    steps: list[list[TokenStep]] = [[] for _ in conversations]
    answers: dict[int, Answer] = {}
    failures, notices = list[Failed](), list[str]()
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
            place = event.request
            said = conversations[place].with_assistant(event.text)
            warnings = (*requests[place].prompts.warnings, *notices)
            answers[place] = Answer(said, started[place], tuple(steps[place]), event, warnings)
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
    if isinstance(prompt, str):
        return Conversation.ask(prompt, settings.system)
    messages = isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping)
    said = Conversation.of(prompt) if messages else prompt  # type: ignore[arg-type]
    if not isinstance(said, Conversation):
        return None
    return said if said.system is not None else said.with_system(settings.system)
