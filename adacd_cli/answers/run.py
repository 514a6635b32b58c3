"""Conversations become requests, and requests are decoded side by side: by a scheduler that is made for them, or
by that of a Session, which keeps its prefix cache from one call to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.errors import UsageError
from adacd_cli.events import Event

if TYPE_CHECKING:
    from adacd_cli.engine import Backend, LanguageModel, Request, Scheduler


BatchSize = int | Literal["auto"]
"""How many requests run at once; "auto" is as many as memory, or a server, has room for."""

Cancelled = Callable[[int], bool]
"""Asked before each step with a request's place in its list; True ends it as CANCELLED."""


def never(request: int) -> bool:
    """Cancels no request."""
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
    first, places = settings.seed, range(len(conversations))
    seeds = [None if first is None else (first + place) % 2**63 for place in places]
    return [
        Request(prompts_for(model.tokenizer, conversation, settings), settings, seed, candidates)
        for conversation, seed in zip(conversations, seeds, strict=True)
    ]


def decode(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    batch_size: BatchSize = "auto",
    prefix_cache: int | None = None,
    cancelled: Cancelled = never,
) -> Iterator[Event]:
    """Decodes requests side by side: Started of every one, their TokenSteps as they come, and Finished or Failed of
    each as it ends; `request` in the events is a request's place in the list.

    Args:
        prefix_cache: bytes that the KV caches of ended requests may hold, for those that begin alike; None is a
            share of the free memory.

    Raises:
        UsageError: `batch_size` is no such number.
        PromptError, ConfigurationError, ModelError: as `Scheduler.submit`, before anything is decoded.
        KeyboardInterrupt: during a forward, after Finished (CANCELLED) of whatever was not finished.
    """
    if not requests:
        return iter(())
    session = Session(model, prefix_cache if len(requests) > 1 else 0)
    return session.decode(requests, batch_size=batch_size, cancelled=cancelled)


def decode_with(
    scheduler: Scheduler, requests: Sequence[Request], cancelled: Cancelled = never
) -> Iterator[Event]:
    """Like `decode`, with a scheduler that runs nothing else; what is wrong with a request is said at once."""
    scheduler.submit_all(requests)
    return scheduler.run(cancelled)


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
        return decode_with(self.scheduler, requests, cancelled)

    def forget(self) -> None:
        """Frees everything; the next answer prefills its whole prompts."""
        self.prefix_cache.clear(self.scheduler.backend)
