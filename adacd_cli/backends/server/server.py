"""The server behind a served model."""

from __future__ import annotations

import weakref
from collections import deque

from adacd_cli.backends.server.background import Background
from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.dialect import Dialect
from adacd_cli.backends.server.probe import Probe


class Server:
    """A server that was checked.

    Args:
        background: where its requests run.
        client: its routes, used there.
        dialect: how it is asked.
        probe: what it can do.
        vocab: tokens in the vocabulary.

    Attributes:
        concurrency: how many requests it is asked at once where nobody says.
        notices: what the user should know while answers come, until somebody takes it.
    """

    def __init__(
        self, background: Background, client: Client, dialect: Dialect, probe: Probe, vocab: int
    ) -> None:
        self.background, self.dialect, self.probe, self.vocab = background, dialect, probe, vocab
        self.concurrency = probe.concurrency
        self.notices: deque[str] = deque()
        self._noticed: set[str] = set()
        own = weakref.ref(self)  # the client is part of what closes it
        client.notify = lambda notice: None if (server := own()) is None else server._notice("slow", notice)
        self.close = weakref.finalize(self, lambda: background.stop(client.close()))
        """Ends its connections; also called when nobody needs it any more."""

    def facts(self) -> dict[str, str]:
        """The server's dialect and the model that is requested there; no secret."""
        return {"server": self.probe.dialect, "served_model": self.probe.model}

    def found_inexact(self) -> None:
        """Notices that a token was chosen without all the values that it depends on."""
        most = self.dialect.most
        self._notice(
            "inexact",
            "A token that could have been chosen was not among the "
            f"{'log-probabilities' if most is None else f'{most} log-probabilities'} that the server gives "
            "of a step, so not every token is certain (`exact` is false in its event). "
            "vLLM gives all of them with --max-logprobs -1.",
        )

    def _notice(self, about: str, text: str) -> None:
        """Something is said once."""
        if about not in self._noticed:
            self._noticed.add(about)
            self.notices.append(text)
