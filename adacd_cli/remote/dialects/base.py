"""What a decoder asks of a server, whatever it is called there, and what of its numbers is believed.

Numbers that cannot be what they are said to be are an error: a token chosen by them would be nobody's.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adacd_cli.remote.failures import ServerRefused

FLOOR = -9000.0
"""Servers write -inf as a finite number (vLLM -9999, llama.cpp the least float32); what is below this is no
value."""

_ABOVE_ZERO, _ABOVE_ONE = 1e-3, 1e-2
"""By how much a log-probability may be above 0 and the sum of a list above 1: they are rounded there."""

RAW_LOGPROBS = "Start vLLM with --logprobs-mode raw_logprobs, and leave post-processing of them off."
OWN_TOKENIZER = "Name the served model's own with --tokenizer: a hub id, its folder or its GGUF file."


class Unbelievable(ServerRefused):
    """The server gives values that are no log-probabilities of the model's tokens."""

    def __init__(self, reason: str, hint: str = RAW_LOGPROBS) -> None:
        super().__init__(reason, hint=hint)


def token_of(value: Any) -> int:
    """A token's id out of JSON.

    Raises:
        Unbelievable: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise Unbelievable(f"it gives {_shown(value)} as a token's id", hint="")
    return value


def logprob_of(value: Any) -> float:
    """A log-probability out of JSON, in nats; -inf and what stands for it are among them.

    Raises:
        Unbelievable: it is none.
    """
    if value is None:
        raise Unbelievable("it leaves out the values of its log-probabilities")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value <= _ABOVE_ZERO:
        raise Unbelievable(f"it gives {_shown(value)} as a log-probability")
    return float(value) if value > FLOOR else -math.inf


def chosen_logprob_of(value: Any) -> float:
    """The log-probability of a token that the server chose, as `logprob_of`; finite.

    Raises:
        Unbelievable: it is none, or one of a token that cannot be chosen.
    """
    logprob = logprob_of(value)
    if logprob <= FLOOR:
        raise Unbelievable("it chose a token that has no probability")
    return logprob


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value)[:40] if isinstance(value, (int, str)) else f"a {type(value).__name__}"


@dataclass(frozen=True)
class TopList:
    """The most probable tokens of one position.

    Attributes:
        ids: the most probable one first.
        logprobs: their log-probabilities in nats, of the model's whole distribution.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, float]], count: int) -> TopList:
        """The `count` best of (id, log-probability) pairs in any order, without those that are no values.

        Raises:
            ServerRefused: none has a value.
            Unbelievable: a token is there twice, or they add up to more than there is.
        """
        best = sorted((pair for pair in pairs if pair[1] > FLOOR), key=lambda pair: (-pair[1], pair[0]))
        if not best:
            raise ServerRefused("it gives no log-probabilities")
        if len({token for token, _ in best}) < len(best):
            raise Unbelievable("it gives two log-probabilities of one token")
        if (whole := sum(math.exp(value) for _, value in best)) > 1 + _ABOVE_ONE:
            raise Unbelievable(f"the probabilities that it gives add up to {whole:.3g}")
        return cls(tuple(pair[0] for pair in best[:count]), tuple(pair[1] for pair in best[:count]))


@dataclass(frozen=True)
class Sampling:
    """How the server chooses tokens.

    Attributes:
        temperature: 0 is greedy.
        top_p: 1 is off.
        top_k: 0 is off.
        seed: of the server's own generator; None where it is greedy.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


GREEDY = Sampling()


@dataclass(frozen=True)
class Said:
    """A token of a stream.

    Attributes:
        token_id: id in the vocabulary.
        logprob: its log-probability in nats.
        top: the most probable tokens of its position, at least one.
        last: whether the server ends the answer with it.
    """

    token_id: int
    logprob: float
    top: TopList
    last: bool = False


def ids_of(value: Any) -> list[int] | None:
    """A list of token ids out of JSON; None where it is something else."""
    return value if isinstance(value, list) and all(isinstance(each, int) for each in value) else None


class Dialect(Protocol):
    """A server that takes token ids and gives log-probabilities.

    Attributes:
        name: `llama.cpp`, `vLLM` or `OpenAI`.
        most: how many log-probabilities of a position it gives; None where it knows no bound.
    """

    name: str
    most: int | None

    async def ask(self, ids: Sequence[int], count: int) -> TopList:
        """The most probable next tokens after these ids; fewer than `count` where the server gives no more.

        Raises:
            ServerRefused: it does not take the request, or what it says cannot be read.
            ServerGone: it does not answer.
        """

    async def values(self, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """The log-probabilities of these next tokens after the ids, of as many as the server tells.

        Raises:
            ServerRefused, ServerGone: as `ask`.
        """

    def stream(
        self, ids: Sequence[int], sampling: Sampling, length: int, count: int
    ) -> AsyncGenerator[Said, None]:
        """The tokens that follow these ids, at most `length`, each with its `count` most probable ones.

        It may end early where the server does; it is the caller's to ask again.

        Raises:
            ServerRefused, ServerGone: as `ask`, also in the middle.
        """

    async def tokenize(self, text: str) -> list[int] | None:
        """The text as the server's ids, control tokens read as such; None where it does not tell."""
