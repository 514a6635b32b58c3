"""The events of a run: Started, TokenStep, then Finished or Failed, and Notice, as plain values. They compare
equal, print, and come back from JSON. This module knows no torch, no tokenizer and no terminal; the engine makes
the values and `render` draws them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from adacd_cli.errors import AdacdError, error_named, first_line

SCHEMA = 1  # version of the JSON Lines form; it grows only when a key changes its meaning or goes away


class Decision(str, Enum):
    """What a step did with the difference of the two streams."""

    ADD = "add"
    SUBTRACT = "subtract"
    PLAIN = "plain"

    @property
    def mark(self) -> str:
        """The one-character mark that stands beside a token where colour cannot: + − ·"""
        return {"add": "+", "subtract": "−", "plain": "·"}[self.value]


class FinishReason(str, Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Measures:
    """The numbers a rule decided on; None where the method has no such number."""

    confidence: float  # c = max P of the unprompted stream, in [0, 1]
    agreement: float | None = None  # agr(n) = 1 / rank, in (0, 1]
    prompted_top_id: int | None = None  # y*, the prompted stream's most probable token
    prompted_top_rank: int | None = None  # rank of y* in the unprompted stream, 1-based
    prompted_confidence: float | None = None  # c* = max P* of the prompted stream, in [0, 1]
    plausible_count: int | None = None  # how many tokens the plausibility mask kept
    # the method's own numbers by name, flat beside the others in JSON; a name is neither a field of this class nor
    # one of TokenStep
    named: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One token that was in question at a step; `text` is its own."""

    token_id: int
    text: str
    prompted_logprob: float | None  # log P* in nats; None where there is no prompted stream at this step
    unprompted_logprob: float  # log P in nats
    score: float | None  # the rule's score in logits; None where the plausibility mask dropped the token
    kept: bool  # whether the plausibility mask kept the token


@dataclass(frozen=True)
class TokenLogprob:
    """How probable the unprompted stream finds a token: log P in nats."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class ScoredToken:
    """A token of a prompt: how probable the unprompted stream finds it, in nats; None for the first of all."""

    token_id: int
    token: str
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Started:
    """A request begins; `request` in all events is its index in its batch, 0-based."""

    request: int
    model: str  # what was asked for: hub id, folder, file or `demo`
    revision: str | None  # commit or branch on the hub, None elsewhere
    method: str
    prompted_tokens: int  # prompt length of the prompted stream; 0 where the method has none
    unprompted_tokens: int
    settings: Mapping[str, Any]  # the decoding settings by name, JSON values only
    seed: int | None = None  # the sampling seed, None when greedy
    shared_tokens: int = 0  # prompt tokens that the prompted stream takes over from the base's KV cache
    engine: str = "torch"  # what computes it: `torch`, `llamacpp` or `server`
    profile: str | None = None  # name of the profile whose settings or switch it decodes with, if any


@dataclass(frozen=True)
class TokenStep:
    """One token was chosen."""

    request: int
    index: int  # 0-based position of the token in the answer (thinking included)
    token_id: int  # the chosen token, fed to both streams
    text: str  # text that became final with this token; "" while UTF-8 or a stop string is incomplete
    token: str  # the chosen token's own text, control tokens shown by name
    decision: Decision
    measures: Measures
    plain_token_id: int  # the token Default would have taken here (same temperature, same random draw)
    plain_token: str
    prompted_top: str | None = None  # the prompted stream's top token as text; None without such a stream
    thinking: bool = False  # whether the token belongs to the model's thinking rather than to its answer
    candidates: tuple[Candidate, ...] = ()  # the most probable tokens of either stream, on request
    logprob: float | None = None  # log P of the chosen token in the unprompted stream, in nats, on request
    top_logprobs: tuple[TokenLogprob, ...] = ()  # the most probable of the unprompted stream, on request
    # whether the token is what both streams' whole distributions give; False only where a served model left out the
    # value of a token that could have been chosen
    exact: bool = True
    elapsed_s: float = field(default=0.0, compare=False)  # seconds since decoding began


@dataclass(frozen=True)
class Finished:
    """A request ended."""

    request: int
    text: str  # the whole answer, without thinking; equal to the steps' texts joined
    finish_reason: FinishReason
    tokens: int  # number of TokenSteps, the end-of-turn token and thinking included
    added: int  # added, subtracted: steps decided so
    subtracted: int
    tokens_per_s: float = field(default=0.0, compare=False)  # since decoding began, prefill included
    peak_memory_bytes: int = field(default=0, compare=False)  # of the device, or of the process on a CPU
    thinking: str = ""  # the thinking's text, "" where there was none
    context_full: bool = False  # whether LENGTH means the model's context, not `max_new_tokens`
    stop: str | None = None  # the one of `settings.stop` that ended it; None where none did


@dataclass(frozen=True)
class Failed:
    """A request ended with an error; it comes in place of Finished."""

    request: int
    error: str  # name of the error's class in `errors`, e.g. `OutOfMemoryError`
    message: str  # what went wrong and why, one sentence
    hint: str = ""  # what the user can do, one sentence; "" when there is nothing
    cause: BaseException | None = field(default=None, compare=False, repr=False)  # itself; not in JSON

    @classmethod
    def of(cls, request: int, error: BaseException) -> Failed:
        """The event of a request that failed with this exception."""
        said = (error.message, error.hint) if isinstance(error, AdacdError) else (first_line(error), "")
        return cls(request, type(error).__name__, *said, error)

    def exception(self) -> BaseException:
        """The exception to raise for it."""
        return error_named(self.error, self.message, self.hint) if self.cause is None else self.cause


@dataclass(frozen=True)
class Notice:
    """Something worth knowing that ends no request, e.g. that a model cannot be compiled."""

    text: str  # one or two sentences
    request: int | None = None  # None where it concerns all of them


Event = Started | TokenStep | Finished | Failed | Notice

_KINDS: dict[str, type[Event]] = {"started": Started, "token": TokenStep, "finished": Finished}
_KINDS |= {"failed": Failed, "notice": Notice}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_json(event: Event) -> dict[str, Any]:
    """The event as one JSON object: `event` names its kind, a step's measures stand flat beside its token."""
    values = asdict(replace(event, cause=None) if isinstance(event, Failed) else event)
    values.pop("cause", None)
    if isinstance(event, TokenStep):
        measures = values.pop("measures")
        named = measures.pop("named")
        values |= measures | {name: number for name, number in named.items() if name not in values}
        values["decision"] = event.decision.value
        for optional in ("candidates", "logprob", "top_logprobs"):
            if not values[optional] and values[optional] != 0:
                del values[optional]
    if isinstance(event, Finished):
        values["finish_reason"] = event.finish_reason.value
    schema = {"schema": SCHEMA} if isinstance(event, Started) else {}
    return {"event": _NAMES[type(event)], **schema, **values}


def from_json(values: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote; keys it does not know are left out, but a step's numbers are measures.
    ValueError where `event` is not one of started, token, finished, failed, notice; TypeError where a key that the
    event needs is missing."""
    kind = _KINDS.get(values.get("event", ""))
    if kind is None:
        raise ValueError(f"not an event of adacd: {values.get('event')!r}")
    fields = {key: value for key, value in values.items() if key in kind.__dataclass_fields__}
    if kind is TokenStep:
        others = {key: value for key, value in values.items() if key not in kind.__dataclass_fields__}
        measures = {key: others.pop(key) for key in Measures.__dataclass_fields__ if key in others}
        named = {key: value for key, value in others.items() if type(value) in (int, float)}
        fields["measures"] = Measures(**measures, named=named)
        fields["decision"] = Decision(fields["decision"])
        fields["candidates"] = tuple(Candidate(**c) for c in fields.get("candidates", ()))
        fields["top_logprobs"] = tuple(TokenLogprob(**t) for t in fields.get("top_logprobs", ()))
    if kind is Finished:
        fields["finish_reason"] = FinishReason(fields["finish_reason"])
    return kind(**fields)


def raise_failures(events: Iterable[Event]) -> Iterator[Event]:
    """The same events, for who handles errors as exceptions: a Failed is raised as the error it names."""
    for event in events:
        if isinstance(event, Failed):
            raise event.exception()
        yield event
