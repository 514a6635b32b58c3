"""What a request asks for: settings made of its fields over the server's own, and both streams' prompts.

Everything is checked before anything heavy is done, and every refusal names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adacd_cli.config import Settings
from adacd_cli.server.errors import refused
from adacd_cli.server.extras import candidates_of, idle, trace_of, with_own
from adacd_cli.server.schema import ChatRequest, CompletionRequest

_ROOT = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        prompt_tokens: longest prompt; None for what the model's context takes.
        answer_tokens: longest answer; None for any.
        body_bytes: largest body of an HTTP request.
        seconds: longest time, waiting included; None for any.
    """

    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    body_bytes: int = 4 * 2**20
    seconds: float | None = None


@dataclass(frozen=True)
class Wanted:
    """What a request asks for besides its prompt.

    Attributes:
        settings: the method and its numbers, lengths, sampling and stop strings.
        trace: whether every token's numbers are told.
        candidates: how many of the most probable tokens a step tells.
        top_logprobs: as `engine.Request` takes it.
        stream: whether the answer is sent as it comes.
        usage: whether a stream ends with the tokens it took.
        own_prompts: the contrast prompts that it brings, by the field that holds them.
        warnings: what of it has no say, a sentence each.
    """

    settings: Settings
    trace: bool
    candidates: int
    top_logprobs: int | None
    stream: bool
    usage: bool
    own_prompts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def wanted(asked: ChatRequest | CompletionRequest, base: Settings, limits: Limits) -> Wanted:
    """What the request asks for.

    Args:
        asked: the request.
        base: the server's own settings.
        limits: what a request may take.

    Raises:
        ApiError: 400, naming the field.
    """
    values: dict[str, Any] = {name: value for name in _ROOT if (value := getattr(asked, name)) is not None}
    if asked.seed is not None:
        values["seed"] = asked.seed % 2**63  # OpenAI's may be negative
    if asked.stop is not None:
        values["stop"] = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop)
    values["max_new_tokens"] = _length(asked, base, limits)
    extras = asked.adacd or {}
    trace = trace_of(extras)
    candidates = candidates_of(extras, trace)
    settings = with_own(base.model_copy(update=values), extras)
    options = asked.stream_options
    if options is not None and not asked.stream:
        raise refused("`stream_options` is for a request with `stream`.", "stream_options")
    return Wanted(
        settings=settings,
        trace=trace,
        candidates=candidates,
        top_logprobs=_top_logprobs(asked),
        stream=bool(asked.stream),
        usage=bool(options is not None and options.include_usage),
        own_prompts={f"adacd.{name}": text for name, text in extras.items() if name.endswith("_prompt")},
        warnings=idle(settings, extras),
    )


def _length(asked: ChatRequest | CompletionRequest, base: Settings, limits: Limits) -> int:
    names = ("max_tokens", "max_completion_tokens")
    given = {name: value for name in names if (value := getattr(asked, name, None)) is not None}
    if len(set(given.values())) > 1:
        raise refused("`max_tokens` and `max_completion_tokens` differ; give one of them.", names[1])
    most = limits.answer_tokens
    for name, value in given.items():
        if most is not None and value > most:
            raise refused(f"`{name}` is at most {most} on this server; got {value}.", name)
        return int(value)
    return base.max_new_tokens if most is None else min(base.max_new_tokens, most)


def _top_logprobs(asked: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(asked, CompletionRequest):
        return asked.logprobs
    if asked.top_logprobs is not None and not asked.logprobs:
        raise refused("`top_logprobs` is for a request with `logprobs`.", "top_logprobs")
    return (asked.top_logprobs or 0) if asked.logprobs else None
