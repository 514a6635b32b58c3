"""A conversation with both caches kept over its turns.

Each answer prefills only what is new in each stream: a stream keeps what agrees with the new prompt from its
first token on, takes back the rest, and catches up in one forward. What to ask is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from adacd_cli.config.methods import METHODS
from adacd_cli.engine.decode import decode
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.row import Request
from adacd_cli.engine.stream import Stream, StreamPair
from adacd_cli.errors import PromptError
from adacd_cli.events import Event
from adacd_cli.prompts.pair import PromptPair

if TYPE_CHECKING:
    from adacd_cli.config import Settings


class Session:
    """Answers one prompt pair after another with the same two KV caches; equal to fresh runs of each."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.streams = StreamPair(Stream(model.model), Stream(model.model))

    def _use(self, settings: Settings) -> None:
        """Streams over the models that the method runs; caches of another model are of no use."""
        method = METHODS[settings.effective_method]
        second = method.second_stream(settings)
        first_model = self.model.first(method, settings)
        second_model = self.model.model if second is None else self.model.second(second, settings)
        if self.streams.unprompted.model is not first_model:
            self.streams.unprompted = Stream(first_model)
        if self.streams.prompted.model is not second_model:
            self.streams.prompted = Stream(second_model)

    def answer(
        self,
        pair: PromptPair,
        settings: Settings,
        *,
        candidates: int = 0,
        seed: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Like `decode` for one request; both caches stay with the session.

        Raises:
            PromptError, LogitsError: as `decode`.
        """
        self._use(settings)
        try:
            yield from decode(
                self.model,
                [Request(pair, seed)],
                settings,
                candidates=candidates,
                streams=self.streams,
                cancelled=lambda request: cancelled(),
            )
        except PromptError:
            raise  # refused before anything was fed
        except (Exception, KeyboardInterrupt):
            # keys and values may be those of NaN logits, or of a step that was broken off half-way
            self.forget()
            raise

    def forget(self) -> None:
        """Lets both caches go; the next answer prefills everything."""
        self.streams.unprompted.release()
        self.streams.prompted.release()
