"""What a request asks for: settings made of its fields over the server's own, and both streams' prompts.

Everything is checked before anything heavy is done, and every refusal names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adacd_cli.config import SETTINGS, Settings, override
from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import AdacdError, ConfigurationError
from adacd_cli.server.errors import ApiError, of, refused
from adacd_cli.server.reading import unknown
from adacd_cli.server.schema import ASKABLE, EXTRAS, MOST_CANDIDATES, ChatRequest, CompletionRequest

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel
    from adacd_cli.prompts import PromptPair

_ROOT = ("temperature", "top_p", "top_k", "seed")
_SLACK = 4
"""How many times longer a prompt is than its tokens can be before it is refused without being encoded."""


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
    """

    settings: Settings
    trace: bool
    candidates: int
    top_logprobs: int | None
    stream: bool
    usage: bool


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
    if asked.stop is not None:
        values["stop"] = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop)
    values["max_new_tokens"] = _length(asked, base, limits)
    extras = dict(asked.adacd or {})
    trace = _switch(extras.pop("trace", False), "adacd.trace")
    candidates = _candidates(extras.pop("candidates", 0), trace)
    settings = base.model_copy(update=values)
    settings = _with_own(settings, extras)
    _check_loaded(settings, base)
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


def _switch(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise refused(f"`{field}` takes true or false.", field)
    return value


def _candidates(value: Any, trace: bool) -> int:
    field = "adacd.candidates"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_CANDIDATES:
        raise refused(f"`{field}` is a whole number from 0 to {MOST_CANDIDATES}.", field)
    if value and not trace:
        raise refused(f"`{field}` is for a request with `adacd.trace`.", field)
    return value


def _top_logprobs(asked: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(asked, CompletionRequest):
        return asked.logprobs
    if asked.top_logprobs is not None and not asked.logprobs:
        raise refused("`top_logprobs` is for a request with `logprobs`.", "top_logprobs")
    return (asked.top_logprobs or 0) if asked.logprobs else None


def _with_own(settings: Settings, extras: dict[str, Any]) -> Settings:
    """The settings with those of the object `adacd`, in the order of their declaration."""
    for name in extras:
        if name not in ASKABLE:
            raise _not_askable(name)
    for name in [each for each in SETTINGS if each in extras]:
        try:
            settings = override(settings, name, extras[name], "the request")
        except ConfigurationError as error:
            raise of(error, f"adacd.{name}") from None
    return settings


def _not_askable(name: str) -> ApiError:
    field = f"adacd.{name}"
    if name in ("expert", "draft", "direction"):
        return refused(f"`{name}` is chosen when the server is started, not by a request.", field)
    if name in ChatRequest.model_fields:
        return refused(f"`{name}` stands at the root of the request, not in `adacd`.", field, "unknown_field")
    aliases = {alias: known for known in ASKABLE for alias in SETTINGS[known].aliases}
    if name in aliases:
        return refused(
            f"There is no field `{field}`. Did you mean `{aliases[name]}`?", field, "unknown_field"
        )
    return unknown(name, field, (*ASKABLE, *EXTRAS))


def _check_loaded(settings: Settings, base: Settings) -> None:
    method = METHODS[settings.effective_method]
    if method.resource and not method.stand_in and getattr(base, method.resource) is None:
        flag = SETTINGS[method.resource].flag
        raise refused(
            f"Method {method.name} needs a {method.resource}, and the server was started without {flag}.",
            "adacd.method",
        )


def conversation_of(asked: ChatRequest, system: str | None) -> Conversation:
    """The conversation.

    Args:
        asked: the request.
        system: the server's own system message, for conversations that have none.

    Raises:
        ApiError: 400, where system messages stand elsewhere than at the beginning, or nothing is asked.
    """
    systems: list[str] = []
    turns: list[Message] = []
    for place, message in enumerate(asked.messages):
        if message.role in ("user", "assistant"):
            turns.append(Message(message.role, message.text))
        elif turns:
            raise refused(
                f"Message {place + 1} has the role {message.role}, which stands only at the beginning.",
                f"messages[{place}].role",
            )
        else:
            systems.append(message.text)
    if not turns or turns[-1].role != "user":
        raise refused(
            "The last message is not the user's, so there is nothing to answer; an answer that has begun "
            "cannot be gone on with.",
            "messages",
        )
    joined = "\n\n".join(text for text in systems if text)
    return Conversation(tuple(turns), joined if systems else system)


def check_size(model: LanguageModel, texts: Sequence[str], limits: Limits, longest: int, param: str) -> None:
    """Refuses, before it is encoded, a prompt that is too long whatever its tokens are.

    Args:
        model: what will read it.
        texts: all that was said; none of them takes no token.
        limits: what a request may take.
        longest: characters of the vocabulary's longest token.
        param: the field that holds it.

    Raises:
        ApiError: 400.
    """
    most = min((each for each in (limits.prompt_tokens, model.context_length) if each), default=None)
    if most is not None and (len(texts) > most or sum(map(len, texts)) > most * longest * _SLACK):
        raise refused(f"The prompt is far longer than {most} tokens.", param, "context_length_exceeded")


def make_pair(
    model: LanguageModel, make: Callable[[], PromptPair], settings: Settings, limits: Limits, param: str
) -> PromptPair:
    """The prompts of both streams, which leave room for an answer.

    Args:
        model: what will read them.
        make: makes them.
        settings: the request's.
        limits: what a request may take.
        param: the field that holds the prompt.

    Raises:
        ApiError: no prompts can be made of it, or they are too long.
    """
    from adacd_cli.engine import check_room

    try:
        pair = make()
        length, most = len(pair.unprompted_ids), limits.prompt_tokens
        if most is not None and length > most:
            raise refused(
                f"The prompt is {length} tokens long, and this server takes {most}.",
                param,
                "context_length_exceeded",
            )
    except AdacdError as error:
        raise of(error, param) from error
    try:
        check_room(model, pair, settings)
    except AdacdError as error:
        raise ApiError(
            400, f"{error.message} {error.hint}", param=param, code="context_length_exceeded"
        ) from error
    return pair
