"""What a decoder asks of a server, whatever it is called there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

FLOOR = -9000.0
"""Servers write -inf as a finite number (vLLM -9999, llama.cpp the least float32); what is below this is no
value."""


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
        """The `count` best of (id, log-probability) pairs in any order, without those that are no values."""
        best = sorted((pair for pair in pairs if pair[1] > FLOOR), key=lambda pair: (-pair[1], pair[0]))
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
        logprob: its log-probability in nats; None where the server tells none.
        top: the most probable tokens of its position.
        last: whether the server ends the answer with it.
    """

    token_id: int
    logprob: float | None
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
