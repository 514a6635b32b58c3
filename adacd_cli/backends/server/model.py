"""A served model: what the engine needs of it, and the server behind it."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field

import torch

from adacd_cli.backends.server.background import Background
from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.dialect import Dialect
from adacd_cli.backends.server.probe import Probe
from adacd_cli.config.methods import METHODS
from adacd_cli.engine.model import LanguageModel


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
        own = weakref.ref(self)  # the client is part of what closes it
        client.notify = lambda notice: None if (server := own()) is None else server._is_slow(notice)
        self._slow = False
        self.close = weakref.finalize(self, lambda: background.stop(client.close()))
        """Ends its connections; also called when nobody needs it any more."""

    def _is_slow(self, notice: str) -> None:
        if not self._slow:
            self._slow = True
            self.notices.append(notice)

    @property
    def why_inexact(self) -> str:
        """What the user should know where a token was chosen without all the values that it depends on."""
        most = self.dialect.most
        return (
            "A token that could have been chosen was not among the "
            f"{'log-probabilities' if most is None else f'{most} log-probabilities'} that the server gives "
            "of a step, so not every token is certain (`exact` is false in its event). "
            "vLLM gives all of them with --max-logprobs -1."
        )


@dataclass(frozen=True)
class ServedModel(LanguageModel):
    """A language model in somebody else's engine; `model` is None.

    Attributes:
        server: where it runs.
    """

    server: Server = field(kw_only=True)

    @property
    def device(self) -> torch.device:
        """Where the rules run."""
        return torch.device("cpu")

    @property
    def dtype_name(self) -> None:
        """Not known: the server does not say."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Those for which the most probable tokens are enough."""
        return tuple(name for name, method in METHODS.items() if method.sparse)

    @property
    def at_once(self) -> int:
        """As many as the server has room for."""
        return self.server.concurrency

    def served_facts(self) -> dict[str, str]:
        """The server's dialect and the model that is requested there; no secret."""
        return {"server": self.server.probe.dialect, "served_model": self.server.probe.model}
