"""A session: a model with one scheduler, whose prefix cache is kept from one call to the next.

Each answer prefills only what is new in each stream: it begins with what an earlier one left, as far as that
agrees with the new prompt from its first token on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from adacd_cli.answers.run import concurrency_for, decode_with, never, prefix_cache_for
from adacd_cli.backends import backend_for
from adacd_cli.engine import Scheduler

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel, Request
    from adacd_cli.events import Event


class Session:
    """Answers one batch of requests after another; equal to fresh runs of each.

    Args:
        model: what `load` gave.
        prefix_cache: bytes that the KV caches of earlier answers may hold; None is a share of the free
            memory.
    """

    def __init__(self, model: LanguageModel, prefix_cache: int | None = None) -> None:
        self._bytes = prefix_cache
        self.use(model)

    def use(self, model: LanguageModel) -> None:
        """Answers with this model from now on, such as the same one with more loaded beside it."""
        if model is getattr(self, "model", None):
            return
        self.model = model
        self.prefix_cache = prefix_cache_for(model, self._bytes)
        self.scheduler = Scheduler(backend_for(model), prefix_cache=self.prefix_cache)

    def decode(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | Literal["auto"] = "auto",
        cancelled: Callable[[int], bool] = never,
    ) -> Iterator[Event]:
        """The events of requests, as `decode` gives them; what their streams held stays with the session."""
        self.scheduler.limit_to(concurrency_for(self.scheduler.backend, requests, batch_size))
        return decode_with(self.scheduler, requests, cancelled)

    def forget(self) -> None:
        """Frees everything; the next answer prefills its whole prompts."""
        self.prefix_cache.clear(self.scheduler.backend)
