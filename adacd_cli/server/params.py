"""The parameters of an answer: the fields of a request over the server's own settings.

Everything is checked before any work is done, and every refusal names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adacd_cli.config import Settings
from adacd_cli.server import adacd_params
from adacd_cli.server.errors import refused
from adacd_cli.server.schema import ChatRequest, CommonRequest, CompletionRequest


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
class Params:
    """What a request asks for besides its prompt.

    Attributes:
        settings: the method and its numbers, lengths, sampling and stop strings.
        trace: whether every token's numbers are reported.
        candidates: how many of the most probable tokens to report at each step.
        top_logprobs: as `engine.Request` takes it.
        stream: whether the answer is sent as it comes.
        usage: whether a stream ends with the numbers of tokens.
        contrast_prompts: the contrast prompts of the request's own, by the fields that hold them.
        warnings: the fields that are not used, a sentence each.
    """

    settings: Settings
    trace: bool = False
    candidates: int = 0
    top_logprobs: int | None = None
    stream: bool = False
    usage: bool = False
    contrast_prompts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_params(body: CommonRequest, base: Settings, limits: Limits) -> Params:
    """The parameters.

    Args:
        body: the request.
        base: the server's own settings.
        limits: what a request may take.

    Raises:
        ApiError: 400, with the field.
    """
    values = body.model_dump(include={"temperature", "top_p", "top_k"}, exclude_none=True)
    if body.seed is not None:
        values["seed"] = body.seed % 2**63  # OpenAI's may be negative
    if body.stop is not None:
        values["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    values["max_new_tokens"] = _max_tokens(body, base, limits)
    given = body.adacd or {}
    trace, candidates = adacd_params.reports(given)
    settings = adacd_params.apply(base.model_copy(update=values), given)
    options = body.stream_options
    if options is not None and not body.stream:
        raise refused("`stream_options` needs `stream`.", "stream_options")
    return Params(
        settings=settings,
        trace=trace,
        candidates=candidates,
        top_logprobs=_top_logprobs(body),
        stream=bool(body.stream),
        usage=bool(options is not None and options.include_usage),
        contrast_prompts={f"adacd.{name}": text for name, text in given.items() if name.endswith("_prompt")},
        warnings=adacd_params.unused(settings, given),
    )


def _max_tokens(body: CommonRequest, base: Settings, limits: Limits) -> int:
    names = ("max_tokens", "max_completion_tokens")
    given = {name: value for name in names if (value := getattr(body, name, None)) is not None}
    if len(set(given.values())) > 1:
        raise refused("`max_tokens` and `max_completion_tokens` differ; give one of them.", names[1])
    most = limits.answer_tokens
    for name, value in given.items():
        if most is not None and value > most:
            raise refused(f"`{name}` is at most {most} on this server; got {value}.", name)
        return int(value)
    return base.max_new_tokens if most is None else min(base.max_new_tokens, most)


def _top_logprobs(body: CommonRequest) -> int | None:
    if isinstance(body, CompletionRequest):
        return body.logprobs
    assert isinstance(body, ChatRequest)
    if body.top_logprobs is not None and not body.logprobs:
        raise refused("`top_logprobs` needs `logprobs`.", "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None
