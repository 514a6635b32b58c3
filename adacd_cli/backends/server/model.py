"""A served model: what the engine needs of it, and the server behind it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from adacd_cli.config.methods import METHODS, Method
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.places import Places
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.protocol import AnyDecoder, Cancelled, Failed, never
from adacd_cli.errors import ConfigurationError
from adacd_cli.backends.server.background import Background
from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.dialect import Dialect
from adacd_cli.backends.server.probe import Probe

SERVED_METHODS = ("default", "prompt", "adacd", "adacd-gated")
"""The others need every token's logit, or the weights."""


class Server:
    """A server that was found good.

    Args:
        background: where its requests run.
        client: its routes, used there.
        dialect: how it is asked.
        probe: what it can do.
        vocab: tokens in the vocabulary.

    Attributes:
        concurrency: how many requests it is asked at once where nobody says.
        told: takes what the user should know while answers come, one sentence at a time.
    """

    def __init__(
        self, background: Background, client: Client, dialect: Dialect, probe: Probe, vocab: int
    ) -> None:
        self.background, self.dialect, self.probe, self.vocab = background, dialect, probe, vocab
        self.concurrency = probe.concurrency
        self.told: Callable[[str], None] = lambda warning: None
        self._inexact = self._slow = False
        own = weakref.ref(self)  # the client is part of what closes it
        client.told = lambda notice: None if (server := own()) is None else server._found_slow(notice)
        self.close = weakref.finalize(self, lambda: background.stop(client.close()))
        """Ends its connections; also called when nobody needs it any more."""

    def _found_slow(self, notice: str) -> None:
        if not self._slow:
            self._slow = True
            self.told(notice)

    def found_inexact(self) -> None:
        """Tells, once, that a token was chosen without all the values it depends on."""
        if not self._inexact:
            self._inexact = True
            most = self.probe.most_logprobs
            self.told(
                "A token that could have been chosen was not among the "
                f"{'log-probabilities' if most is None else f'{most} log-probabilities'} that the server "
                "gives of a step, so not every token is certain (`exact` is false in its event). "
                "vLLM gives more with --max-logprobs 1000."
            )


@dataclass(frozen=True)
class RemoteModel(LanguageModel):
    """A language model in somebody else's engine; `model` is None.

    Attributes:
        server: where it runs.
    """

    server: Server = field(kw_only=True)

    @property
    def device(self) -> torch.device:
        """Where the rules run."""
        return torch.device("cpu")

    def decoder(
        self,
        *,
        places: Places | None = None,
        candidates: int = 0,
        known: Prefixes | None = None,
        cancelled: Cancelled = never,
        failed: Failed | None = None,
    ) -> AnyDecoder:
        """What decodes requests at the server; `known` is the server's own to keep."""
        from adacd_cli.backends.server.decoder import RemoteDecoder

        return RemoteDecoder(self, places=places, candidates=candidates, cancelled=cancelled, failed=failed)

    def require(self, method: Method) -> None:
        """Refuses a method that a server does not tell enough for.

        Raises:
            ConfigurationError: it needs every token's logit, or the weights.
        """
        require_served(method)

    @property
    def dtype_name(self) -> None:
        """The server does not tell."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that the most probable tokens are enough for."""
        return SERVED_METHODS

    @property
    def at_once(self) -> int:
        """As many as the server has room for."""
        return self.server.concurrency

    def served_facts(self) -> dict[str, str]:
        """The server's dialect and the model it was asked for; no secret."""
        return {"server": self.server.probe.dialect, "served_model": self.server.probe.model}


def require_served(method: Method) -> None:
    """Refuses a method that a server does not tell enough for.

    Raises:
        ConfigurationError: it needs every token's logit, or the weights.
    """
    if method.name not in SERVED_METHODS:
        raise ConfigurationError(
            f"Method {method.name} needs every token's logit or the weights, which a server does not give.",
            f"Over a server there are {', '.join(SERVED_METHODS)}.",
        )


assert set(SERVED_METHODS) <= METHODS.keys()
