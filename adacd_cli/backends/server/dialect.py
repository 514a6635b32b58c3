"""What the backend asks of a server, whatever it is called there, which of its numbers are accepted, and how its
failures are called. A number that cannot be what it should be is an error: a token chosen by it would be wrong."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adacd_cli.engine.backend import SampledToken, Sampling

OWN_TOKENIZER = "Name the served model's own with --tokenizer: a hub id, its folder or its GGUF file."
_RAW_LOGPROBS = "Start vLLM with --logprobs-mode raw_logprobs, and without post-processing of them."
# servers write -inf as a finite number (vLLM -9999, llama.cpp the least float32); below this is no value
_FLOOR = -9000.0
# by how much a log-probability may be above 0 and the sum of a list above 1: servers round
_ABOVE_ZERO, _ABOVE_ONE = 1e-3, 1e-2
_LEAST_WHOLE = 0.98  # what all probabilities add up to at least, as a server rounds them
# a model's padding ids, which its tokenizer does not have, are at least this much below the best token
_PADDING = math.log(0.01)


@dataclass(eq=False)
class ServerRefused(Exception):
    """The server does not accept a request, or its response cannot be used; no message holds the key."""

    reason: str  # what happened, as the end of a sentence without its full stop
    status: int = 0  # HTTP status of the response; 0 where none came
    message: str = ""
    hint: str = ""  # what to do about it; empty where nothing better is known than the caller's own hint


@dataclass(eq=False)
class InvalidLogprobs(ServerRefused):
    """The server gives values that are no log-probabilities of the model's tokens."""

    hint: str = _RAW_LOGPROBS


@dataclass(eq=False)
class ServerUnavailable(ServerRefused):
    """What may be over at the next attempt: no connection, a broken one, or a server that is busy; `wait` is how
    many seconds it asks to wait before that, and `worth` how many attempts may be made."""

    wait: float = 0.0
    worth: int = 100


@dataclass(eq=False)
class ReadTimeout(ServerUnavailable):
    """The server accepted the request and then sent nothing."""

    worth: int = 1


class Dialect(Protocol):
    """A server that takes token ids and gives log-probabilities.

    Every method raises ServerRefused where the server does not accept the request or its response cannot be read,
    and ServerUnavailable where it does not answer; a stream also in the middle."""

    name: str  # `llama.cpp`, `vLLM` or `OpenAI`
    most: int | None  # how many log-probabilities of a position it gives; None where no limit is known
    scores_ids: bool  # whether it gives the values of tokens that are named by id
    controls: frozenset[str]  # which of `Sampling.controls` it knows; stop_token_ids are seen to here

    async def top(self, prompts: Sequence[Sequence[int]], count: int) -> list[TopList]:
        """The most probable next tokens of each prompt, in ONE request; fewer where the server gives no more."""

    async def values(self, prompt: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """The log-probabilities of these next tokens, of as many as the server gives."""

    def stream(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int
    ) -> AsyncGenerator[SampledToken, None]:
        """The tokens that follow, which the server chooses itself. It may end early where the server does."""

    async def tokenize(self, text: str) -> list[int] | None:
        """The text as the server's ids, control tokens read as such; None where the server does not say."""


@dataclass(frozen=True)
class TopList:
    """The most probable tokens of one position, best first, and their log-probabilities in nats, of all tokens."""

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[Any, Any]], count: int) -> TopList:
        """The `count` best of (id, log-probability) pairs out of JSON, in any order, without those that are no
        values. ServerRefused where none has a value; InvalidLogprobs where an id or a value is none, a token is
        there twice, or they add up to more than 1."""
        read = [(token_of(token), logprob_of(value)) for token, value in pairs]
        best = sorted((pair for pair in read if pair[1] > _FLOOR), key=lambda pair: (-pair[1], pair[0]))
        if not best:
            raise ServerRefused("it gives no log-probabilities")
        if len({token for token, _ in best}) < len(best):
            raise InvalidLogprobs("it gives two log-probabilities of one token")
        if (whole := sum(math.exp(value) for _, value in best)) > 1 + _ABOVE_ONE:
            raise InvalidLogprobs(f"the probabilities that it gives add up to {whole:.3g}")
        return cls(*zip(*best[:count], strict=True))

    def check(self, vocab: int, floor: float | None = None) -> None:
        """Checks that these can be the most probable of `vocab` tokens. InvalidLogprobs where an id is beyond the
        vocabulary that is no padding (so many nats below the best one as `floor` says), or the tokens that are not
        listed, each at most as probable as the last one, cannot make up the rest."""
        check_ids(tuple(zip(self.ids, self.logprobs, strict=True)), vocab, floor)
        most = sum(map(math.exp, self.logprobs))
        most += max(0, vocab - len(self.ids)) * math.exp(self.logprobs[-1])
        if most < _LEAST_WHOLE:
            raise InvalidLogprobs(f"the probabilities that it gives add up to {most:.3g} at most")


def check_ids(top: Sequence[tuple[int, float]], vocab: int, floor: float | None = None) -> None:
    """Checks (id, log-probability) pairs, the most probable one first; see `TopList.check`."""
    least = top[0][1] + (_PADDING if floor is None or floor == -math.inf else floor)
    for token, value in top:
        if value >= least:
            check_id(token, vocab)


def check_id(token: int, vocab: int) -> int:
    """The token's id; raises InvalidLogprobs where no token of the vocabulary has it."""
    if token >= vocab:
        raise InvalidLogprobs(
            f"it gave the id {token}, beyond the tokenizer's {vocab:,} tokens: it has another tokenizer",
            hint=OWN_TOKENIZER,
        )
    return token


def token_of(value: Any) -> int:
    """A token's id out of JSON; raises InvalidLogprobs where it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise InvalidLogprobs(f"it gives {_shown(value)} as a token's id", hint="")
    return value


def logprob_of(value: Any) -> float:
    """A log-probability out of JSON, in nats, or -inf; raises InvalidLogprobs where it is none."""
    if value is None:
        raise InvalidLogprobs("it leaves out the values of its log-probabilities")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value <= _ABOVE_ZERO:
        raise InvalidLogprobs(f"it gives {_shown(value)} as a log-probability")
    return float(value) if value > _FLOOR else -math.inf


def sampled_token(token: Any, value: Any, pairs: Iterable[tuple[Any, Any]], count: int) -> SampledToken:
    """A token that the server chose, with the `count` most probable tokens of its position; see `TopList.of`.
    InvalidLogprobs where its id or its value is none, or one of a token that cannot be chosen."""
    own, top = logprob_of(value), TopList.of(pairs, count)
    if own <= _FLOOR:
        raise InvalidLogprobs("it chose a token that has no probability")
    return SampledToken(token_of(token), own, tuple(zip(top.ids, top.logprobs, strict=True)))


def ids_of(value: Any) -> list[int] | None:
    """A list of token ids out of JSON; None where it is something else."""
    return value if isinstance(value, list) and all(isinstance(each, int) for each in value) else None


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value)[:40] if isinstance(value, (int, str)) else f"a {type(value).__name__}"
