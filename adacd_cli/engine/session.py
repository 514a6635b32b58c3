"""A conversation whose keys and values are kept over its turns.

Each answer prefills only what is new in each stream: it begins with what an earlier turn left, as far as that
agrees with the new prompt from its first token on. What to ask is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from adacd_cli.engine.decode import decode
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.row import Request
from adacd_cli.events import Event
from adacd_cli.prompts.prompts import Prompts

if TYPE_CHECKING:
    from adacd_cli.config import Settings


class Session:
    """Answers one conversation after another, keeping what both streams held; equal to fresh runs of each."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._known = Prefixes()

    def answer(
        self,
        prompts: Prompts,
        settings: Settings,
        *,
        candidates: int = 0,
        seed: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Like `decode` for one request; what its streams held stays with the session.

        Raises:
            PromptError, LogitsError: as `decode`.
        """
        return decode(
            self.model,
            [Request(prompts, settings, seed)],
            candidates=candidates,
            known=self._known,
            cancelled=lambda request: cancelled(),
        )

    def forget(self) -> None:
        """Lets everything go; the next answer prefills its whole prompts."""
        self._known.clear()
